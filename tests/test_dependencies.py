"""Each direct dependency has its reason in SECURITY.md, and is pinned where the tests are said to have run."""

import re
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("reads pyproject.toml with Python's own tomllib (3.11)", allow_module_level=True)

import tomllib

ROOT = Path(__file__).parents[1]
OURS = "pyterrier-bertcat"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-")


def declared():
    project = PROJECT["project"]
    groups = {
        "everybody": project["dependencies"],
        "building": PROJECT["build-system"]["requires"],
        **project["optional-dependencies"],
    }
    return {(group, name_of(one)) for group, several in groups.items() for one in several if name_of(one) != OURS}


def test_each_direct_dependency_has_its_reason_and_no_other_is_listed():
    rows = re.findall(r"^\| `?(\w+)`? \| ([\w.-]+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text("utf-8"), re.M)
    listed = {(group, name): reason for group, name, reason in rows if name != "package"}
    assert listed.keys() == declared()
    assert all(listed.values())


def test_each_direct_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {name_of(line) for line in lines if "==" in line}
    assert {name for group, name in declared() if group != "building"} <= pinned


def test_the_extra_for_tests_brings_the_others_but_the_documentation():
    extras = PROJECT["project"]["optional-dependencies"]
    brought = re.search(r"\[(.+)\]", next(one for one in extras["test"] if name_of(one) == OURS)).group(1).split(",")
    assert set(brought) == extras.keys() - {"test", "docs"}
