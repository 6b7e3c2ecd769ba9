"""Reads the standard library's documentation from its source files, without importing what it reads.

One document for each public module, class, function and method that has a docstring, and one for each topic of
``pydoc_data.topics`` (the pages of the language reference behind ``help("lambda")``). Nothing is downloaded. Reading
takes seconds, so the documents can be kept in a file.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyterrier_bertcat.errors import InputError

# Not for users of the library: tests, demos, bundled tools, generated tables, packages that 3.12 and 3.13 dropped, and
# ntpath, whose docstrings repeat those of posixpath.
_LEFT_OUT = {
    *("test", "tests", "idlelib", "turtledemo", "__phello__", "antigravity", "this"),
    *("site-packages", "dist-packages", "ensurepip", "lib-dynload", "pydoc_data", "encodings"),
    *("distutils", "lib2to3", "msilib", "ntpath", "nturl2path"),
}
# Python versions of C modules, under the names by which users know them.
_KNOWN_AS = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_py_warnings": "warnings",
    "_pyio": "io",
    "_weakrefset": "weakref",
    "genericpath": "os.path",
    "posixpath": "os.path",
}
# A document ends after a paragraph, at the latest with this word. Modules end early: a whole one has a word for every
# question about its functions, and would stand above them.
_MOST_WORDS = 600
_MOST_WORDS_OF_A_MODULE = 150
_EXAMPLE = re.compile(r"(?m)^\s*>>>")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def read_documents(stdlib: Path | None = None) -> list[dict[str, str]]:
    """Reads every document.

    Args:
        stdlib: The folder of the library to read. None: the running Python's.

    Returns:
        One ``{"docno": ..., "text": ...}`` per document, sorted by ``docno``, each ``docno`` once. A ``docno`` is a
        qualified name (``"shutil.copytree"``) or a topic (``"topic:lambda"``). A text is the signature, a line with the
        words of compound names if there are any (``"thread pool executor"``), an empty line, and the docstring.

    Raises:
        InputError: The folder holds no Python sources, as in a zipped or stripped Python.
    """
    stdlib = Path(sysconfig.get_path("stdlib")) if stdlib is None else stdlib
    documents: dict[str, str] = {}
    for path, module in _module_files(stdlib):
        tree = _parse(path)
        wanted = _public_names(path) if path.stem.startswith("_") and path.stem != "__init__" else None
        for docno, text in _module_documents(tree, module, wanted=wanted):
            documents.setdefault(docno, text)
    if not documents:
        raise InputError(
            f"there are no Python sources with docstrings under {stdlib}: use a Python that has the standard library's "
            ".py files unpacked"
        )
    documents.update(_topic_documents(stdlib / "pydoc_data" / "topics.py"))
    return [{"docno": docno, "text": documents[docno]} for docno in sorted(documents)]


def kept_documents(folder: Path) -> list[dict[str, str]] | None:
    """The documents that `keep_documents` kept; None if there are none of this Python and this reader."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # no such file, or not all of it
        kept = json.loads(_kept_file(folder).read_bytes())
        if kept["read_by"] == _reader():
            return [{"docno": docno, "text": text} for docno, text in kept["texts"].items()]
    return None


def keep_documents(folder: Path) -> list[dict[str, str]]:
    """Reads every document, and keeps them for the next time if the folder can be written to.

    There is one file for each Python version. Processes may do this at the same time: the file is always whole.

    Raises:
        InputError: As `read_documents`.
    """
    documents = read_documents()
    with suppress(OSError):
        texts = {document["docno"]: document["text"] for document in documents}
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pydoc-", dir=folder) as beside:  # so that renaming is one step
            written = Path(beside, "documents")
            written.write_text(json.dumps({"read_by": _reader(), "texts": texts}), encoding="ascii")
            os.replace(written, _kept_file(folder))
    return documents


def _kept_file(folder: Path) -> Path:
    return folder / "pydoc-{}.{}.{}.json".format(*sys.version_info)


def _reader() -> dict[str, Any]:
    """What the documents depend on: they are read anew when it changes."""
    reader = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return {"reader": reader, "python": sys.version, "library": sysconfig.get_path("stdlib")}


