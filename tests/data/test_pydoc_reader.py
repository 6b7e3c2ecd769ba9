from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from pyterrier_bertcat.data.pydoc_reader import keep_documents, kept_documents, read_documents
from pyterrier_bertcat.errors import InputError

MODULE = '''
"""Tools for tea."""

class TeaPot:
    """Holds tea."""

    def __init__(self, volume_ml=500, *, hot=True):
        """Fill it with water."""

    def pour_into(self, cup):
        """Pour tea into a cup."""

    def _leak(self):
        """Nobody should know."""

    def no_words(self):
        return 1

try:
    import kettle
except ImportError:
    def boil(water, *, degrees=100):
        """Make water hot."""

def _secret():
    """Hidden."""
'''

TOPICS = "topics = {'pass': 'The \"pass\" statement\\n********************\\n\\nIt does nothing.\\n'}"


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    files = {
        "tea.py": MODULE,
        "_private.py": '"""Not for users."""',
        "_pyio.py": 'def open(file):\n    """Open a file."""',
        "posixpath.py": 'def join(a, *p):\n    """Join paths."""',
        "pack/__init__.py": "from pack._hidden import shown",
        "pack/_hidden.py": 'def shown():\n    """Given to users."""\n\ndef unshown():\n    """Kept back."""',
        "test/test_tea.py": '"""Tests of tea."""',
        "site-packages/other.py": '"""Somebody else\'s."""',
        "pydoc_data/topics.py": TOPICS,
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    return tmp_path


@pytest.fixture
def texts(stdlib: Path) -> dict[str, str]:
    return {document["docno"]: document["text"] for document in read_documents(stdlib)}


def test_every_public_docstring_is_one_document_under_the_name_that_users_know(texts):
    assert list(texts) == [
        "io.open",
        "os.path.join",
        "pack.shown",
        "tea",
        "tea.TeaPot",
        "tea.TeaPot.pour_into",
        "tea.boil",
        "topic:pass",
    ]


def test_a_text_is_the_signature_then_the_words_of_compound_names_then_the_docstring(texts):
    assert texts["tea.TeaPot.pour_into"] == ("tea.TeaPot.pour_into(cup)\ntea pot pour into\n\nPour tea into a cup.")
    assert texts["tea.boil"] == "tea.boil(water, *, degrees=100)\n\nMake water hot."
    assert texts["tea"] == "module tea\n\nTools for tea."


def test_a_class_has_the_docstring_and_signature_of_its_initialiser_too(texts):
    assert texts["tea.TeaPot"] == (
        "class tea.TeaPot(volume_ml=500, *, hot=True)\ntea pot\n\nHolds tea.\n\nFill it with water."
    )


def test_a_text_has_whole_paragraphs_up_to_600_words_and_no_examples(tmp_path):
    hundred = "word " * 99 + "end."
    docstring = "\n\n".join(["First.", "So:\n>>> 1 + 1\n2", ">>> shown()\n'this'", *[hundred] * 9])
    (tmp_path / "long.py").write_text(f'def read():\n    """{docstring}"""', encoding="utf-8")
    [document] = read_documents(tmp_path)
    assert document["text"] == "\n\n".join(["long.read()", "First.", "So:", *[hundred] * 5])


def test_a_module_ends_earlier_and_never_before_its_first_paragraph(tmp_path):
    (tmp_path / "many.py").write_text('"""' + "\n\n".join(["word " * 99 + "end."] * 9) + '"""', encoding="utf-8")
    (tmp_path / "one.py").write_text('"""' + "word " * 500 + 'end."""', encoding="utf-8")
    (tmp_path / "shell.py").write_text('"""\n>>> only_an_example()\n"""', encoding="utf-8")
    many, one, shell = read_documents(tmp_path)
    assert many["text"].count("end.") == 1
    assert one["text"].split() == ["module", "one", *["word"] * 150]
    assert shell["text"].endswith(">>> only_an_example()")


def test_a_topic_keeps_its_title_and_loses_the_line_under_it(texts):
    assert texts["topic:pass"] == 'topic pass\n\nThe "pass" statement\n\nIt does nothing.'


def test_folders_that_are_left_out_are_not_even_listed(stdlib, monkeypatch):
    listed = []
    scandir = os.scandir

    def watched(path):
        listed.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    read_documents(stdlib)
    assert "pack" in listed
    assert not {"site-packages", "test"} & set(listed)


def test_reading_executes_nothing(tmp_path):
    (tmp_path / "bomb.py").write_text('"""Ticks."""\nraise SystemExit("it went off")', encoding="utf-8")
    assert read_documents(tmp_path) == [{"docno": "bomb", "text": "module bomb\n\nTicks."}]


def test_the_librarys_own_invalid_escapes_do_not_warn(tmp_path):
    (tmp_path / "old.py").write_text('"""Old."""\npattern = "\\d"', encoding="utf-8")
    assert [document["docno"] for document in read_documents(tmp_path)] == ["old"]


def test_a_python_without_sources_is_refused_with_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(InputError, match="no Python sources") as refusal:
        read_documents(tmp_path)
    assert str(tmp_path) in str(refusal.value)


@pytest.fixture
def this_python(stdlib, monkeypatch) -> Path:
    """The small library, as if it were the running Python's."""
    monkeypatch.setattr("pyterrier_bertcat.data.pydoc_reader.sysconfig.get_path", lambda _: str(stdlib))
    return stdlib


@pytest.mark.usefixtures("this_python")
def test_documents_that_were_kept_are_not_read_again(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "home"
    assert kept_documents(folder) is None
    documents = keep_documents(folder)
    assert [path.name for path in folder.iterdir()] == ["pydoc-{}.{}.{}.json".format(*sys.version_info)]
    monkeypatch.setattr("pyterrier_bertcat.data.pydoc_reader.read_documents", None)  # to read again is an error
    assert kept_documents(folder) == documents


@pytest.mark.parametrize("changed", ["sys.version", "__file__", "sysconfig.get_path"])
def test_another_python_or_reader_reads_anew(this_python, tmp_path, monkeypatch, changed):
    folder = tmp_path / "home"
    keep_documents(folder)
    other = tmp_path / "other.py"
    other.write_text("another reader")
    value = {"sys.version": "4.0", "__file__": str(other), "sysconfig.get_path": lambda _: str(other)}[changed]
    monkeypatch.setattr(f"pyterrier_bertcat.data.pydoc_reader.{changed}", value)
    assert kept_documents(folder) is None


@pytest.mark.usefixtures("this_python")
@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-20], lambda _: b"", lambda _: b"[]", lambda _: b'{"read_by": 1}']
)
def test_a_damaged_file_counts_as_none(tmp_path, damage):
    documents = keep_documents(tmp_path / "home")
    [file] = (tmp_path / "home").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert kept_documents(tmp_path / "home") is None
    assert keep_documents(tmp_path / "home") == kept_documents(tmp_path / "home") == documents


@pytest.mark.usefixtures("this_python")
def test_documents_are_read_where_nothing_can_be_kept(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert keep_documents(tmp_path / "file") == read_documents()
    assert kept_documents(tmp_path / "file") is None


@pytest.mark.usefixtures("this_python")
def test_whoever_looks_while_others_write_finds_all_or_nothing(tmp_path):
    folder = tmp_path / "home"
    documents = read_documents()
    found = []
    threads = [threading.Thread(target=keep_documents, args=(folder,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found.append(kept_documents(folder))
    assert all(one in (None, documents) for one in found)
    assert kept_documents(folder) == documents
    assert len(list(folder.iterdir())) == 1
