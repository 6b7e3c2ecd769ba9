"""Pairs as rows of tokens: what the tokenizer makes of them, each text once, in batches."""

from __future__ import annotations

import copy
import logging
import threading

import numpy as np
import pytest
import transformers
from helpers.pair_tokenizers import KINDS, pair_tokenizer, tokenizer_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.truncation import Truncation, longest_first


def assert_same_as_tokenizer(kind: str, query: str, text: str, max_length: int) -> None:
    expected = tokenizer_of(kind)(query, text, truncation=True, max_length=max_length)
    pairs = pair_tokenizer(kind, max_length).encode([query], [text])
    batch = pairs.batch([0]).padded()
    assert batch.input_ids[0].tolist() == expected["input_ids"]
    assert batch.attention_mask[0].tolist() == expected["attention_mask"]
    assert pairs.lengths.tolist() == [len(expected["input_ids"])]
    assert (batch.token_type_ids is None) == ("token_type_ids" not in expected)
    if batch.token_type_ids is not None:
        assert batch.token_type_ids[0].tolist() == expected["token_type_ids"]


words = st.one_of(
    st.sampled_from(
        ["the", "fox", "unbelievably", "1,000.5", "##s", "[SEP]", "[PAD]", "</s>", "<pad>", "\x00", "\t", "\r\n"]
    ),
    st.sampled_from(["🔥", "\u00e9", "e\u0301", "\u200b", "\ufffd", "日本", "\U0010ffff", "ß", "…", "ﬁ", "אב"]),
)
some_text = st.one_of(
    st.text(max_size=30),
    st.text(alphabet=st.characters(categories=["Cc", "Cf", "Zs", "Mn", "Co", "So"]), max_size=10),
    st.lists(words, max_size=30).map(" ".join),
    st.tuples(words, st.integers(0, 40)).map(lambda word_times: " ".join([word_times[0]] * word_times[1])),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(query=some_text, text=some_text, max_length=st.sampled_from([4, 5, 6, 7, 10, 11, 16, 17, 512]))
@example(query="", text="", max_length=512)
@example(query="a query", text="", max_length=5)
@example(query="", text="a text", max_length=512)
@example(query="a query", text=" ", max_length=512)
@example(query="fox " * 600, text="dog", max_length=512)
@example(query="fox " * 600, text="", max_length=512)
@example(query="fox " * 600, text="dog " * 601, max_length=512)
@example(query="fox " * 601, text="dog " * 600, max_length=511)
@example(query="fox " * 600, text="dog " * 600, max_length=511)
@example(query="fox " * 255, text="dog " * 600, max_length=512)
def test_a_pair_is_what_the_tokenizer_makes_of_it(kind, query, text, max_length):
    assert_same_as_tokenizer(kind, query, text, max_length)


def test_a_pair_with_room_for_special_tokens_only_has_only_those():
    assert_same_as_tokenizer("bert", "the quick brown", "fox", 3)
    assert_same_as_tokenizer("bert", "the quick brown", "", 3)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(3, 45))
@settings(max_examples=300)
def test_truncation_cuts_as_the_tokenizer_does(query_tokens, text_tokens, max_length):
    query, text = " ".join(["fox"] * query_tokens), " ".join(["dog"] * text_tokens)
    expected = tokenizer_of("bert")(query, text or " ", truncation=True, max_length=max_length)
    kept = longest_first(np.array([query_tokens]), np.array([text_tokens]), max_length - 3)
    owners = expected.sequence_ids(0)
    assert kept[:, 0].tolist() == [owners.count(0), owners.count(1)]


@pytest.mark.parametrize("max_length", [8, 9, 512])
def test_a_tokenizer_that_truncates_on_the_left_is_followed(max_length):
    tokenizer = copy.deepcopy(tokenizer_of("bert"))
    tokenizer.truncation_side = "left"
    pairs = PairTokenizer(tokenizer, truncation=Truncation(max_length=max_length))
    queries = ["one two three four five six", "one", "one two three four five six seven eight nine ten", "one two"]
    texts = ["a b c d e f g h", "a b c d e f g h", "", "a"]
    encoded = pairs.encode(queries, texts)
    for row, (query, text) in enumerate(zip(queries, texts, strict=True)):
        expected = tokenizer(query, text, truncation=True, max_length=max_length)["input_ids"]
        assert encoded.batch([row]).padded().input_ids[0].tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(st.lists(st.tuples(some_text, some_text), min_size=1, max_size=12), st.randoms())
