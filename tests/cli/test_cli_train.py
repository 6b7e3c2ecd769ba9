"""``pyterrier-bertcat train``: a run, topics, texts and qrels in; a checkpoint that re-ranks out."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path

import pytest

from pyterrier_bertcat.cli import main
from pyterrier_bertcat.model.checkpoint import load_checkpoint, save_checkpoint

QUERIES = {f"q{number}": f"question {number} about {word}" for number, word in enumerate(("tea", "snow", "music"))}
DOCNOS = [f"d{number}" for number in range(9)]


@pytest.fixture
def files(tmp_path: Path, tiny_checkpoint) -> Path:
    """A folder with a run, its topics, texts and qrels, a teacher's scores and a tiny checkpoint."""
    run = "".join(
        f"{qid} Q0 {docno} {rank} {-rank} t\n" for qid in QUERIES for rank, docno in enumerate(DOCNOS, start=1)
    )
    (tmp_path / "run.gz").write_bytes(gzip.compress(run.encode()))
    (tmp_path / "topics.tsv").write_text("".join(f"{qid}\t{query}\n" for qid, query in QUERIES.items()))
    texts = [{"id": docno, "title": f"Title {docno}", "contents": f"a text of {docno}"} for docno in DOCNOS]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (tmp_path / "qrels").write_text("".join(f"{qid} 0 d{place + 2} 1\n" for place, qid in enumerate(QUERIES)))
    scores = [
        f"{3 - place}\t{-place}\t{qid}\td{place + 2}\t{docno}\n"
        for place, qid in enumerate(QUERIES)
        for docno in DOCNOS
        if docno != f"d{place + 2}"
    ]
    (tmp_path / "teacher.tsv").write_text("".join(scores))
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny")
    return tmp_path


def command(files: Path, *more: str, output: str = "trained") -> list[str]:
    names = {"run": "run.gz", "topics": "topics.tsv", "texts": "texts.jsonl", "qrels": "qrels", "model": "tiny"}
    paths = [part for name, file in {**names, "output": output}.items() for part in (f"--{name}", str(files / file))]
    training = ["--steps", "2", "--queries-per-step", "2", "--negatives", "2", "--learning-rate", "1e-3"]
    return ["train", *paths, *training, "--device", "cpu", *more]


@pytest.mark.parametrize(
    "more", [[], *(["--teacher-scores", "teacher.tsv", "--loss", loss] for loss in ("margin-mse", "listwise-kl"))]
)
def test_the_output_is_a_trained_checkpoint(files, more, capsys, monkeypatch, tiny_checkpoint):
    monkeypatch.chdir(files)
    assert main(command(files, *more)) == 0
    printed = capsys.readouterr().out
    assert "27 candidates of 3 queries" in printed
    assert "3 judgments" in printed
    trained = load_checkpoint(files / "trained")
    assert trained.fingerprint != tiny_checkpoint.fingerprint


def test_validation_needs_only_its_run(files, capsys):
    assert main(command(files, "--valid-run", str(files / "run.gz"), "--measure", "RR@10", "--save-every", "1")) == 0
    assert capsys.readouterr().out.count("27 candidates") == 2
    assert (files / "trained" / "states").is_dir()


def test_a_dry_run_reads_and_trains_nothing(files, capsys):
    assert main(command(files, "--dry-run", "--text-fields", "title,contents")) == 0
    assert "27 candidates of 3 queries" in capsys.readouterr().out
    assert not (files / "trained").exists()
    assert main([*command(files, "--dry-run"), "--model", "no/such/folder"]) == 1
    assert "no/such/folder" in capsys.readouterr().err


def test_options_reach_the_training(files, capsys):
    assert main(command(files, "--quiet", "--seed", "7", "--warmup-steps", "1", "--precision", "float32")) == 0
    assert capsys.readouterr().out == ""
    record = json.loads((files / "trained" / "training.json").read_text())
    assert "'seed': '7'" in record["options"]
    assert "'warmup_steps': '1'" in record["options"]
    assert "'learning_rate': '0.001'" in record["options"]


def test_options_for_distillation_reach_the_training(files):
    more = [
        "--hardest-negatives",
        "1",
        "--averaging",
        "0.002",
        "--weight-decay",
        "0.01",
        "--head-learning-rate",
        "5e-3",
    ]
    more += ["--final-learning-rate", "2e-5", "--gradient-checkpointing", "--loss", "listwise-kl"]
    assert main(command(files, "--quiet", *more, "--teacher-scores", str(files / "teacher.tsv"))) == 0
    options = ast.literal_eval(json.loads((files / "trained" / "training.json").read_text())["options"])
    assert options["loss"] == "ListwiseKL(temperature=2.0)"
    assert (options["hardest_negatives"], options["averaging"], options["weight_decay"]) == ("1", "0.002", "0.01")
    assert (options["head_learning_rate"], options["final_learning_rate"]) == ("0.005", "2e-05")
    assert options["gradient_checkpointing"] == "True"
    assert list((files / "trained").glob("states/*/averaged.safetensors"))


def test_the_training_says_how_it_went(files, capsys):
    assert main(command(files, "--valid-run", str(files / "run.gz"), "--save-every", "1")) == 0
    shown = capsys.readouterr().out
    assert "before training: nDCG@10 0." in shown
    assert "step 1 of 2: nDCG@10 0." in shown
    assert f"saved in {files / 'trained'}" in shown
    assert (files / "trained" / "history.csv").read_text().startswith("step,seconds,loss,learning_rate,nDCG@10\n0,")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--loss", "margin-mse"], "needs teacher scores"),
        (["--hardest-negatives", "3"], "hardest_negatives is at most negatives=2"),
        (["--precision", "int8"], "precision is one of"),
        (["--teacher-scores", "no/such/file"], "no/such/file can't be read"),
        (["--text-fields", "abstract"], "expected a field 'abstract', there are 'title', 'contents'"),
        (["--qrels", "no/such/file"], "no/such/file can't be read"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_1(files, more, complaint, capsys):
    assert main(command(files, "--quiet", *more)) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert error.startswith("pyterrier-bertcat: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "more", [["--steps", "0"], ["--valid-qrels", "qrels"], ["--measure", "RR@10"], ["--patience", "2"]]
)
def test_wrong_usage_exits_with_2(files, more, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command(files, *more))
    assert stop.value.code == 2
    assert "usage: pyterrier-bertcat" in capsys.readouterr().err
