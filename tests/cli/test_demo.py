from __future__ import annotations

import os
import re
import subprocess
import sys

import pandas as pd
import pyterrier as pt
import pytest
from ir_measures import nDCG

from pyterrier_bertcat.cli import demo, main
from pyterrier_bertcat.cli.demo import experiment_report, side_by_side
from pyterrier_bertcat.data.bm25 import Bm25Retriever
from pyterrier_bertcat.data.pydoc_collection import PydocDataset, pydoc_documents
from pyterrier_bertcat.model.names import PUBLISHED
from pyterrier_bertcat.reranker import BertCatReRanker


@pytest.fixture(scope="module")
def model(saved_folder) -> str:
    return str(saved_folder)


def test_a_question_shows_both_rankings_of_the_same_documents(model, capsys):
    question = "copy a folder with everything in it"
    assert main(["demo", "--model", model, "--depth", "7", "--top", "7", question]) == 0
    printed = capsys.readouterr().out
    assert "re-ranks the first 7." in printed
    rows = [(line[:39].split(), line[41:].split()) for line in printed.splitlines() if line[:2].strip().isdigit()]
    assert [left[0] for left, _ in rows] == [right[0] for _, right in rows] == [str(place) for place in range(1, 8)]
    assert all(re.fullmatch(r"-?\d+\.\d\d", score) for (*_, score), _ in rows)
    moved = [int(note.replace("↑", "").replace("↓", "-")) for _, (*_, note) in rows if note[0] in "↑↓"]
    assert sum(moved) == 0  # what some gain others lose
    assert moved


def test_without_a_question_examples_come_first_then_an_experiment_over_all_questions(model, capsys):
    assert main(["demo", "--model", model, "--depth", "3"]) == 0
    captured = capsys.readouterr()
    printed = captured.out
    assert captured.err == ""  # neither warnings nor, without a terminal, a bar
    places = [
        printed.index(part) for part in ("documents:", "An example question:", "66 questions", "nDCG@10", "next:")
    ]
    assert places == sorted(places)
    for example in demo._EXAMPLES:
        assert f"An example question: {example}" in printed
    assert "BM25 >> tiny against BM25 over 66 questions (paired t-test):" in printed
    assert "p = " in printed
    assert re.search(r"demo --model \S+ --depth 1000 +\(about \d+ (s|min)", printed)
    paths = (model, PUBLISHED)
    lines = [line for line in printed.splitlines() if not any(path in line for path in paths)]
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("example", demo._EXAMPLES)
def test_every_example_is_a_packaged_question_that_the_packaged_checkpoint_answers_better(example):
    topics, qrels = PydocDataset().get_topicsqrels()
    relevant = set(qrels.merge(topics[topics["query"] == example])["docno"])
    bm25 = Bm25Retriever(pydoc_documents(), num_results=demo._DEPTH)
    mini = BertCatReRanker("mini", device="cpu", verbose=False)
    answer = demo._Demo(bm25, mini).answer(example)
    assert answer.second["docno"][0] in relevant
    assert answer.first["docno"][0] not in relevant


def test_ctrl_c_shows_the_table_of_the_questions_so_far_and_exits_with_130(model, monkeypatch, capsys):
    asked = []
    rerank = BertCatReRanker.transform

    def interrupted(self, frame):
        asked.extend(frame["query"].unique())
        if len(asked) == len(demo._EXAMPLES) + 6:
            raise KeyboardInterrupt
        return rerank(self, frame)

    monkeypatch.setattr(BertCatReRanker, "transform", interrupted)
    assert main(["demo", "--model", model, "--depth", "3"]) == 130
    captured = capsys.readouterr()
    assert "Stopped after 5 of 66 questions." in captured.out
    assert "over 5 questions (paired t-test)" in captured.out
    assert "next:" not in captured.out
    assert captured.err == "pyterrier-bertcat: interrupted\n"


def test_ctrl_c_before_two_questions_are_answered_shows_no_table(model, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo._Demo, "answer_all", interrupt)
    assert main(["demo", "--model", model, "--depth", "3"]) == 130
    assert "Stopped after 0 of 66 questions." in (printed := capsys.readouterr().out)
    assert "nDCG" not in printed


def test_a_packaged_question_has_its_relevant_documents_marked(model, capsys):
    question = "check how much disk space is free"
    assert main(["demo", "--model", model, "--depth", "9", "--top", "9", question]) == 0
    printed = capsys.readouterr().out
    assert printed.count("✓ shutil.disk_usage") == 2  # once in each ranking
    assert "✓ is judged to answer the question" in printed


def test_a_terminal_without_unicode_gets_only_ascii(model):
    code = "import sys; from pyterrier_bertcat.cli import main; sys.exit(main(sys.argv[1:]))"
    question = "what does the with statement do — in “Python”"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--model", model, "--top", "20", question],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.isascii()
    assert b"\\u" not in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr.replace(b"\r\n", b"\n")
    assert re.search(rb" [+]\d+\s", done.stdout)


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


@pytest.fixture
def answer() -> demo.Answer:
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
    return demo.Answer(first, second, seconds=(0.0015, 0.25))


@pytest.mark.parametrize("width", [80, 101, 120])
@pytest.mark.parametrize("scores", [True, False])
def test_side_by_side_fits_its_width_even_with_long_names(answer, width, scores):
    printed = side_by_side(
        answer, names=("BM25", "BM25 >> " + "m" * 60), top=5, width=width, scores=scores, marks=demo.Marks()
    )
    lines = printed.splitlines()
    assert max(len(line) for line in lines) <= width
    assert len(lines) == 6
    assert lines[2].endswith("↑1")
    assert "goes_on_and_on" in lines[2]  # the end of a name says more than its beginning
    assert ("-10.25" in lines[2]) == scores
    assert "Short." in lines[3]


def test_side_by_side_shows_the_time_of_each_and_what_is_relevant(answer):
    printed = side_by_side(answer, names=("BM25", "mini"), top=1, width=80, relevant={"a.b"}, marks=demo.Marks())
    lines = printed.splitlines()
    assert lines[0].split() == ["BM25", "(1.5", "ms)", "mini", "(0.25", "s)"]
    assert lines[2].startswith(" 1 ✓ a.b ")
    assert lines[2].count("✓") == 1


def test_a_long_name_loses_whole_parts_at_its_beginning(answer):
    names = {"a.b": "a.b", answer.first["docno"][1]: "datetime.datetime.from_a_string"}
    first, second = (frame.assign(docno=frame["docno"].map(names)) for frame in answer[:2])
    shown = answer._replace(first=first, second=second)
    printed = side_by_side(shown, names=("BM25", "mini"), top=1, width=80, marks=demo.Marks())
    assert " 1   …from_a_string " in printed.splitlines()[2]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "cp437"])
def test_every_encoding_has_the_marks(encoding):
    "".join(demo.Marks.for_encoding(encoding)).encode(encoding)


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
    assert "30 better, 10 worse, 26 the same" in lines[6]
    assert lines[6].endswith("p = 0.0012, significant")
    assert "-0.020" in lines[7]
    assert lines[7].endswith("p = 0.6, not significant")
    assert max(len(line) for line in lines) <= 80


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
