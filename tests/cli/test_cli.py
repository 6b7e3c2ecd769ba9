from __future__ import annotations

import argparse
import inspect
import io
import re
import subprocess
import sys
import tempfile

import pytest

from pyterrier_bertcat.cli import _parser, demo, main
from pyterrier_bertcat.cli.train import _OPTIONS
from pyterrier_bertcat.data.candidates import RunSources
from pyterrier_bertcat.data.runs import RunWriter
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.training.options import TrainingOptions


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the installed package; somewhere else, because Python would import what is in the current folder first."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tempfile.gettempdir())


@pytest.fixture(scope="module")
def model(saved_folder) -> str:
    return str(saved_folder)


def test_help_names_the_commands():
    done = python("-m", "pyterrier_bertcat", "--help")
    assert done.returncode == 0
    assert "demo" in done.stdout
    assert "verify" in done.stdout


def test_help_imports_neither_torch_nor_pyterrier():
    done = python("-X", "importtime", "-m", "pyterrier_bertcat", "demo", "--help")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "transformers", "pyterrier", "pandas", "numpy"}


def test_demo_joins_a_question_without_quotes(model, capsys):
    assert main(["demo", "--model", model, "--depth", "5", "--top", "2", "copy", "a", "folder"]) == 0
    printed = capsys.readouterr().out
    assert "BM25 >> tiny" in printed
    assert "Your question: copy a folder\n" in printed


def test_a_failure_is_one_line_on_stderr_and_exit_code_1(capsys):
    assert main(["verify", "--model", "/no/such/folder"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pyterrier-bertcat: error: ")
    assert captured.err.count("\n") == 1


def test_a_missing_bm25s_is_one_line_that_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bm25s", None)  # as if it were not installed
    assert main(["demo", "anything"]) == 1
    assert "pip install 'pyterrier-bertcat[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonesuch"],
        ["demo", "--depth", "0"],
        ["demo", "--top", "many"],
        ["demo", "--top", "3"],  # without a question there is nothing to show
        ["verify", "--nonesuch"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: pyterrier-bertcat" in capsys.readouterr().err


def test_characters_that_the_terminal_lacks_are_escaped(monkeypatch):
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")  # as on Windows
    monkeypatch.setattr(sys, "stdout", pipe)
    assert main(["verify", "--model", "mini", "--device", "cpu"]) == 0
    pipe.flush()
    assert rb"\U0001f917" in pipe.buffer.getvalue()


def test_verify_fails_for_a_checkpoint_without_known_scores(model, capsys):
    assert main(["verify", "--model", model]) == 1
    assert "known" in capsys.readouterr().err


def test_verify_can_hold_any_folder_to_the_published_example(model, capsys):
    assert main(["verify", "--published", "--model", model, "--device", "cpu"]) == 1
    assert "expected 5.899686, got " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "verify"])
def test_calibration_is_read(command, tmp_path, capsys):
    assert main([command, "--calibration", str(tmp_path / "no-such-file")]) == 1
    assert "no-such-file can't be read" in capsys.readouterr().err
    (tmp_path / "pairs").write_text("a query\ta text\n")
    assert main([command, "--calibration", str(tmp_path / "pairs")]) == 1
    assert "calibration is for dtype='int8', got dtype='auto'" in capsys.readouterr().err


TRAINING = dict.fromkeys(set(_OPTIONS) - {"patience", "averaging", "head_learning_rate"}, TrainingOptions)
RE_RANKING = dict.fromkeys(("dtype", "backend", "max_length", "truncation"), BertCatReRanker)
FILES = dict.fromkeys(("duplicates", "unknown"), RunSources)


@pytest.mark.parametrize(
    ("command", "owners"),
    [
        ("rerank", {**RE_RANKING, **FILES, "aggregate": Passages, "tag": RunWriter}),
        ("train", {**TRAINING, **FILES, "max_length": BertCatReRanker}),
        ("demo", {"dtype": BertCatReRanker, "backend": BertCatReRanker}),
    ],
)
def test_the_help_states_the_defaults_of_the_classes_that_own_them(command, owners, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = capsys.readouterr().out.split("\n  --")
    stated = {option.split()[0]: found[1] for option in options if (found := re.search(r"\(default: (.*)\)", option))}
    for name, owner in owners.items():
        default = inspect.signature(owner).parameters[name].default
        text = stated[name.replace("_", "-")]
        expected = "what the checkpoint states, else 512" if name == "max_length" else default
        assert type(expected)(text) == expected, name
        assert (name == "max_length") == (default is None), name


class Noted(argparse.Namespace):
    """Arguments that note which of them are read."""

    def __getattribute__(self, name: str):
        if name != "__dict__":
            self.__dict__.setdefault("_read", set()).add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["rerank", "--dry-run"], ["run", "topics", "texts"]),
        (["train", "--dry-run"], ["run", "topics", "texts", "qrels"]),
        (["demo", "--depth", "3", "copy a folder"], []),
        (["verify", "--model", "mini"], []),
    ],
)
def test_no_argument_is_accepted_and_dropped(command, files, model, tmp_path, capsys):
    contents = {"run": "q Q0 d 1 1 t", "topics": "q\tcopy a file", "texts": "d\tCopy a file.", "qrels": "q 0 d 1"}
    for name in files:
        (tmp_path / name).write_text(contents[name])
    given = [part for name in files for part in (f"--{name}", str(tmp_path / name))]
    output = ["--output", str(tmp_path / "output")] if files else []
    parsed = vars(
        _parser().parse_args([command[0], "--model", model, "--device", "cpu", *given, *output, *command[1:]])
    )
    arguments = Noted(**parsed)
    arguments.run_command(arguments)
    assert parsed.keys() - arguments._read - {"usage_error"} == set()


def test_an_interruption_exits_with_130(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupt)
    assert main(["demo", "anything"]) == 130
    assert "interrupted" in capsys.readouterr().err
