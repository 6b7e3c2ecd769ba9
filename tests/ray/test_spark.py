"""The documentation's recipe for Spark, run as it stands there on a local Spark."""

from __future__ import annotations

import re
import shutil
import sys
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from pyterrier_bertcat.reranker import BertCatReRanker

pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed (no extra brings it)")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::Warning:pyspark")  # it is not ready for pandas 3 and says so


def recipe() -> str:
    """The Python of the page's section on Spark."""
    page = (resources.files("pyterrier_bertcat") / "pt_docs" / "cluster.rst").read_text(encoding="utf-8")
    section = page.partition("\nSpark\n")[2]
    block = re.search(r"\.\. code-block:: python\n(?:   :.*\n)*\n((?:   .*\n|\n)+)", section)
    assert block, "the page has no code for Spark"
    return re.sub("^   ", "", block[1], flags=re.MULTILINE)


def test_the_recipe_gives_each_row_the_score_of_the_re_ranker(tmp_path, monkeypatch):
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.setenv(name, sys.executable)
    docnos = [f"d{number}" for number in range(60)]
    texts = [f"passage {number} about lists and what they hold" for number in range(60)]
    frame = pd.DataFrame({"qid": "1", "query": "what does a list hold", "docno": docnos, "text": texts})
    (tmp_path / "pairs").mkdir()
    for part in range(2):
        frame.iloc[part::2].to_parquet(tmp_path / "pairs" / f"{part}.parquet")

    monkeypatch.chdir(tmp_path)  # before Java starts, which does not follow
    from pyspark.sql import SparkSession

    settings = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}
    spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    try:
        exec(compile(recipe(), "cluster.rst", "exec"), {"spark": spark})
    finally:
        spark.stop()

    scored = pd.read_parquet(tmp_path / "scores").sort_values("docno", ignore_index=True)
    expected = BertCatReRanker("mini", device="cpu", verbose=False)(frame).sort_values("docno", ignore_index=True)
    assert scored["docno"].tolist() == expected["docno"].tolist()
    np.testing.assert_allclose(scored["score"], expected["score"], atol=5e-5)