def _module_files(stdlib: Path) -> Iterator[tuple[Path, str]]:
    """Every source file to read, with its module's public name. Public files come first."""
    private: list[tuple[Path, str]] = []
    for path in sorted(_source_files(stdlib)):
        *packages, stem = path.relative_to(stdlib).with_suffix("").parts
        if stem == "__init__":
            yield path, ".".join(packages)
        elif packages and stem.startswith("_") and not stem.startswith("__"):
            private.append((path, ".".join(packages)))
        elif not packages and stem in _KNOWN_AS:
            private.append((path, _KNOWN_AS[stem]))
        elif not stem.startswith("_"):
            yield path, ".".join((*packages, stem))
    yield from private


def _source_files(stdlib: Path) -> Iterator[Path]:
    """The files that are not left out. Folders that are, such as a large ``site-packages``, are never entered."""
    for folder, packages, files in os.walk(stdlib):
        packages[:] = [name for name in packages if not (name in _LEFT_OUT or name.startswith("_") or "-" in name)]
        for path in (Path(folder, name) for name in files):
            if path.suffix == ".py" and path.stem not in _LEFT_OUT:
                yield path


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in the library, which are not the user's business
        return ast.parse(path.read_bytes(), filename=str(path))


def _public_names(path: Path) -> frozenset[str] | None:
    """The names that a package re-exports from its private module; None means all of them."""
    package = path.parent / "__init__.py"
    if path.stem in _KNOWN_AS or not package.is_file():
        return None
    names = {
        alias.name
        for node in ast.walk(_parse(package))
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2] == path.stem
        for alias in node.names
    }
    return None if "*" in names else frozenset(names)


def _module_documents(tree: ast.Module, module: str, *, wanted: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    """The documents of one file, or only the definitions with the ``wanted`` names."""
    docstring = ast.get_docstring(tree)
    if docstring and wanted is None:
        yield module, _text(f"module {module}", module, docstring, most_words=_MOST_WORDS_OF_A_MODULE)
    for node in _definitions(tree.body):
        if wanted is None or node.name in wanted:
            yield from _definition_documents(node, module)


def _definition_documents(node: Definition, parent: str) -> Iterator[tuple[str, str]]:
    docno = f"{parent}.{node.name}"
    docstring = ast.get_docstring(node) or ""
    if not isinstance(node, ast.ClassDef):
        if docstring:
            yield docno, _text(f"{docno}({_signature(node)})", docno, docstring)
        return
    initialiser = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if initialiser is not None:
        docstring = "\n\n".join(filter(None, (docstring, ast.get_docstring(initialiser))))
    if docstring:
        signature = _signature(initialiser) if initialiser is not None else ""
        yield docno, _text(f"class {docno}({signature})", docno, docstring)
    for member in _definitions(node.body):
        yield from _definition_documents(member, docno)


def _definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """The public definitions of a module or class body, including those inside ``if`` and ``try``."""
    for node in body:
        if isinstance(node, Definition):
            if not node.name.startswith("_"):
                yield node
        elif isinstance(node, ast.If):
            yield from _definitions(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _definitions(node.body + handlers + node.orelse)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))


def _text(header: str, docno: str, docstring: str, *, most_words: int = _MOST_WORDS) -> str:
    split_parts = [_WORD.findall(part) for part in docno.split(".")]
    words = " ".join(word.lower() for parts in split_parts if len(parts) > 1 for word in parts)
    header = f"{header}\n{words}" if words else header
    return f"{header}\n\n{_beginning(docstring, most_words=most_words)}"


def _beginning(docstring: str, *, most_words: int) -> str:
    """The first whole paragraphs, without examples at Python's prompt. The first one is cut if it is too long alone."""
    paragraphs = [_EXAMPLE.split(paragraph)[0].rstrip() for paragraph in docstring.split("\n\n")]
    kept: list[str] = []
    words = 0
    for paragraph in filter(None, paragraphs):
        words += len(paragraph.split())
        if kept and words > most_words:
            break
        kept.append(paragraph if words <= most_words else " ".join(paragraph.split()[:most_words]))
    return "\n\n".join(kept) or docstring


def _topic_documents(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():  # some distributions ship Python without it
        return
    for node in _parse(path).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "topics":
            for name, page in ast.literal_eval(node.value).items():
                prose = re.sub(r"(?m)^[*=\-~^]{3,}\n", "", page)  # the lines that underline headings
                beginning = _beginning(inspect.cleandoc(prose), most_words=_MOST_WORDS)
                yield f"topic:{name}", f"topic {name}\n\n{beginning}"
