from __future__ import annotations

import pandas as pd
import pyterrier as pt
import pytest
from ir_measures import nDCG

from pyterrier_bertcat.cli import main
from pyterrier_bertcat.cli.demo import experiment_report, side_by_side
from pyterrier_bertcat.data.bm25 import Bm25Retriever
from pyterrier_bertcat.data.pydoc_collection import PydocDataset, pydoc_documents
from pyterrier_bertcat.reranker import BertCatReRanker


@pytest.fixture(scope="module")
def model(saved_folder) -> str:
    return str(saved_folder)


def test_a_question_shows_both_rankings_of_the_same_documents(model, capsys):
    question = "copy a folder with everything in it"
    assert main(["demo", "--model", model, "--depth", "7", "--top", "7", question]) == 0
    printed = capsys.readouterr().out
    assert "first 7 re-ranked" in printed
    rows = [line.split() for line in printed.splitlines() if line[:2].strip().isdigit()]
    assert [row[0] for row in rows] == [str(place) for place in range(1, 8)]
    left, right = [row[2] for row in rows], [row[5] for row in rows]
    assert sorted(left) == sorted(right)
    was = [int(row[7].rstrip(")")) for row in rows]
    assert [left[place - 1] for place in was] == right


@pytest.mark.filterwarnings("ignore:.* too long")
def test_without_a_question_an_experiment_runs_over_all_of_them(model, capsys):
    assert main(["demo", "--model", model, "--depth", "3"]) == 0
    printed = capsys.readouterr().out
    assert "66 questions" in printed
    assert "nDCG@10" in printed
    assert "MRR@10" in printed
    assert "BM25 >> tiny" in printed
    assert "paired t-test" in printed
    assert "p = " in printed
    assert len(printed.splitlines()) == 12  # PyTerrier itself prints nothing in between


def test_a_question_of_unknown_words_says_so(model, capsys):
    assert main(["demo", "--model", model, "qwertzuiop"]) == 0
    assert "none of the question's words" in capsys.readouterr().out


@pytest.mark.parametrize("question", ["", "   "])
def test_a_blank_question_is_refused_before_anything_is_loaded(question, capsys):
    assert main(["demo", "--model", "/nowhere", question]) == 1
    assert "the question is empty" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--backend", "nonesuch"], ["--dtype", "int8"], ["--dtype", "nonesuch"]])
def test_what_computes_and_how_precisely_is_not_dropped(options, capsys):
    assert main(["demo", *options, "copy a folder"]) == 1
    assert f"{options[0].removeprefix('--')} is one of" in capsys.readouterr().err


@pytest.mark.usefixtures("int8_compiles")
def test_int8_is_calibrated_for_any_model(model, tmp_path, capsys):
    pytest.importorskip("openvino")
    int8 = ["demo", "--model", model, "--backend", "openvino", "--dtype", "int8", "--depth", "3", "copy a folder"]
    assert main(int8) == 1
    assert "calibration" in capsys.readouterr().err
    (tmp_path / "pairs.tsv").write_text("".join(f"question {word}\ta text about {word}\n" for word in ("tea", "snow")))
    assert main([*int8, "--calibration", str(tmp_path / "pairs.tsv")]) == 0
    assert "BM25 >> tiny" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 101, 120])
def test_side_by_side_fits_its_width_even_with_long_names(width):
    docnos = ["a.b", "concurrent.futures.process.ProcessPoolExecutor.a_very_long_method_name_that_goes_on_and_on"]
    first = pd.DataFrame({"docno": docnos, "score": [12.5, 3.0], "rank": [0, 1]})
    second = pd.DataFrame(
        {
            "docno": docnos[::-1],
            "score": [-10.25, -11.0],
            "rank": [0, 1],
            "text": ["x\n\nSome words. " * 20, "y\n\nShort."],
        }
    )
    printed = side_by_side(first, second, names=("BM25", "BM25 >> some-model"), top=5, width=width)
    lines = printed.splitlines()
    assert max(len(line) for line in lines) <= width
    assert lines[0].split() == ["BM25", "BM25", ">>", "some-model"]
    assert "(was 2)" in lines[2]
    assert "Short." in lines[3]


def test_the_report_says_how_much_better_on_how_many_and_how_surely():
    results = pd.DataFrame(
        {
            "name": ["BM25", "BM25 >> mini"],
            "nDCG@10": [0.4, 0.5],
            "RR@10": [0.5, 0.48],
            "mrt": [1.25, 345.6],
            "nDCG@10 +": [None, 30],
            "nDCG@10 -": [None, 10],
            "nDCG@10 p-value": [None, 0.0012],
            "RR@10 +": [None, 5],
            "RR@10 -": [None, 7],
            "RR@10 p-value": [None, 0.6],
        }
    )
    lines = experiment_report(results, queries=66).splitlines()
    assert lines[1].split() == ["nDCG@10", "MRR@10", "ms/query"]
    assert lines[2].split() == ["BM25", "0.400", "0.500", "1.2"]
    assert lines[3].split() == ["BM25", ">>", "mini", "0.500", "0.480", "345.6"]
    assert "+0.100" in lines[6]
    assert "better on 30, worse on 10, the same on 26" in lines[6]
    assert "p = 0.0012 (significant" in lines[6]
    assert "-0.020" in lines[7]
    assert "p = 0.6 (not significant" in lines[7]


@pytest.mark.filterwarnings("ignore:.* too long")
def test_the_packaged_checkpoint_improves_on_bm25_on_the_first_questions():
    dataset = PydocDataset()
    topics = dataset.get_topics().head(20)
    qrels = dataset.get_qrels().merge(topics[["qid"]])
    bm25 = Bm25Retriever(pydoc_documents(), num_results=15)
    mini = BertCatReRanker("mini", device="cpu", max_length=128, verbose=False)
    systems = [bm25, bm25 >> dataset.text_loader() >> mini]
    results = pt.Experiment(systems, topics, qrels, [nDCG @ 10], plan="tree", verbose=False)
    first_stage, reranked = results["nDCG@10"]
    assert reranked > first_stage + 0.03
