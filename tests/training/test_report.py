"""What a training says: where it begins, how it goes, and how it ended."""

import logging
import re
from dataclasses import replace

import pytest
import torch
from helpers.tiny_models import tiny_model
from helpers.training_collection import HELD_OUT, QUICK, TRAIN

from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.training.fitting import fit


@pytest.fixture(scope="module")
def start(tokenizer):
    torch.manual_seed(0)
    return Checkpoint(model=tiny_model("bert"), tokenizer=tokenizer)


def test_with_validation_the_measure_is_told_before_the_first_step_at_each_state_and_at_the_end(
    start, tmp_path, capsys
):
    options = replace(QUICK, measure="RR@10", learning_rate=1e-12, output=str(tmp_path / "run"))
    history = fit(start, options, *TRAIN, *HELD_OUT).history
    value = f"{history['RR@10'].iloc[0]:.4f}"
    shown = capsys.readouterr()
    before, middle, last, best, ran = shown.out.splitlines()
    assert before == f"before training: RR@10 {value}"
    number = r"\d+\.\d\d"
    assert re.fullmatch(rf"step 6 of 12: RR@10 {value}, loss {number}\d\d, {number} s/step, \d\d:\d\d left", middle)
    assert last.startswith("step 12 of 12: ")
    assert best == f"RR@10 {value} at step 6 (before training {value}: no state is better)"
    assert re.fullmatch(rf"12 steps in \d\d:\d\d \({number} s/step\); saved in {re.escape(options.output)}", ran)
    assert re.search(r"validating: +0%.* 0/12 ", shown.err)
    assert re.search(rf"training: 100%.* 12/12 \[\d\d:\d\d<\d\d:\d\d, +{number}s/step, loss {number}", shown.err)
    assert "eval_measure" not in shown.out + shown.err


def test_without_validation_the_loss_is_told(start, capsys):
    history = fit(start, QUICK, *TRAIN).history
    lines = capsys.readouterr().out.splitlines()
    loss = f"{history['loss'].iloc[-1]:.4f}"
    assert re.fullmatch(rf"step 12 of 12: loss {loss}, .* s/step, 00:00 left", lines[1])
    assert lines[2] == f"loss {loss}"
    assert lines[3].startswith("12 steps in ")


def test_a_run_that_stopped_early_says_so(start, tmp_path, capsys):
    options = replace(QUICK, steps=60, save_every=1, patience=2, learning_rate=1e-12, output=tmp_path)
    trained = fit(start, options, *TRAIN, *HELD_OUT)
    assert "3 of 60 steps in " in capsys.readouterr().out.splitlines()[-1]
    again = fit(start, options, *TRAIN, *HELD_OUT)
    assert again.history["step"].tolist() == trained.history["step"].tolist()


def test_a_finished_run_says_that_there_is_nothing_to_do(start, tmp_path, capsys):
    options = replace(QUICK, output=tmp_path)
    fit(start, options, *TRAIN)
    capsys.readouterr()
    fit(start, options, *TRAIN)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == f"the run in {tmp_path} is finished: step 12 of 12"
    assert "s/step" not in shown.out + shown.err


def test_quietly_the_lines_go_to_the_log(start, capfd, caplog):
    caplog.set_level(logging.INFO, logger="pyterrier_bertcat")
    fit(start, QUICK, *TRAIN, *HELD_OUT, verbose=False)
    assert [record.message.split()[0] for record in caplog.records if record.name.endswith("report")] == [
        "before", "step", "step", "nDCG@10",
    ]  # fmt: skip
    assert "".join(capfd.readouterr()) == ""


def test_the_history_is_in_the_folder_while_the_training_runs(start, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", []

    def read(self, *arguments, **more):
        if (run / "history.csv").exists():
            seen.append((run / "history.csv").read_text().count("\n"))
        return original(self, *arguments, **more)

    import transformers

    original = transformers.DefaultFlowCallback.on_step_end
    monkeypatch.setattr(transformers.DefaultFlowCallback, "on_step_end", read)
    fit(start, replace(QUICK, output=run), *TRAIN)
    assert seen == [7] * 6  # the header and six steps, from the seventh step on
    assert (run / "history.csv").read_text().count("\n") == 13
