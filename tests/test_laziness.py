"""What must not be paid before the first score: each check runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

import pyterrier_bertcat

HEAVY = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub")


def run_fresh(code: str) -> str:
    """What a new interpreter prints when it runs the code; a failure there is a failure here."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),  # Python would import what is in the current folder first
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def heavy_after_each(setup: str, steps: list[str]) -> dict[str, list[str]]:
    """Runs steps one after the other in a new interpreter; which heavy modules each found or left imported."""
    report = f"print(*(name for name in {HEAVY} if name in sys.modules), flush=True)"
    lines = run_fresh("\n".join(["import sys", setup, *(f"{step}\n{report}" for step in steps)])).splitlines()
    return dict(zip(steps, map(str.split, lines), strict=True))


def test_importing_the_package_adds_nothing_but_itself():
    added = run_fresh(
        "import sys, importlib, typing, __future__\nbefore = set(sys.modules)\nimport pyterrier_bertcat\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    assert added.split() == ["pyterrier_bertcat"]


def test_the_light_modules_and_names_do_not_import_torch():
    modules = ["reranker", "pipeline.frames", "pipeline.options", "scoring.options", "errors", "pairs.planning"]
    modules += ["training", "training.options", "model.names", "data.order", "cli", "ray"]
    steps = [f"import pyterrier_bertcat.{module}" for module in modules]
    steps.append("from pyterrier_bertcat import BertCatReRanker, TrainingOptions, InputError, MarginMSE, TeacherFile")
    assert heavy_after_each("", steps) == {step: [] for step in steps}


SETUP = """
import copy, pickle
from pytest import raises as refused
import pandas as pd
import pyterrier as pt
from pyterrier_bertcat import BertCatReRanker, InputError, TrainingOptions
bertcat = BertCatReRanker("no/such-model", training=TrainingOptions(), verbose=False)
columns = ["qid", "docno", "query", "text"]
"""

USES = [
    "repr(bertcat)",
    "assert bertcat == BertCatReRanker('no/such-model') and hash(bertcat)",
    "pt.schematic.draw(bertcat)",
    "assert pt.inspect.transformer_inputs(bertcat) == [columns]",
    "assert pt.inspect.transformer_outputs(bertcat, columns) == [*columns, 'score', 'rank']",
    "assert pt.inspect.transformer_apply_attributes(bertcat, batch_size=8) != bertcat",
    "assert len(bertcat(pd.DataFrame(columns=columns))) == 0",
    "assert bertcat([]) == []",
    "assert pickle.loads(pickle.dumps(bertcat)) == copy.deepcopy(bertcat) == bertcat",
    "pt.inspect.transformer_inputs(pt.apply.text(lambda row: 'x') >> bertcat % 3)",
    "with refused(pt.validate.InputValidationError): bertcat(pd.DataFrame({'qid': ['1']}))",
    "with refused(InputError): bertcat(pd.DataFrame([['1', 'd', 'q', None]], columns=columns))",
    "with refused(InputError): BertCatReRanker('mini', batch_size=-1)",
    "with refused(InputError): BertCatReRanker(None)",
]


def test_nothing_is_loaded_before_the_first_score():
    assert heavy_after_each(SETUP, USES) == {use: [] for use in USES}


def test_the_checks_above_would_see_a_heavy_module():
    assert heavy_after_each("", ["import huggingface_hub"]) == {"import huggingface_hub": ["huggingface_hub"]}


def test_every_public_name_is_there():
    for name in pyterrier_bertcat.__all__:
        assert getattr(pyterrier_bertcat, name).__name__ == name
        assert name in dir(pyterrier_bertcat)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pyterrier_bertcat.no_such_name


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert pyterrier_bertcat.__version__ == version("pyterrier-bertcat")