def test_a_batch_is_its_pairs_padded_on_the_right_in_the_order_asked_for(kind, texts, random):
    tokenizer = tokenizer_of(kind)
    pairs = pair_tokenizer(kind, 16).encode(*zip(*texts, strict=True))
    rows = random.choices(range(len(texts)), k=len(texts))
    batch = pairs.batch(rows).padded()
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
    longest = max(pairs.lengths[rows])
    for line, row in enumerate(rows):
        ids = tokenizer(*texts[row], truncation=True, max_length=16)["input_ids"]
        pads = int(longest) - len(ids)
        assert batch.input_ids[line].tolist() == ids + [tokenizer.pad_token_id] * pads
        assert batch.attention_mask[line].tolist() == [1] * len(ids) + [0] * pads


def test_no_pairs_encode_to_none():
    pairs = pair_tokenizer("bert", 16).encode([], [])
    assert len(pairs) == 0
    assert pairs.lengths.shape == (0,)
    assert pairs.batch([]).padded().input_ids.shape == (0, 0)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.data())
def test_a_slice_of_a_batch_is_the_batch_of_its_pairs(lengths, data):
    texts = [" ".join(["fox"] * length) for length in lengths]
    pairs = pair_tokenizer("bert", 32).encode(["a dog"] * len(texts), texts)
    start = data.draw(st.integers(0, len(texts) - 1))
    part = slice(start, data.draw(st.integers(start + 1, len(texts))))
    got, expected = pairs.batch(range(len(texts)))[part], pairs.batch(range(len(texts))[part])
    for name in ("lengths", "input_ids", "token_type_ids", "position_ids", "starts"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert len(got) == len(expected)


def test_each_distinct_text_is_tokenised_once():
    seen: list[str] = []

    class Recording:
        """The tokenizer's own engine, and a record of what it is given."""

        def __init__(self, engine):
            self.engine = engine

        def __getattr__(self, name):
            return getattr(self.engine, name)

        def encode_batch_fast(self, texts, **options):
            seen.extend(texts)
            return self.engine.encode_batch_fast(texts, **options)

    pairs = PairTokenizer(tokenizer_of("bert"))
    pairs._tokenizer._tokenizer = Recording(pairs._tokenizer._tokenizer)
    texts = [f"text {number % 1500}" for number in range(3000)]  # more than one call's worth
    pairs.encode(["the query", "text 7"] * 1500, texts)
    assert sorted(seen) == sorted({"the query", *texts})


def test_the_callers_tokenizer_keeps_its_truncation_and_padding():
    tokenizer = copy.deepcopy(tokenizer_of("bert"))
    tokenizer.backend_tokenizer.enable_truncation(7)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    before = (tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding)
    pairs = PairTokenizer(tokenizer).encode(["a b c d e f g h"], ["i j k l m n o p"])
    assert pairs.lengths.tolist() == [19]
    assert (tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding) == before


def test_texts_beyond_the_models_length_cause_no_warning():
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    tokenizer = copy.deepcopy(tokenizer_of("bert"))
    tokenizer.model_max_length = 8
    logger = transformers.utils.logging.get_logger("transformers")
    logger.addHandler(handler)
    try:
        PairTokenizer(copy.deepcopy(tokenizer), truncation=Truncation(max_length=16)).encode(
            ["fox " * 50], ["dog " * 50]
        )
        assert messages == []
        tokenizer("fox " * 50)
        assert "longer than" in messages[0]
    finally:
        logger.removeHandler(handler)


def test_threads_may_share_one():
    pairs = PairTokenizer(tokenizer_of("bert"), truncation=Truncation(max_length=32))
    queries = [f"query {number}" for number in range(50)]
    expected = pairs.encode(queries, queries[::-1]).batch(range(50)).padded().input_ids
    wrong: list[object] = []

    def work() -> None:
        try:
            for _ in range(20):
                if not np.array_equal(
                    pairs.encode(queries, queries[::-1]).batch(range(50)).padded().input_ids, expected
                ):
                    wrong.append("ids differ")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
