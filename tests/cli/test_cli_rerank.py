"""``pyterrier-bertcat rerank`` from outside: a real process, a real checkpoint, real files."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.waiting import wait_until

from pyterrier_bertcat.cli import main
from pyterrier_bertcat.data.runs import read_run
from pyterrier_bertcat.model.checkpoint import load_checkpoint, save_checkpoint
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.reranker import BertCatReRanker

QUERIES = {"301": "copy a folder with everything in it", "302": "read a file line by line", "303": "sort a list"}
PHRASES = [
    f"{verb} {noun}" for verb in ("copy", "read", "sort", "delete") for noun in ("a folder", "a file", "a list", "tea")
]
TEXTS = {f"d{number}": f"How to {phrase}." for number, phrase in enumerate(PHRASES)}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a run, its topics and its texts."""
    rows = [
        f"{qid} Q0 {docno} {rank + 1} {20 - rank} bm25\n" for qid in QUERIES for rank, docno in enumerate([*TEXTS][:-2])
    ]
    (tmp_path / "bm25.run.gz").write_bytes(gzip.compress("".join(rows).encode()))
    (tmp_path / "topics.txt").write_text(
        "".join(f"<top>\n<num> Number: {qid}\n<title> {query}\n" for qid, query in QUERIES.items())
    )
    records = [json.dumps({"docno": docno, "text": text}) for docno, text in TEXTS.items()]
    (tmp_path / "texts.jsonl").write_text("\n".join(records))
    return tmp_path


def command(files: Path, *more: str, output: str = "out.run", store: bool = False) -> list[str]:
    names = {"run": "bm25.run.gz", "topics": "topics.txt", "texts": "texts.jsonl", "output": output}
    paths = [part for name, file in names.items() for part in (f"--{name}", str(files / file))]
    return ["rerank", *paths, "--model", "mini", "--device", "cpu", *([] if store else ["--no-store"]), *more]


def process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pyterrier_bertcat", *arguments], capture_output=True, text=True)


def expected() -> pd.DataFrame:
    frame = pd.DataFrame(
        [(qid, query, docno, TEXTS[docno]) for qid, query in QUERIES.items() for docno in [*TEXTS][:-2]],
        columns=["qid", "query", "docno", "text"],
    )
    return BertCatReRanker("mini", device="cpu", verbose=False)(frame)


