"""What stands in two files of the repository is the same in both."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / ".github").is_dir():
    pytest.skip("the repository is not beside these tests", allow_module_level=True)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def run_steps(workflow: Path) -> list[str]:
    """The steps of ``.ci/run`` that a workflow names."""
    return re.findall(r"\.ci/run ([a-z]+)", workflow.read_text(encoding="utf-8"))


def test_commits_are_checked_with_the_ruff_of_the_constraints():
    [pinned] = re.findall(r"^ruff==(\S+)$", read("constraints.txt"), re.MULTILINE)
    hooks = [hook for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    assert [hook["additional_dependencies"] for hook in hooks] == [[f"ruff=={pinned}"]] * 2


def test_the_version_to_cite_is_the_packages():
    [version] = re.findall(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version


def repository_and_site() -> tuple[str, str]:
    """Where the repository and the documentation are, with a slash at the end."""
    urls = dict(re.findall(r'^(\w+) = "(https://[^"]+)"$', read("pyproject.toml"), re.MULTILINE))
    return urls["Repository"] + "/", urls["Documentation"]


def test_readmes_links_are_absolute_because_pypi_shows_it_too():
    links = re.findall(r'\]\(([^)]+)\)|src="([^"]+)"', read("README.md"))
    assert links
    assert all("".join(link).startswith("https://") for link in links)


def test_readmes_links_lead_to_files_and_pages_that_exist():
    repository, site = repository_and_site()
    raw = repository.replace("github.com", "raw.githubusercontent.com")
    text = read("README.md")
    files = re.findall(rf"{repository}(?:blob|tree)/main/([^)\s]+)|{raw}main/([^\"]+)", text)
    pages = re.findall(rf"{site}([^)\s]+)\.html", text)
    assert files
    assert pages
    for path in map("".join, files):
        assert (ROOT / path).exists(), path
    for page in pages:
        assert (ROOT / "pyterrier_bertcat" / "pt_docs" / f"{page}.rst").is_file(), page
    elsewhere = re.findall(r"https://(?:raw\.)?github[\w.]*/pyterrier-bertcat/[^)\"\s]+", text)
    assert all(address.startswith((repository, raw)) for address in elsewhere)


def test_each_benchmark_has_its_line_in_the_table_of_claims():
    modules = {
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for path in (ROOT / "benchmarks").rglob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    assert modules <= set(re.findall(r"python -m ([\w.]+)", read("benchmarks/README.md")))


def test_the_pythons_that_are_tested_are_those_that_are_claimed():
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))
    jobs = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]
    assert jobs["newest"]["strategy"]["matrix"]["python"] == claimed
    assert f'requires-python = ">={claimed[0]}"' in read("pyproject.toml")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_steps_that_the_gate_has(workflow):
    assert ".ci/run" in workflow.read_text(encoding="utf-8")
    functions = re.findall(r"^(\w+)\(\) \{", read(".ci/run"), re.MULTILINE)
    assert set(run_steps(workflow)) <= set(functions)


def test_a_step_that_the_gate_lacks_is_refused_before_anything_runs():
    done = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "lint", "nonesuch"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no step is called 'nonesuch'" in done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_pinned_to_a_commit_and_named_with_its_version(workflow):
    uses = re.findall(r"uses: (.+)$", workflow.read_text(encoding="utf-8"), re.MULTILINE)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_an_action_has_the_same_version_everywhere():
    text = "".join(workflow.read_text(encoding="utf-8") for workflow in WORKFLOWS)
    uses = set(re.findall(r"uses: (.+)$", text, re.MULTILINE))
    names = [action.partition("@")[0] for action in uses]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_gets_permissions_by_job_only(workflow):
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert content["permissions"] == {}
    granted = [job["permissions"] for job in content["jobs"].values()]
    assert all(set(one) <= {"contents", "pages", "id-token"} for one in granted)
    assert all(one.get("contents", "read") == "read" for one in granted)
