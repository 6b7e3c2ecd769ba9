"""When two re-rankers are the same: equality, hash and ``repr`` by their options."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pandas as pd
import pytest
from helpers.frames import frame
from helpers.tiny_models import tiny_model

from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.pipeline.ensemble import MeanReRanker
from pyterrier_bertcat.pipeline.pyserini import json_text
from pyterrier_bertcat.ray import RayReRanker
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.store.score_store import ScoreStore
from pyterrier_bertcat.training.options import TrainingOptions


@pytest.fixture
def other_checkpoint(tokenizer) -> Checkpoint:
    return Checkpoint(model=tiny_model(seed=1), tokenizer=tokenizer, source="in memory")


def test_equal_options_are_equal_with_equal_hash_and_repr():
    one, two = (BertCatReRanker("mini", max_length=256, dtype="bfloat16") for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert repr(one) == repr(two)


@pytest.mark.parametrize("knob", [{"verbose": False}, {"training": TrainingOptions(steps=3)}], ids=str)
def test_options_that_leave_results_as_they_are_do_not_count(knob):
    assert BertCatReRanker("mini", **knob) == BertCatReRanker("mini")
    assert hash(BertCatReRanker("mini", **knob)) == hash(BertCatReRanker("mini"))
    assert repr(BertCatReRanker("mini", **knob)) == repr(BertCatReRanker("mini"))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"batch_size": 7},
        {"batch_tokens": 999},
        {"max_length": 128},
        {"text_field": "body"},
        {"device": "cpu"},
        {"dtype": "float16"},
        {"revision": "v2"},
        {"missing_text": "empty"},
    ],
    ids=str,
)
def test_every_other_option_counts(change):
    one, two = BertCatReRanker("mini"), BertCatReRanker(**{"model": "mini", **change})
    assert one != two
    assert repr(one) != repr(two)


def test_it_is_not_equal_to_other_things_or_subclasses():
    class Other(BertCatReRanker):
        pass

    assert BertCatReRanker("mini") != "mini"
    assert BertCatReRanker("mini") != Other("mini")


class HandsOn(BertCatReRanker):
    """A subclass that hands on what it gets, and stores an option of its own afterwards."""

    def __init__(self, *args, bonus=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.bonus = bonus


class Short(BertCatReRanker):
    """A subclass that asks for less than its base class; its parameter is stored under another name."""

    def __init__(self, length=128):
        super().__init__("mini", max_length=length)


class HandsOnStore(ScoreStore):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class HandsOnMean(MeanReRanker):
    def __init__(self, *args, bonus=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.bonus = bonus


class HandsOnText(json_text):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class HandsOnRay(RayReRanker):
    def __init__(self, *args, bonus=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.bonus = bonus


@pytest.mark.parametrize(
    ("one", "same", "other", "shown"),
    [
        (
            HandsOn("mini", depth=3, bonus=0.5),
            HandsOn("mini", depth=3, bonus=0.5),
            HandsOn("mini", depth=3),
            "HandsOn('mini', depth=3, bonus=0.5)",
        ),
        (Short(), Short(128), Short(length=64), "Short('mini', max_length=128)"),
        (
            HandsOnStore("/a/store", timeout_s=1),
            HandsOnStore("/a/store"),
            HandsOnStore("/another/store"),
            f"HandsOnStore({os.path.abspath('/a/store')!r})",
        ),
        (
            HandsOnMean([HandsOn("mini")], bonus=1),
            HandsOnMean((HandsOn("mini"),), bonus=1),
            HandsOnMean([HandsOn("mini")]),
            "HandsOnMean((HandsOn('mini'),), bonus=1)",
        ),
        (
            HandsOnText("raw", "contents"),
            HandsOnText("raw", field="contents"),
            HandsOnText("raw", "contents", text_field="body"),
            "HandsOnText('raw', field='contents')",
        ),
        (
            HandsOnRay(Short(), concurrency=2, bonus=1),
            HandsOnRay(Short(), concurrency=2, bonus=1),
            HandsOnRay(Short(), concurrency=2),
            "HandsOnRay(Short('mini', max_length=128), concurrency=2, bonus=1)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_with_another_constructor_is_identified_copied_and_pickled(one, same, other, shown):
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert repr(one) == shown
    for again in (copy.copy(one), pickle.loads(pickle.dumps(one))):
        assert again == one
        assert repr(again) == shown


def test_a_subclass_re_ranks_as_its_base_class(tiny_checkpoint):
    candidates = frame(["the fox", "a lazy dog"])
    options = {"max_length": 20, "device": "cpu", "verbose": False}
    expected = BertCatReRanker(tiny_checkpoint, **options)(candidates)
    pd.testing.assert_frame_equal(HandsOn(tiny_checkpoint, bonus=2, **options)(candidates), expected)


def test_a_path_is_the_string_that_can_only_be_a_path(tmp_path):
    assert BertCatReRanker(Path("mini")) != BertCatReRanker("mini")  # the packaged one
    assert BertCatReRanker(Path("mini")) == BertCatReRanker(os.path.join(".", "mini"))
    assert repr(BertCatReRanker(Path("mini"))) == f"BertCatReRanker({os.path.join('.', 'mini')!r})"
    assert BertCatReRanker(tmp_path) == BertCatReRanker(str(tmp_path))


def test_repr_is_short_and_can_be_evaluated():
    made = BertCatReRanker("mini", max_length=128, revision="v1", verbose=False)
    assert repr(made) == "BertCatReRanker('mini', max_length=128, revision='v1')"
    assert eval(repr(made)) == made


def test_models_in_memory_are_compared_by_their_weights(tiny_checkpoint, tokenizer, other_checkpoint):
    twin = Checkpoint(model=tiny_model(), tokenizer=tokenizer, source="in memory")
    assert BertCatReRanker(tiny_checkpoint) == BertCatReRanker(twin)
    assert hash(BertCatReRanker(tiny_checkpoint)) == hash(BertCatReRanker(twin))
    assert BertCatReRanker(tiny_checkpoint) != BertCatReRanker(other_checkpoint)
    assert len(repr(BertCatReRanker(twin))) < 80
