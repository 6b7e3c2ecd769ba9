"""When two re-rankers are the same: equality, hash and ``repr`` by their options."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import tiny_model

from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.reranker import BertCatReRanker
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
