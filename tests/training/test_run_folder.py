"""The folder of a training run: it belongs to one run, ends as a checkpoint, and continues after a kill."""

import ast
import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyterrier as pt
import pytest
import torch
from helpers.tiny_models import tiny_model
from helpers.training_collection import HELD_OUT, QUICK, TRAIN

from pyterrier_bertcat import BertCatReRanker, TrainingOptions
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.training.fitting import fit

HERE = [str(folder) for folder in Path(__file__).parents[:2]]  # for processes that import this file


@pytest.fixture(scope="module")
def start(tokenizer):
    torch.manual_seed(0)
    return Checkpoint(model=tiny_model("bert"), tokenizer=tokenizer)


def test_the_output_folder_is_a_checkpoint_that_loads(start, tmp_path):
    trained = fit(start, replace(QUICK, output=tmp_path / "run"), *TRAIN)
    assert trained.source == str(tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").fingerprint == trained.fingerprint


def test_another_run_in_the_same_folder_is_refused(start, tmp_path):
    fit(start, replace(QUICK, steps=2, output=tmp_path), *TRAIN)
    with pytest.raises(InputError, match=r"another training run, .* different learning_rate \(0.001 there, 0.1 here\)"):
        fit(start, replace(QUICK, steps=2, learning_rate=0.1, output=tmp_path), *TRAIN)
    with pytest.raises(InputError, match=r"different averaging \(None there, 0.1 here\)"):
        fit(start, replace(QUICK, steps=2, averaging=0.1, output=tmp_path), *TRAIN)
    with pytest.raises(InputError, match="different data"):
        fit(start, replace(QUICK, steps=2, output=tmp_path), *HELD_OUT)
    scoring = ScoringOptions(truncation=Truncation(max_length=64))
    with pytest.raises(InputError, match="different truncation, validation"):
        fit(start, replace(QUICK, steps=2, output=tmp_path), *TRAIN, *HELD_OUT, scoring=scoring)


def test_another_teacher_in_the_same_folder_is_refused(start, tmp_path):
    def teacher(factor):
        return pt.apply.doc_score(lambda row: factor * len(row["text"]))

    options = replace(QUICK, steps=2, output=tmp_path, teacher=teacher(1.0))
    trained = fit(start, options, *TRAIN)
    with pytest.raises(InputError, match="different teacher"):
        fit(start, replace(options, teacher=teacher(1.1)), *TRAIN)
    assert fit(start, replace(options, teacher=teacher(1.000001)), *TRAIN).fingerprint == trained.fingerprint


def test_fitting_again_in_the_same_folder_says_how_to_go_on_or_start_over(start, tmp_path):
    options = replace(QUICK, steps=2, output=tmp_path / "run")
    student = BertCatReRanker(start, training=options, verbose=False).fit(*TRAIN)
    with pytest.raises(InputError) as refused:
        student.fit(*TRAIN)  # the next cell: it starts from the trained weights
    told = str(refused.value)
    assert "different start (the model to train)" in told
    assert "choose another output folder, or delete this one" in told
    code = told[told.index("BertCatReRanker(") : told.index(", or --model")]
    another = eval(code, {"BertCatReRanker": BertCatReRanker, "TrainingOptions": TrainingOptions})
    assert another.checkpoint.fingerprint == student.checkpoint.fingerprint
    another.training = replace(options, output=tmp_path / another.training.output)
    another.verbose = False
    assert another.fit(*TRAIN).checkpoint.fingerprint != student.checkpoint.fingerprint


def test_a_run_that_is_not_finished_has_no_weights_to_go_on_from(start, tmp_path):
    options = replace(QUICK, steps=2, output=tmp_path)
    fit(start, options, *TRAIN)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="To finish that run, start it with what it began with"):
        fit(start, replace(options, weight_decay=0.1), *TRAIN)


def test_a_run_that_began_before_an_option_existed_continues_with_its_default(start, tmp_path):
    options = replace(QUICK, output=tmp_path)
    trained = fit(start, options, *TRAIN)
    record = tmp_path / "training.json"
    facts = json.loads(record.read_text())
    stated = ast.literal_eval(facts["options"])
    for name in ("averaging", "weight_decay", "gradient_checkpointing", "hardest_negatives", "head_learning_rate",
                 "final_learning_rate"):  # fmt: skip
        del stated[name]
    record.write_text(json.dumps({**facts, "options": repr(stated)}))
    assert fit(start, options, *TRAIN).fingerprint == trained.fingerprint
    with pytest.raises(InputError, match=r"hardest_negatives \(0 there, 1 here\)"):
        fit(start, replace(options, hardest_negatives=1), *TRAIN)