def test_the_output_is_what_the_transformer_gives(files):
    done = process(command(files, "--tag", "mine"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{files / 'out.run'}: 42 rows, 3 queries, re-ranked by mini\n"
    assert "42/42" in done.stderr
    run, transformed = read_run(files / "out.run"), expected()
    columns = ["qid", "docno", "rank"]
    assert run[columns].to_numpy().tolist() == transformed[columns].to_numpy().tolist()
    assert np.abs(run["score"].to_numpy() - transformed["score"].to_numpy()).max() < 5e-5
    assert (files / "out.run").read_text().startswith("301 Q0 ")
    assert (files / "out.run").read_text().splitlines()[0].split()[3::2] == ["1", "mine"]
    assert sorted(path.name for path in files.iterdir()) == ["bm25.run.gz", "out.run", "texts.jsonl", "topics.txt"]


def test_quiet_says_nothing_and_gzip_goes_by_name(files, capsys):
    assert main(command(files, "--quiet", output="out.run.gz")) == 0
    assert capsys.readouterr() == ("", "")
    assert main(command(files, "--quiet")) == 0
    assert gzip.decompress((files / "out.run.gz").read_bytes()) == (files / "out.run").read_bytes()


def test_a_dry_run_counts_and_writes_nothing(files, capsys, monkeypatch):
    monkeypatch.setattr(BertCatReRanker, "transform", None)  # it would fail if it came to that
    before = sorted(files.iterdir())
    assert main(command(files, "--dry-run", "--quiet")) == 0
    printed = capsys.readouterr().out
    assert "42 rows, 3 queries, 14 documents" in printed
    assert "42 pairs, 42 distinct" in printed
    assert sorted(files.iterdir()) == before


def test_a_dry_run_finds_a_model_that_can_not_be_used(files, capsys):
    assert main([*command(files, "--dry-run"), "--model", "no/such/folder"]) == 1
    assert "no/such/folder" in capsys.readouterr().err


def test_long_documents_are_scored_by_their_passages_or_named_as_cut_each_time(files, capsys):
    long = pd.DataFrame([json.loads(line) for line in (files / "texts.jsonl").read_text().splitlines()])
    long[long.columns[1]] = [f"{text} {'fox ' * 60}{text}" for text in long[long.columns[1]]]
    (files / "texts.jsonl").write_text(long.to_json(orient="records", lines=True))
    cut = command(files, "--max-length", "40", store=True)
    for _ in range(2):  # the second time, all scores come from the store
        assert main([*cut, "--store", str(files / "scores")]) == 0
        warning = capsys.readouterr().err
        assert "warning: 42 of 42 pairs" in warning
        assert "--passages scores documents whole" in warning
    for aggregate in ("mean", "first"):
        by_passages = ["--passages", "20,10", "--aggregate", aggregate]
        assert main(command(files, "--max-length", "40", *by_passages)) == 0
        assert "cut" not in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(command(files, "--aggregate", "mean"))
    assert "--passages" in capsys.readouterr().err
    options = (["--max-length", "40"], ["--passages", "20", "--aggregate", "first"], ["--passages", "20,10"])
    tokens = [estimated_tokens(files, capsys, *some) for some in options]
    assert tokens[1] < tokens[0] < tokens[2] / 4


def estimated_tokens(files, capsys, *options: str) -> float:
    assert main(command(files, "--dry-run", "--quiet", *options)) == 0
    return float(re.search(r"about ([\d,]+) tokens", capsys.readouterr().out)[1].replace(",", ""))


def test_a_dry_run_cuts_as_the_job_would(files, capsys):
    long = {docno: f"{text} {'fox ' * 600}" for docno, text in TEXTS.items()}
    (files / "texts.jsonl").write_text("".join(f"{docno}\t{text}\n" for docno, text in long.items()))
    pairs = len(QUERIES) * 14
    own = load_checkpoint("mini").stated_max_length
    assert estimated_tokens(files, capsys) == pytest.approx(pairs * own, rel=0.05)
    # As the authors trained: texts are cut to 200 tokens, beside the query and the special tokens.
    assert 200 * pairs < estimated_tokens(files, capsys, "--truncation", "paper") < 230 * pairs
    assert estimated_tokens(files, capsys, "--truncation", "only_text", "--max-length", "64") == pytest.approx(
        pairs * 64, rel=0.05
    )


def test_kmax_averages_as_many_passages_as_it_says(files, capsys):
    texts = {docno: f"{text} {'fox ' * 60}{text}" for docno, text in TEXTS.items()}
    (files / "texts.jsonl").write_text("".join(f"{docno}\t{text}\n" for docno, text in texts.items()))
    assert main(command(files, "--quiet", "--passages", "20,10", "--aggregate", "kmax:2")) == 0
    frame = expected().drop(columns=["score", "rank"])
    frame["text"] = frame["docno"].map(texts)
    passages = Passages(length=20, stride=10, aggregate="kmax", k=2)
    transformed = BertCatReRanker("mini", device="cpu", passages=passages, verbose=False)(frame)
    run = read_run(files / "out.run")
    assert run["docno"].tolist() == transformed["docno"].tolist()
    assert np.abs(run["score"].to_numpy() - transformed["score"].to_numpy()).max() < 5e-5
    assert main(command(files, "--passages", "20,10", "--aggregate", "max:2")) == 1
    assert "k=2 goes with aggregate='kmax'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("bm25.run.gz", "301 Q0 d1 1\n", "bm25.run.gz, line 1: expected six columns"),
        ("topics.txt", "301\tcopy\n", "2 of 3 queries are not in"),
        ("texts.jsonl", "d1\tone\n", "13 of 14 documents are not in"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_wrong_input_is_one_line_and_exit_code_1_and_the_old_output_stays(
    files, file, content, complaint, more, capsys
):
    (files / "out.run").write_text("old")
    (files / file).write_text(content)
    assert main(command(files, *more)) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("pyterrier-bertcat: error: ")
    assert complaint in captured.err
    assert captured.err.count("\n") == 1
    assert (files / "out.run").read_text() == "old"


def test_unknown_documents_and_topics_are_skipped_on_request(files, capsys):
    (files / "texts.jsonl").write_text("d1\tone\nd2\ttwo\n")
    (files / "topics.txt").write_text("302\tread a file\n303\tsort\n")
    assert main(command(files, "--unknown", "skip", "--quiet")) == 0
    assert "warning: skipped: 1 of 3 queries" in capsys.readouterr().err
    run = read_run(files / "out.run")
    assert set(zip(run["qid"], run["docno"], strict=True)) == {(q, d) for q in ("302", "303") for d in ("d1", "d2")}


@pytest.mark.parametrize("output", ["bm25.run.gz", ".", "no/such/folder/out.run"])
def test_an_output_that_can_not_be_is_refused(files, output, capsys):
    before = (files / "bm25.run.gz").read_bytes()
    assert main(command(files, output=output)) == 1
    assert capsys.readouterr().err.startswith("pyterrier-bertcat: error: ")
    assert (files / "bm25.run.gz").read_bytes() == before


def test_a_folder_of_somebody_else_is_not_taken_for_a_store(files, capsys):
    (files / "out.run.scores").mkdir()
    (files / "out.run.scores" / "thesis.tex").touch()
    assert main(command(files, store=True)) == 1
    assert "is not a score store" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [["--depth", "0"], ["--unknown", "ask"], ["--store", "s", "--no-store"], ["--aggregate", "kmax"]]
)
def test_wrong_usage_exits_with_2(files, more, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command(files, *more))
    assert stop.value.code == 2
    assert "usage: pyterrier-bertcat rerank" in capsys.readouterr().err


def test_below_the_depth_the_run_is_kept(files):
    assert main(command(files, "--depth", "5", "--quiet")) == 0
    run = read_run(files / "out.run")
    documents = [*TEXTS][:-2]
    for _, rows in run.groupby("qid"):
        assert set(rows["docno"][:5]) == set(documents[:5])
        assert rows["docno"][5:].tolist() == documents[5:]


def test_a_finished_job_leaves_no_store_but_a_given_one_is_kept(files):
    assert main(command(files, "--quiet", store=True)) == 0
    assert not (files / "out.run.scores").exists()
    assert main(command(files, "--quiet", "--store", str(files / "mine"), store=True)) == 0
    assert (files / "mine").is_dir()


def test_a_job_that_was_killed_is_finished_by_starting_it_again(files, tiny_checkpoint):
    """Killed for good (SIGKILL) after its first scores were stored; then the output is, byte by byte, the same."""
    from pyterrier_bertcat.store.score_store import ScoreStore

    qids = [f"q{number}" for number in range(20)]
    rows = [f"{qid} Q0 d{rank} 1 {-rank} t\n" for qid in qids for rank in range(100)]
    (files / "bm25.run.gz").write_text("".join(rows))
    (files / "topics.txt").write_text("".join(f"{qid}\tabout {PHRASES[len(qid)]} {qid}\n" for qid in qids))
    (files / "texts.jsonl").write_text(
        "".join(f"d{rank}\t{PHRASES[rank % 16]}{' word' * (rank % 9)} {rank}\n" for rank in range(100))
    )
    more = ["--quiet", "--model", str(save_checkpoint(tiny_checkpoint, files / "tiny"))]
    assert main(command(files, *more, output="whole.run")) == 0

    job = subprocess.Popen([sys.executable, "-m", "pyterrier_bertcat", *command(files, *more, store=True)])
    folder = files / "out.run.scores"
    wait_until(lambda: job.poll() is not None or (folder.exists() and len(ScoreStore(folder))), "stored score")
    job.kill()
    assert job.wait() == -signal.SIGKILL, "the job ended before it could be killed"
    assert 0 < len(ScoreStore(folder)) < len(rows)
    assert not (files / "out.run").exists()

    assert main(command(files, *more, store=True)) == 0
    assert (files / "out.run").read_bytes() == (files / "whole.run").read_bytes()
    assert not folder.exists()


def test_an_interrupt_exits_with_130_and_leaves_nothing(files):
    arguments = [sys.executable, "-m", "pyterrier_bertcat", *command(files)]
    job = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: job.poll() is not None or list(files.glob(".out.run.*.part")), "output that was begun")
    job.send_signal(signal.SIGINT)
    _, complaint = job.communicate()
    # Python dies of the signal after all where it came inside an exec, as there are in imports; shells say 130 too.
    assert job.returncode in (130, -signal.SIGINT), complaint
    assert complaint.endswith("pyterrier-bertcat: interrupted\n")
    assert sorted(path.name for path in files.iterdir()) == ["bm25.run.gz", "texts.jsonl", "topics.txt"]
