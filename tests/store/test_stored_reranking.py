"""The re-ranker's ``store=``: the same scores, never another checkpoint's, and nothing loaded where all is known."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.frames import frame
from helpers.tiny_models import tiny_model
from pandas.testing import assert_frame_equal

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model import fingerprint as checkpoint_files
from pyterrier_bertcat.model.checkpoint import Checkpoint, save_checkpoint
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.devices import NO_HALF
from pyterrier_bertcat.store.score_store import ScoreStore

TEXTS = ["the quick brown fox", "a dog", "", "over the lazy dog " * 9, "jump", "a dog"]


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    monkeypatch.setattr(checkpoint_files, "_SETTLED_S", -60.0)  # these tests' own changes are seconds apart


def made(model, store, **options) -> BertCatReRanker:
    return BertCatReRanker(model, store=store, device="cpu", verbose=False, **options)


def test_scores_are_the_same_and_the_second_time_nothing_is_loaded(folder, tmp_path):
    expected = BertCatReRanker(folder, device="cpu", verbose=False)(frame(TEXTS))
    store = ScoreStore(tmp_path / "store")
    first = made(folder, store)
    assert_frame_equal(first(frame(TEXTS)), expected)
    assert (first.stats.from_store, first.stats.distinct_pairs) == (0, 5)
    again = made(folder, tmp_path / "store")
    assert_frame_equal(again(frame(TEXTS)), expected)
    assert (again.stats.from_store, again.stats.pairs, again.stats.distinct_pairs) == (6, 6, 0)
    assert again._checkpoint is None
    assert len(store) == 5


@pytest.mark.filterwarnings("ignore:.* too long")
@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 20},
        {"max_query_length": 2},
        {"truncation": "only_text", "max_length": 20},
        {"passages": Passages(length=8, stride=4)},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.precision
@pytest.mark.usefixtures("half_precision")
def test_other_settings_share_no_score(folder, tmp_path, options):
    store = ScoreStore(tmp_path / "store")
    made(folder, store)(frame(TEXTS))
    other = made(folder, store, **options)
    expected = BertCatReRanker(folder, device="cpu", verbose=False, **options)(frame(TEXTS))
    assert_frame_equal(other(frame(TEXTS)), expected)
    assert other.stats.from_store == 0
    assert len(store) == 10


@pytest.mark.precision
def test_a_cpu_that_stays_in_float32_shares_its_scores(folder, tmp_path, monkeypatch):
    monkeypatch.setenv(NO_HALF, "1")
    store = ScoreStore(tmp_path / "store")
    expected = made(folder, store)(frame(TEXTS))
    other = made(folder, store, dtype="bfloat16")
    with pytest.warns(RuntimeWarning, match="bfloat16 is slow on this cpu"):
        assert_frame_equal(other(frame(TEXTS)), expected)
    assert other.stats.from_store == 6


def test_batches_and_spelled_out_defaults_share_scores(folder, tmp_path):
    store = ScoreStore(tmp_path / "store")
    made(folder, store)(frame(TEXTS))
    again = made(folder, store, batch_size=2, batch_tokens=99, dtype="float32")
    again(frame(TEXTS))
    assert again.stats.from_store == 6


def test_changed_files_share_no_score(tokenizer, folder, tmp_path):
    store = ScoreStore(tmp_path / "store")
    made(folder, store)(frame(TEXTS))
    time.sleep(0.05)
    shutil.rmtree(folder)
    save_checkpoint(Checkpoint(model=tiny_model(seed=1), tokenizer=tokenizer), folder)
    expected = BertCatReRanker(folder, device="cpu", verbose=False)(frame(TEXTS))
    other = made(folder, store)
    assert_frame_equal(other(frame(TEXTS)), expected)
    assert other.stats.from_store == 0


def test_what_is_loaded_counts_and_not_what_the_files_have_become(tokenizer, folder, tmp_path):
    store = ScoreStore(tmp_path / "store")
    loaded = made(folder, store).load()
    expected = BertCatReRanker(folder, device="cpu", verbose=False)(frame(TEXTS))
    shutil.rmtree(folder)
    save_checkpoint(Checkpoint(model=tiny_model(seed=1), tokenizer=tokenizer), folder)
    assert_frame_equal(loaded(frame(TEXTS)), expected)
    other = made(folder, store)
    assert not np.allclose(other(frame(TEXTS))["score"], expected["score"])
    assert other.stats.from_store == 0


def test_a_model_in_memory_is_kept_by_its_weights(tokenizer, tmp_path):
    for seed in (0, 1, 0):
        checkpoint = Checkpoint(model=tiny_model(seed=seed), tokenizer=tokenizer)
        last = made(checkpoint, tmp_path / "store")
        last(frame(TEXTS))
    assert last.stats.from_store == 6
    assert len(ScoreStore(tmp_path / "store")) == 10


def test_a_fully_stored_frame_needs_no_torch(folder, tmp_path):
    os.utime(folder)
    time.sleep(0.01)
    code = f"""
import sys, pandas as pd
from pyterrier_bertcat import BertCatReRanker
from pyterrier_bertcat.model import fingerprint
fingerprint._SETTLED_S = -60.0
frame = pd.DataFrame([["q", "a dog", "d", "the fox"]], columns=["qid", "query", "docno", "text"])
made = BertCatReRanker({str(folder)!r}, store={str(tmp_path / "store")!r}, device="cpu", verbose=False)
print(made(frame)["score"][0], "torch" in sys.modules)
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    (first, loaded), (second, loaded_again) = (run.stdout.split() for run in runs)
    assert first == second
    assert (loaded, loaded_again) == ("True", "False")


def test_a_frame_that_cannot_be_scored_is_refused_before_the_store_is_asked(folder, tmp_path):
    with pytest.raises(InputError, match="1 missing"):
        made(folder, tmp_path / "store")(frame(TEXTS).assign(text=[*TEXTS[:5], None]))
    assert not (tmp_path / "store").exists()


def test_the_store_is_no_part_of_what_a_reranker_is(folder, tmp_path):
    one, two = made(folder, tmp_path / "store"), made(folder, None)
    assert one == two
    assert pickle.loads(pickle.dumps(made(folder, ScoreStore(tmp_path / "s")))).store == ScoreStore(tmp_path / "s")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="leave extra_columns or store out"):
        BertCatReRanker("mini", store="s", extra_columns=["truncated"])
    with pytest.raises(InputError, match="store is a ScoreStore or its path"):
        BertCatReRanker("mini", store=3)
