from __future__ import annotations

import threading
from contextlib import closing

import pytest

from pyterrier_bertcat.scoring.pair_scorer import look_ahead


def test_the_items_come_in_their_order():
    assert list(look_ahead(range(100), thread_name="test")) == list(range(100))
    assert list(look_ahead([], thread_name="test")) == []


def test_exactly_one_item_is_computed_ahead_in_another_thread():
    begun, threads = [], set()
    second = threading.Event()

    def items():
        for number in range(5):
            begun.append(number)
            threads.add(threading.current_thread())
            if number == 1:
                second.set()
            yield number

    ahead = look_ahead(items(), thread_name="test")
    assert next(ahead) == 0
    assert second.wait(10)  # computed while 0 is in use
    assert begun == [0, 1]
    assert list(ahead) == [1, 2, 3, 4]
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        raise ValueError("the second")

    ahead = look_ahead(items(), thread_name="test")
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="the second"):
        next(ahead)


def test_no_thread_is_left_when_the_consumer_stops_early():
    before = threading.active_count()
    with closing(look_ahead(iter(range(10**9)), thread_name="test")) as ahead:
        next(ahead)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
