"""``--version`` prints what a bug report needs, also where something is missing or broken."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version

import pytest

from pyterrier_bertcat.cli import main
from pyterrier_bertcat.cli.version import report

LABELS = [
    "pyterrier-bertcat", "Python", "PyTerrier", "torch", "transformers", "pandas",
    "system", "CPU", "instruction sets", "threads", "GPUs", "Java",
]  # fmt: skip


def rows(text: str) -> dict[str, str]:
    return {line[:18].strip(): line[19:] for line in text.splitlines()}


def program(folder, *, prints: str, exits_with: int = 0):
    """A folder whose ``bin/java`` prints something to stderr, as Java does."""
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{prints}\nEND\nexit {exits_with}\n")
    java.chmod(0o755)
    return folder


def test_the_command_prints_every_row_once_and_nothing_else():
    done = subprocess.run(
        [sys.executable, "-m", "pyterrier_bertcat", "--version"],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
    )
    assert done.returncode == 0
    assert [line[:18].strip() for line in done.stdout.splitlines()] == LABELS
    assert all(rows(done.stdout).values())
    assert done.stderr == ""


def test_it_needs_no_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert list(rows(capsys.readouterr().out)) == LABELS


def test_versions_are_those_installed():
    shown = rows(report())
    names = {"pyterrier-bertcat": "pyterrier-bertcat", "PyTerrier": "pyterrier"}
    for label in ("pyterrier-bertcat", "PyTerrier", "transformers", "pandas"):
        assert shown[label] == version(names.get(label, label))
    assert shown["torch"].startswith(version("torch").partition("+")[0])
    assert shown["Python"].startswith(".".join(map(str, sys.version_info[:3])))


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of the CPU's flags")
@pytest.mark.parametrize(("name", "flag"), [("AVX2", "avx2"), ("AVX-512", "avx512f"), ("AMX", "amx_tile")])
def test_instruction_sets_are_those_that_the_system_lists(name, flag):
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = {word for line in file if line.startswith("flags") for word in line.split()}
    if not flags:
        pytest.skip("not an x86 CPU")
    listed, is_shown = flag in flags, name in rows(report())["instruction sets"].split(", ")
    assert listed == is_shown


def test_a_torch_that_fails_to_import_is_named_with_the_reason(tmp_path):
    """In a process of its own: one that imports a ``torch`` whose library is missing."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open\\nshared object file')")
    done = subprocess.run(
        [sys.executable, "-m", "pyterrier_bertcat", "--version"],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0
    shown = rows(done.stdout)
    assert shown["torch"].endswith("(OSError: libcudart.so.13: cannot open shared object file)")
    assert shown["instruction sets"] == shown["GPUs"] == "unknown without torch"
    assert list(shown) == LABELS


def test_what_is_not_installed_is_said_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # where installed packages are looked for
    shown = rows(report())
    for label in ("pyterrier-bertcat", "PyTerrier", "torch", "transformers", "pandas"):
        assert shown[label] == "not installed"


def test_the_old_name_of_pyterrier_counts(monkeypatch, tmp_path):
    folder = tmp_path / "python_terrier-0.13.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: python-terrier\nVersion: 0.13\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert rows(report())["PyTerrier"] == "0.13"


@pytest.mark.parametrize("system", ["darwin", "win32", "freebsd14"])
def test_another_system_without_its_own_way_to_name_the_cpu_gets_a_report_too(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("PATH", "")
    shown = rows(report())
    assert list(shown) == LABELS
    assert shown["CPU"]
    assert not shown["CPU"].startswith("unknown")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for Java")
class TestJava:
    def test_its_version_is_shown_and_its_options_are_not(self, monkeypatch, tmp_path):
        said = 'Picked up JAVA_TOOL_OPTIONS: -Dpassword=x\nopenjdk version "21.0.4" 2024-07-16\nOpenJDK Server VM'
        monkeypatch.setenv("JAVA_HOME", str(program(tmp_path, prints=said)))
        assert rows(report())["Java"] == 'openjdk version "21.0.4" 2024-07-16'

    def test_one_on_the_path_is_found(self, monkeypatch, tmp_path):
        monkeypatch.delenv("JAVA_HOME", raising=False)
        folder = program(tmp_path, prints='java version "1.8.0_401"')
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        assert rows(report())["Java"] == 'java version "1.8.0_401"'

    def test_none_is_none(self, monkeypatch):
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setenv("PATH", "")
        assert rows(report())["Java"] == "none"

    def test_a_stub_that_only_says_where_to_get_one_is_none(self, monkeypatch, tmp_path):
        stub = program(tmp_path, prints="Unable to locate a Java Runtime version .", exits_with=1)
        monkeypatch.setenv("JAVA_HOME", str(stub))
        assert rows(report())["Java"] == "none"
