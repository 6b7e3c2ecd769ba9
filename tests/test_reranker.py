"""``BertCatReRanker``: columns, refusals, identity, copies, options."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import threading
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
import torch
from conftest import tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pyterrier_bertcat.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.errors import CheckpointError, InputError, ScoreError, TrainingDataError
from pyterrier_bertcat.passages import Passages
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.training.options import TrainingOptions

TEXTS = {
    "d1": "copy a folder with everything in it",
    "d2": "remove a file from the disk",
    "d3": "how sockets wait for a connection, and how long they do so before they give up",
    "d4": "",
    "d5": "große Straßen und 東京 🔥",
}


def results(**changes) -> pd.DataFrame:
    """Two queries, five rows, as a first stage gives them."""
    table = pd.DataFrame(
        {
            "qid": ["q2", "q2", "q1", "q1", "q1"],
            "query": ["copy a directory", "copy a directory", "wait", "wait", "wait"],
            "docno": ["d1", "d2", "d3", "d4", "d5"],
            "text": [TEXTS[docno] for docno in ("d1", "d2", "d3", "d4", "d5")],
            "score": [9.0, 8.0, 7.0, 6.0, 5.0],
            "rank": [0, 1, 0, 1, 2],
        }
    )
    return table.assign(**changes)


def scores_by_hand(checkpoint: Checkpoint, frame: pd.DataFrame) -> list[float]:
    """The published recipe, a pair at a time: the encoder, its first token, the linear layer."""
    model, scores = checkpoint.model, []
    for query, text in zip(frame["query"], frame["text"], strict=True):
        pair = checkpoint.tokenizer(query, text, truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            hidden = model.bert_model(input_ids=pair["input_ids"], attention_mask=pair["attention_mask"])[0]
            scores.append(float(model._classification_layer(hidden[:, 0])))
    return scores


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory) -> Path:
    """The tiny checkpoint, saved."""
    return save_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def bertcat(folder) -> BertCatReRanker:
    return BertCatReRanker(str(folder), device="cpu", verbose=False).load()


@pytest.fixture
def other_checkpoint(tokenizer) -> Checkpoint:
    return Checkpoint(model=tiny_model(seed=1), tokenizer=tokenizer, source="in memory")


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


def test_inspection_after_loading_finds_the_options_and_not_the_network(bertcat, folder):
    attributes = {attribute.name: attribute.value for attribute in pt.inspect.transformer_attributes(bertcat)}
    assert attributes["model"] == str(folder)
    clone = pt.inspect.transformer_apply_attributes(bertcat, batch_size=3)
    assert (clone.batch_size, clone.model) == (3, bertcat.model)
    assert pt.inspect.transformer_apply_attributes(bertcat) == bertcat
    assert pt.inspect.subtransformers(bertcat) == {}


def test_the_schematic_needs_no_network():
    schematic = pt.schematic.transformer_schematic(BertCatReRanker("mini"))
    assert schematic["help_url"].startswith("https://")
    assert len(schematic["label"]) <= 20
    assert set(schematic["input_columns"]) == {"qid", "query", "docno", "text"}
    assert "help_url" in BertCatReRanker.schematic  # without one, drawing asks the network for it


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


# Models


def test_load_returns_itself_and_loads_once(folder):
    made = BertCatReRanker(folder, device="cpu", verbose=False)
    assert made.load() is made
    assert made.load().scorer is made.scorer


def test_threads_share_one_loaded_scorer(folder, bertcat):
    made = BertCatReRanker(folder, device="cpu", verbose=False)
    expected, outcomes, scorers = bertcat(results()), [], set()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        outcomes.append(made(results()))
        scorers.add(made.scorer)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert len(scorers) == 1
    for outcome in outcomes:
        assert_frame_equal(outcome, expected, atol=5e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.* pairs were too long")
def test_an_option_set_later_takes_effect(folder, tiny_checkpoint):
    made = BertCatReRanker(folder, device="cpu", verbose=False).load()
    checkpoint = made.checkpoint
    made.set_parameter("max_length", 5)
    fresh = BertCatReRanker(folder, max_length=5, device="cpu", verbose=False)
    assert_frame_equal(made(results()), fresh(results()))
    assert made == fresh
    assert made.checkpoint is checkpoint  # only the scorer is made again
    made.verbose = True
    assert made.scorer.verbose is True
    made.batch_size = 0
    with pytest.raises(InputError, match="batch_size"):
        made(results())


def test_a_model_set_later_takes_effect(folder, tiny_checkpoint, other_checkpoint):
    made = BertCatReRanker(folder, device="cpu", verbose=False).load()
    made.model = other_checkpoint
    np.testing.assert_allclose(
        made(results())["score"], scores_by_hand(other_checkpoint, made(results())), atol=5e-5, rtol=0
    )


def test_a_model_object_brings_its_tokenizer_from_where_it_was_loaded(folder, bertcat):
    model = load_checkpoint(folder).model
    made = BertCatReRanker(type(model).from_pretrained(folder), device="cpu", verbose=False)
    assert_frame_equal(made(results()), bertcat(results()))
    assert_frame_equal(pickle.loads(pickle.dumps(made))(results()), bertcat(results()))


def test_a_model_object_without_a_tokenizer_is_refused_at_once():
    model = tiny_model()
    model.config.bert_model = "no/such-encoder"
    with pytest.raises(CheckpointError, match=r"tokenizer.*Checkpoint"):
        BertCatReRanker(model)


def test_a_vocabulary_that_is_not_the_models_is_said_so_and_not_that_there_is_none(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    model = type(load_checkpoint(folder).model).from_pretrained(copied)
    (copied / "tokenizer.json").unlink()
    (copied / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n")
    with pytest.raises(CheckpointError, match="expected a vocabulary of 30,522 tokens"):
        BertCatReRanker(model)


def test_what_is_saved_is_what_model_reads(tiny_checkpoint, bertcat, tmp_path):
    saved = BertCatReRanker(tiny_checkpoint, verbose=False).save_pretrained(tmp_path / "saved")
    again = BertCatReRanker(saved, device="cpu", verbose=False)
    assert_frame_equal(again(results()), bertcat(results()))
    assert again.checkpoint.fingerprint == bertcat.checkpoint.fingerprint


def test_what_is_pushed_is_what_model_reads(bertcat, monkeypatch, tmp_path):
    import huggingface_hub

    calls = []

    class Hub:
        """The hub's side: keeps what arrives."""

        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, **options):
            calls.append(("create", repo_id, options))

        def create_branch(self, repo_id, **options):
            calls.append(("branch", repo_id, options))

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
            calls.append(("upload", repo_id, revision, commit_message))
            received = BertCatReRanker(folder_path, device="cpu", verbose=False)
            assert_frame_equal(received(results()), bertcat(results()))
            return huggingface_hub.CommitInfo(
                commit_url=f"https://huggingface.co/{repo_id}/commit/1",
                commit_message=commit_message,
                commit_description="",
                oid="1",
            )

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    address = bertcat.push_to_hub("me/tiny", private=True, token="t", revision="v2", commit_message="m")
    assert address == "https://huggingface.co/me/tiny/commit/1"
    assert calls == [
        ("token", "t"),
        ("create", "me/tiny", {"private": True, "exist_ok": True}),
        ("branch", "me/tiny", {"branch": "v2", "exist_ok": True}),
        ("upload", "me/tiny", "v2", "m"),
    ]


