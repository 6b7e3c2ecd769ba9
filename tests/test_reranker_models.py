"""The weights of a ``BertCatReRanker``: loaded, set later, saved, pinned, verified, and fitted."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from helpers.frames import TEXTS, results
from helpers.tiny_models import scores_by_hand, tiny_model
from pandas.testing import assert_frame_equal

from pyterrier_bertcat.errors import CheckpointError, InputError, TrainingDataError
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.training.options import TrainingOptions


@pytest.fixture(scope="module")
def bertcat(saved_folder) -> BertCatReRanker:
    return BertCatReRanker(str(saved_folder), device="cpu", verbose=False).load()


@pytest.fixture
def other_checkpoint(tokenizer) -> Checkpoint:
    return Checkpoint(model=tiny_model(seed=1), tokenizer=tokenizer, source="in memory")


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


@pytest.mark.filterwarnings("ignore:.* too long")
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
