from __future__ import annotations

import io
import subprocess
import sys
import tempfile

import pytest

from pyterrier_bertcat.cli import main


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
    assert "(was " in printed


def test_a_failure_is_one_line_on_stderr_and_exit_code_1(capsys):
    assert main(["demo", "--model", "/no/such/folder", "anything"]) == 1
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
    [[], ["nonesuch"], ["demo", "--depth", "0"], ["demo", "--top", "many"], ["verify", "--nonesuch"]],
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


def test_an_interruption_exits_with_130(monkeypatch, capsys):
    import pyterrier_bertcat.cli.demo_report

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pyterrier_bertcat.cli.demo_report, "run_demo", interrupt)
    assert main(["demo", "anything"]) == 130
    assert "interrupted" in capsys.readouterr().err