def test_a_pin_holds_a_folder_to_its_weights(folder, bertcat, other_checkpoint, tmp_path):
    pinned = BertCatReRanker(
        folder, revision=f"sha256:{bertcat.checkpoint.fingerprint[:16]}", device="cpu", verbose=False
    )
    assert_frame_equal(pinned(results()), bertcat(results()))
    changed = BertCatReRanker(
        save_checkpoint(other_checkpoint, tmp_path / "x"), revision=pinned.revision, verbose=False
    )
    with pytest.raises(CheckpointError, match="pinned"):
        changed.load()


def test_verify_compares_with_the_known_scores_of_the_checkpoint(tiny_checkpoint, bertcat, tokenizer):
    with pytest.raises(CheckpointError, match="known"):
        bertcat.verify()  # about this one nothing is
    query, text = "copy a directory", TEXTS["d1"]
    known = float(bertcat.scorer.score([query], [text])[0])
    for shift, outcome in ((0.0, None), (0.1, CheckpointError)):
        model = copy.deepcopy(tiny_checkpoint.model)
        model.config.known_scores = [{"query": query, "text": text, "score": known + shift}]
        made = BertCatReRanker(
            Checkpoint(model=model, tokenizer=tokenizer, source="in memory"), device="cpu", verbose=False
        )
        if outcome is None:
            assert made.verify().largest_difference < 5e-5
        else:
            with pytest.raises(outcome):
                made.verify()
            assert made.verify(tolerance=0.2).largest_difference == pytest.approx(0.1, abs=5e-5)
    report = bertcat.verify(known=[(query, text, known)])
    assert [row.expected for row in report.rows] == [known]
    with pytest.raises(CheckpointError, match="NOT as known"):
        bertcat.verify(known=[(query, text, known + 0.1)])


