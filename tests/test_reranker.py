"""``BertCatReRanker``: what it gives and refuses, what PyTerrier sees of it, and its copies."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
import torch
from helpers.frames import results
from helpers.tiny_models import scores_by_hand, tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pyterrier_bertcat.errors import CheckpointError, InputError, ScoreError
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.names import PUBLISHED
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.training.options import TrainingOptions


@pytest.fixture(scope="module")
def bertcat(saved_folder) -> BertCatReRanker:
    return BertCatReRanker(str(saved_folder), device="cpu", verbose=False).load()


# What it gives


def test_three_rows_come_back_scored_ordered_and_ranked(bertcat, tiny_checkpoint):
    inp = results(url=["u1", "u2", "u3", "u4", "u5"]).iloc[:3]
    by_hand = np.array(scores_by_hand(tiny_checkpoint, inp), dtype=np.float32)
    best, other = (0, 1) if by_hand[0] > by_hand[1] else (1, 0)
    expected = inp.drop(columns=["score", "rank"]).iloc[[best, other, 2]].reset_index(drop=True)
    expected = expected.assign(score=by_hand[[best, other, 2]], rank=[0, 1, 0])
    assert abs(by_hand[0] - by_hand[1]) > 1e-3
    assert_frame_equal(bertcat(inp), expected, atol=5e-5, rtol=0)


def test_scores_are_those_of_the_plain_encoder_and_linear_layer(bertcat, tiny_checkpoint):
    out = bertcat(results())
    np.testing.assert_allclose(out["score"], scores_by_hand(tiny_checkpoint, out), atol=5e-5, rtol=0)
    assert out["score"].dtype == np.float32


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_tokens": 16}, {"batch_size": 5, "batch_tokens": 10_000}]
)
def test_scores_do_not_depend_on_the_batches(bertcat, options):
    in_other_batches = BertCatReRanker(bertcat.model, device="cpu", verbose=False, **options)
    assert_frame_equal(in_other_batches(results()), bertcat(results()), atol=5e-5, rtol=0)


def test_a_frame_without_scores_and_ranks_will_do(bertcat):
    assert_frame_equal(bertcat(results().drop(columns=["score", "rank"])), bertcat(results()))


@pytest.mark.parametrize(
    "index",
    [[0] * 5, list("edcba"), [None] * 5, pd.MultiIndex.from_product([[1], range(5)]), range(10, 0, -2)],
    ids=["duplicates", "strings", "missing", "levels", "backwards"],
)
def test_any_index_gives_the_same(bertcat, index):
    assert_frame_equal(bertcat(results().set_axis(index)), bertcat(results()))


def test_the_callers_frame_is_as_it_was(bertcat):
    inp = results()
    bertcat(inp)
    assert_frame_equal(inp, results())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4), max_size=8), st.randoms(use_true_random=False))
def test_a_permutation_of_the_rows_never_changes_a_pairs_score(bertcat, rows, random):
    inp = results().iloc[rows]
    shuffled = list(rows)
    random.shuffle(shuffled)
    out, again = bertcat(inp), bertcat(results().iloc[shuffled])
    assert len(out) == len(rows)
    expected = out.drop_duplicates(["qid", "docno"]).set_index(["qid", "docno"])["score"].sort_index()
    found = again.drop_duplicates(["qid", "docno"]).set_index(["qid", "docno"])["score"].sort_index()
    pd.testing.assert_series_equal(found, expected, atol=5e-5, rtol=0)
    assert out.groupby(["qid", "docno"])["score"].nunique().le(1).all()


@pytest.mark.parametrize(
    "columns", [["qid", "query", "docno", "text"], ["text", "rank", "x", "docno", "score", "query", "qid"]]
)
def test_an_empty_frame_gives_the_same_columns_and_types(bertcat, columns):
    full = bertcat(results(x=1)[columns])
    empty = bertcat(results(x=1)[columns].iloc[:0])
    assert_frame_equal(empty, full.iloc[:0], check_index_type=False)
    assert list(bertcat(pd.DataFrame(columns=columns)).columns) == list(full.columns)


def test_records_give_records(bertcat):
    records = results().to_dict(orient="records")
    assert bertcat(records) == bertcat(results()).to_dict(orient="records")
    assert list(bertcat.transform_iter(iter(records))) == bertcat(records)
    assert bertcat([]) == []


def test_another_column_can_hold_the_text(bertcat):
    renamed = BertCatReRanker(bertcat.model, text_field="body", device="cpu", verbose=False)
    out = renamed(results().rename(columns={"text": "body"}))
    assert_frame_equal(out.rename(columns={"body": "text"}), bertcat(results()))


def test_whole_number_qids_are_fine(bertcat):
    out = bertcat(results(qid=[2, 2, 1, 1, 1]))
    assert out["qid"].tolist() == [2, 2, 1, 1, 1]
    assert out["rank"].tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str"])
def test_any_string_type_of_pandas_is_fine(bertcat, dtype):
    out = bertcat(results().astype(dict.fromkeys(["qid", "query", "docno", "text"], dtype)))
    assert out["docno"].tolist() == bertcat(results())["docno"].tolist()


@pytest.mark.parametrize("options", [{}, {"depth": 1}], ids=str)
def test_categories_that_do_not_occur_change_nothing(bertcat, options):
    reranker = BertCatReRanker(bertcat.model, device="cpu", verbose=False, **options)
    columns = ["qid", "query", "docno", "text"]
    frame = pd.concat([results(), results(qid="q9", docno="d9")]).astype(dict.fromkeys(columns, "category"))
    out = reranker(frame[frame["qid"] != "q9"])
    pd.testing.assert_frame_equal(out.astype(dict.fromkeys(columns, object)), reranker(results()), check_dtype=False)


# What it refuses


@pytest.mark.parametrize("column", ["qid", "query", "docno", "text"])
def test_a_missing_column_is_an_input_validation_error(column):
    with pytest.raises(pt.validate.InputValidationError, match=column):
        BertCatReRanker("no/such-model")(results().drop(columns=column))


def test_bad_rows_are_refused_before_a_model_is_even_looked_for():
    with pytest.raises(InputError, match=r"'text' 2 .*docno 'd2' of qid 'q2', docno 'd4' of qid 'q1'"):
        BertCatReRanker("no/such-model")(results(text=["a", None, "c", float("nan"), "e"]))


def test_a_missing_text_can_count_as_empty(bertcat):
    lenient = BertCatReRanker(bertcat.model, missing_text="empty", device="cpu", verbose=False)
    assert lenient(results(text=["a", None, "c", "d", None]))["score"].tolist() == pytest.approx(
        bertcat(results(text=["a", "", "c", "d", ""]))["score"].tolist(), abs=5e-5
    )


def test_a_score_that_is_not_finite_is_an_error_and_leaves_no_frame(tokenizer):
    broken = tiny_model()
    torch.nn.init.constant_(broken._classification_layer.bias, float("nan"))
    checkpoint = Checkpoint(model=broken, tokenizer=tokenizer, source="in memory")
    with pytest.raises(ScoreError, match="nan"):
        BertCatReRanker(checkpoint, device="cpu", verbose=False)(results())


def test_a_model_that_is_not_there_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError):
        BertCatReRanker(tmp_path / "nothing", verbose=False).load()


# What PyTerrier sees of it


def test_every_parameter_is_stored_as_it_was_given():
    given_options = {
        "model": Path("x"),
        "batch_size": 3,
        "batch_tokens": 99,
        "max_length": 64,
        "max_query_length": 32,
        "truncation": "only_text",
        "passages": Passages(length=20, stride=10),
        "depth": 7,
        "extra_columns": ["truncated"],
        "text_field": "body",
        "device": "cpu",
        "devices": None,
        "dtype": "int8",
        "backend": "openvino",
        "calibration": [("a query", "a text")],
        "revision": "r",
        "store": None,
        "missing_text": "empty",
        "training": TrainingOptions(steps=9),
        "verbose": False,
    }
    made = BertCatReRanker(**given_options)
    attributes = {attribute.name: attribute.value for attribute in pt.inspect.transformer_attributes(made)}
    assert attributes == given_options
    assert all(attributes[name] is value for name, value in given_options.items())


def test_inspection_after_loading_finds_the_options_and_not_the_network(bertcat, saved_folder):
    attributes = {attribute.name: attribute.value for attribute in pt.inspect.transformer_attributes(bertcat)}
    assert attributes["model"] == str(saved_folder)
    clone = pt.inspect.transformer_apply_attributes(bertcat, batch_size=3)
    assert (clone.batch_size, clone.model) == (3, bertcat.model)
    assert pt.inspect.transformer_apply_attributes(bertcat) == bertcat
    assert pt.inspect.subtransformers(bertcat) == {}


def test_the_schematic_needs_no_network():
    schematic = pt.schematic.transformer_schematic(BertCatReRanker("mini"))
    assert schematic["help_url"].startswith("https://")
    assert set(schematic["input_columns"]) == {"qid", "query", "docno", "text"}


@pytest.mark.parametrize(
    ("model", "label"),
    [
        (PUBLISHED, "BERT_Cat"),
        ("mini", "BERT_Cat mini"),
        ("cross-encoder/ms-marco-electra-base", "ms-marco-electra-base"[:19] + "…"),
        ("cross-encoder/stsb-roberta-base", "stsb-roberta-base"),
        (Path("runs") / "first", "BERT_Cat first"),
        (".", "BERT_Cat ."),
    ],
)
def test_a_schematic_names_the_model_in_at_most_20_characters(model, label):
    assert len(label) <= 20
    assert pt.schematic.transformer_schematic(BertCatReRanker(model))["label"] == label


def test_a_schematic_shows_the_options_that_were_chosen(tmp_path, tiny_checkpoint):
    chosen = BertCatReRanker("mini", max_length=96, passages=Passages(), store=tmp_path)
    shown = {"model": "mini", "max_length": 96, "passages": Passages(), "store": str(tmp_path)}
    assert pt.schematic.transformer_schematic(chosen)["settings"] == shown
    html = pt.schematic.draw(chosen)
    assert "<th>max_length</th><td>96</td>" in html
    assert "batch_size" not in html
    in_memory = pt.schematic.transformer_schematic(BertCatReRanker(tiny_checkpoint))
    assert in_memory["label"] == "BERT_Cat in memory"
    assert len(str(in_memory["settings"])) < 80
    mean = BertCatReRanker.mean([BertCatReRanker("mini", max_length=96), BertCatReRanker("mini")])
    drawn = pt.schematic.transformer_schematic(mean)
    assert drawn["label"] == "mean of 2 models"
    assert drawn["settings"] == {
        "model 1": "BertCatReRanker('mini', max_length=96)",
        "model 2": "BertCatReRanker('mini')",
    }


# Copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_carries_the_options_and_not_the_weights(bertcat, copied):
    twin = copied(bertcat)
    assert twin == bertcat
    assert twin.verbose is False
    assert len(pickle.dumps(bertcat)) < 2000
    assert_frame_equal(twin(results()), bertcat(results()))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_weights_that_are_only_in_memory_are_carried(tiny_checkpoint, copied):
    original = BertCatReRanker(tiny_checkpoint, device="cpu", verbose=False)
    twin = copied(original)
    assert twin == original
    assert_frame_equal(twin(results()), original(results()))


def test_joblib_hashes_equal_rerankers_alike_and_dumps_them(bertcat, tmp_path):
    joblib.dump(bertcat, tmp_path / "bertcat.joblib")
    assert joblib.load(tmp_path / "bertcat.joblib") == bertcat
    assert joblib.hash(copy.copy(bertcat)) == joblib.hash(bertcat)