def test_a_run_of_a_newer_version_is_not_mistaken(start, tmp_path):
    options = replace(QUICK, steps=1, output=tmp_path)
    fit(start, options, *TRAIN)
    record = tmp_path / "training.json"
    facts = json.loads(record.read_text())
    newer = {**ast.literal_eval(facts["options"]), "curriculum": "steep"}
    record.write_text(json.dumps({**facts, "options": repr(newer)}))
    with pytest.raises(InputError, match=r"curriculum \(steep there, unknown here\)"):
        fit(start, options, *TRAIN)


def test_a_run_that_began_with_another_order_of_candidates_is_refused(start, tmp_path):
    options = replace(QUICK, steps=2, output=tmp_path)
    fit(start, options, *TRAIN)
    record = tmp_path / "training.json"
    began_before = {name: value for name, value in json.loads(record.read_text()).items() if name != "order"}
    record.write_text(json.dumps(began_before))
    with pytest.raises(InputError, match=r"another training run, with a different order"):
        fit(start, options, *TRAIN)


def test_several_processes_without_a_common_folder_are_refused(start, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="give output="):
        fit(start, QUICK, *TRAIN)


EVERYTHING = {
    "averaging": 0.2, "weight_decay": 0.1, "gradient_checkpointing": True, "hardest_negatives": 1,
    "head_learning_rate": 5e-3, "final_learning_rate": 1e-4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "frames"), [({}, TRAIN), (EVERYTHING, TRAIN), ({"averaging": 0.2}, (*TRAIN, *HELD_OUT))]
)
def test_a_killed_run_continues_to_the_result_of_an_uninterrupted_one(start, tmp_path, capsys, changes, frames):
    save_checkpoint(start, tmp_path / "start")
    program = textwrap.dedent(
        """
        import os, signal, sys
        sys.path[:0] = sys.argv[5:]
        from dataclasses import replace
        import transformers
        from pyterrier_bertcat.model.checkpoint import load_checkpoint
        from test_run_folder import HELD_OUT, QUICK, TRAIN, fit

        def kill(callback, arguments, state, control, **more):
            if state.global_step == 8:
                os.kill(os.getpid(), signal.SIGKILL)

        transformers.DefaultFlowCallback.on_step_begin = kill
        options = replace(QUICK, steps=20, save_every=5, output=sys.argv[2], **eval(sys.argv[3]))
        fit(load_checkpoint(sys.argv[1]), options, *(*TRAIN, *HELD_OUT)[: int(sys.argv[4])])
        """
    )
    run = tmp_path / "run"
    arguments = [str(tmp_path / "start"), str(run), repr(changes), str(len(frames)), *HERE]
    command = [sys.executable, "-c", program, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-3000:]
    assert (run / "states" / "checkpoint-5" / "trainer_state.json").exists()
    assert not (run / "config.json").exists()

    options = replace(QUICK, steps=20, save_every=5, **changes)
    resumed = fit(load_checkpoint(tmp_path / "start"), replace(options, output=run), *frames)
    assert f"continuing from step 5 of 20 in {run}" in capsys.readouterr().out
    uninterrupted = fit(load_checkpoint(tmp_path / "start"), options, *frames)
    assert resumed.fingerprint == uninterrupted.fingerprint
    histories = [trained.history.drop(columns="seconds") for trained in (resumed, uninterrupted)]
    pd.testing.assert_frame_equal(*histories)
    assert resumed.history["seconds"].is_monotonic_increasing


@pytest.mark.parametrize("left", [None, '{"global_step": 1'])
def test_a_state_that_was_cut_short_is_passed_over(start, tmp_path, left):
    options = replace(QUICK, output=tmp_path / "run")
    expected = fit(start, options, *TRAIN)
    cut = tmp_path / "run" / "states" / "checkpoint-12" / "trainer_state.json"
    cut.unlink()
    if left is not None:
        cut.write_text(left)
    assert fit(start, options, *TRAIN).fingerprint == expected.fingerprint
