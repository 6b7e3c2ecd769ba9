"""A checkpoint's files: a signature that no change leaves as it was."""

from __future__ import annotations

import os
import shutil
import time

import pytest

import pyterrier_bertcat.model.fingerprint
from pyterrier_bertcat.model.fingerprint import files_signature

OLD_S = 1_600_000_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose files were written long enough ago: the wait is left out, the files are real."""
    monkeypatch.setattr(pyterrier_bertcat.model.fingerprint, "_SETTLED_S", 0.0)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(5 * 1024 * 1024))
    age(folder)
    return folder


def age(folder):
    for path in folder.iterdir():
        os.utime(path, (OLD_S, OLD_S))
    time.sleep(0.02)  # longer than a step of the clock that files are stamped with


def test_it_stays_the_same_while_nothing_changes(folder):
    signature = files_signature(folder)
    assert len(signature) == 64
    assert files_signature(folder) == signature
    assert files_signature(folder / ".." / "checkpoint") == signature
    (folder / "subfolder").mkdir()
    assert files_signature(folder) == signature


def weights_in_place(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"1")


def weights_replaced(folder):
    shutil.copy(folder / "model.safetensors", folder / "new")
    os.replace(folder / "new", folder / "model.safetensors")


def weights_appended_to(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"1")


def config_changed(folder):
    (folder / "config.json").write_text("[]")


def file_added(folder):
    (folder / "tokenizer.json").write_text("{}")


def file_removed(folder):
    (folder / "config.json").unlink()


def file_renamed(folder):
    (folder / "config.json").rename(folder / "other.json")


CHANGES = [weights_in_place, weights_replaced, weights_appended_to, config_changed, file_added, file_removed]


@pytest.mark.parametrize("change", [*CHANGES, file_renamed])
def test_a_change_is_seen_though_the_times_of_modification_are_set_back(folder, change):
    signature = files_signature(folder)
    change(folder)
    age(folder)
    assert files_signature(folder) not in (signature, None)


def test_another_folder_with_the_same_files_has_another(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    age(tmp_path / "copy")
    assert files_signature(tmp_path / "copy") not in (files_signature(folder), None)


def test_other_releases_of_what_reads_the_files_have_another(folder, monkeypatch):
    signature = files_signature(folder)
    monkeypatch.setattr(pyterrier_bertcat.model.fingerprint, "version", lambda package: "0")
    assert files_signature(folder) not in (signature, None)


def test_files_that_were_changed_a_moment_ago_have_none(folder, monkeypatch):
    monkeypatch.setattr(pyterrier_bertcat.model.fingerprint, "_SETTLED_S", 60.0)
    assert files_signature(folder) is None


def test_a_folder_that_is_not_there_has_none(tmp_path):
    assert files_signature(tmp_path / "none") is None


def test_links_as_in_the_hubs_cache_are_followed(folder, tmp_path):
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    signature = files_signature(linked)
    weights_in_place(folder)
    age(folder)
    assert files_signature(linked) not in (signature, None)