# Training


QRELS = pd.DataFrame({"qid": ["q1", "q2"], "docno": ["d3", "d1"], "label": [1, 1]})


def test_fit_returns_itself_with_other_weights_and_another_identity(tiny_checkpoint):
    made = BertCatReRanker(
        tiny_checkpoint,
        training=TrainingOptions(steps=2, queries_per_step=1, learning_rate=1e-2, warmup_steps=0),
        device="cpu",
        verbose=False,
    )
    before, name, number = made(results()), repr(made), hash(made)
    twin = copy.copy(made)
    assert made.fit(results(), QRELS) is made
    assert made != twin
    assert (repr(made), hash(made)) != (name, number)
    assert not np.allclose(
        made(results()).sort_values("docno")["score"], before.sort_values("docno")["score"], atol=1e-3
    )
    assert_frame_equal(twin(results()), before)  # what it started from is as it was
    assert_frame_equal(pickle.loads(pickle.dumps(made))(results()), made(results()))


def test_fit_with_a_folder_names_the_folder_and_pins_it(folder, tmp_path):
    made = BertCatReRanker(
        folder,
        training=TrainingOptions(
            steps=2, queries_per_step=1, learning_rate=1e-2, output=tmp_path / "out", measure="RR"
        ),
        device="cpu",
        verbose=False,
    )
    original = copy.copy(made)
    made.fit(results(), QRELS, results(), QRELS)
    assert made != original
    assert os.fspath(made.model) == os.fspath(tmp_path / "out")
    assert made.revision.startswith("sha256:")
    assert len(pickle.dumps(made)) < 3000
    twin = pt.inspect.transformer_apply_attributes(made)
    assert twin == made
    assert_frame_equal(twin(results()), made(results()))


def test_a_fitted_folder_is_found_again_from_another_current_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = TrainingOptions(steps=1, queries_per_step=1, output="out")
    made = BertCatReRanker(folder, training=training, device="cpu", verbose=False).fit(results(), QRELS)
    assert made.model == str((tmp_path / "out").resolve())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(made(results())) == len(results())


def test_fit_in_a_pipeline_trains_the_last_stage(folder):
    made = BertCatReRanker(
        folder,
        training=TrainingOptions(steps=1, queries_per_step=1, learning_rate=1e-2, warmup_steps=0),
        device="cpu",
        verbose=False,
    )
    before = made(results())
    topics = results()[["qid", "query"]].drop_duplicates()
    first_stage = pt.Transformer.from_df(results().drop(columns="query"))
    (first_stage >> made).fit(topics, QRELS)
    assert not np.allclose(made(results())["score"], before["score"], atol=1e-4)


def test_fit_refuses_bad_frames_before_it_loads_anything():
    made = BertCatReRanker("no/such-model")
    with pytest.raises(pt.validate.InputValidationError, match="text"):
        made.fit(results().drop(columns="text"), QRELS)
    with pytest.raises(InputError, match="docno 'd2'"):
        made.fit(results(), QRELS, results(text=["a", None, "c", "d", "e"]), QRELS)


def test_fit_without_positives_is_a_training_data_error(folder):
    made = BertCatReRanker(folder, device="cpu", verbose=False)
    with pytest.raises(TrainingDataError):
        made.fit(results(), QRELS.assign(label=0))
