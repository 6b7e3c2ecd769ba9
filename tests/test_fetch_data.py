"""`benchmarks.fetch_data` against a local server that holds a small file in each published format."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from helpers.shared_data import data_folder

REPOSITORY = Path(__file__).resolve().parents[1]
if not (REPOSITORY / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not in the sdist", allow_module_level=True)
GITHUB = "raw.githubusercontent.com"
QED = f"{GITHUB}/google-research-datasets/QED"
QUESTIONS = f"{GITHUB}/castorini/anserini-tools/5b819c1a45c8a0a3ec9426f476694f44a29dfaf3/topics"
ENOUGH_WORDS = "a fever is a rise of the body's temperature above what is usual for that person"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def published(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "published"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def publish(folder, path, content):
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def fetch(data, name, mirror="http://127.0.0.1:1", **environment):
    command = [sys.executable, "-m", "benchmarks.fetch_data", "--data", data, "--only", name, "--mirror", mirror]
    environment = {**os.environ, "no_proxy": "127.0.0.1", **environment}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)


def lines(path):
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def squad_json(*, context, question):
    paragraph = {"context": context, "qas": [{"id": "q1", "question": question}]}
    return json.dumps({"data": [{"title": "Super_Bowl-50", "paragraphs": [paragraph, paragraph | {"qas": []}]}]})


def qed_line(number, question, paragraph):
    return json.dumps(
        {"example_id": number, "question_text": question, "paragraph_text": paragraph, "title_text": "Title"}
    )


def publish_qed(folder):
    publish(
        folder, f"{QED}/2492920337122918bbfc7d12c1268b9af796c6cf/qed-dev.jsonlines", qed_line(-1, "who won", "We .")
    )
    first = f"{QED}/71e19e085640a2032c803a839d716f0a1b526bff"
    for number in range(3):
        publish(folder, f"{first}/nq-dev-0{number}-qed.jsonlines", qed_line(-1, "who won", "We .") + "\n")
    for number in range(6):
        publish(folder, f"{first}/nq-train-0{number}-qed.jsonlines", qed_line(number, f"why {number}", "We ."))


def test_a_paragraph_of_squad_is_one_document_with_its_questions(published, tmp_path):
    folder, address = published
    content = squad_json(context="Denver  won.\n", question="Who won? ")
    publish(folder, "rajpurkar.github.io/SQuAD-explorer/dataset/dev-v1.1.json", content)
    done = fetch(tmp_path / "data", "squad_dev", address)
    made = tmp_path / "data" / "squad_dev"
    assert lines(made / "docs.jsonl.gz") == [
        '{"docno": "Super_Bowl_50-0", "text": "Denver won.", "title": "Super Bowl-50"}'
    ]
    assert lines(made / "topics.tsv.gz") == ["q1\tWho won?"]
    assert lines(made / "qrels.txt.gz") == ["q1 0 Super_Bowl_50-0 1"]
    assert "SQuAD 1.1" in (made / "SOURCE.txt").read_text()
    assert "NOT AS EXPECTED: 2,067 documents" in done.stdout
    assert done.returncode == 1


def test_each_question_of_qed_is_kept_once_and_equal_paragraphs_are_one_document(published, tmp_path):
    folder, address = published
    publish_qed(folder)
    fetch(tmp_path, "qed_nq", address)
    assert len(lines(tmp_path / "qed_nq" / "docs.jsonl.gz")) == 1
    assert lines(tmp_path / "qed_nq" / "topics.dev.tsv.gz") == ["-1\twho won"]
    assert lines(tmp_path / "qed_nq" / "qrels.train.txt.gz") == [f"{number} 0 p0 1" for number in range(6)]


def test_medquad_keeps_answers_that_are_long_enough_and_cuts_them(published, tmp_path):
    folder, address = published
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number, answer in enumerate((ENOUGH_WORDS, "too short", "word " * 500)):
            pair = f"<QAPair><Question>What is {number} ?</Question><Answer>{answer}</Answer></QAPair>"
            file.writestr(f"MedQuAD/{number}.xml", f"<Document><QAPairs>{pair}</QAPairs></Document>")
    publish(
        folder, "github.com/abachaa/MedQuAD/archive/577bd37b96c02d1833b2c9eed2de9f96964e96cb.zip", archive.getvalue()
    )
    fetch(tmp_path, "medquad", address)
    texts = [json.loads(line)["text"] for line in lines(tmp_path / "medquad" / "docs.jsonl.gz")]
    assert texts == [ENOUGH_WORDS, " ".join(["word"] * 400)]
    assert lines(tmp_path / "medquad" / "topics.tsv.gz") == ["mq1\tWhat is 0?", "mq2\tWhat is 2?"]


def test_real_questions_leave_out_those_of_qed(published, tmp_path):
    folder, address = published
    publish_qed(folder)
    publish(folder, f"{QUESTIONS}/topics.dpr.nq.dev.txt", "who won\t['we']\nwho lost\t['they']\n")
    publish(folder, f"{QUESTIONS}/topics.dpr.nq.test.txt", "who lost\t['they']\n")
    publish(folder, f"{QUESTIONS}/topics.beir-v1.0.0-nq.test.tsv.gz", gzip.compress(b"test0\twho drew\n"))
    publish(folder, f"{QUESTIONS}/topics.dpr.wq.test.txt", '{"question": "what is it?", "answer": []}\n')
    publish(folder, f"{QUESTIONS}/topics.dpr.trivia.dev.txt", "Which one?\t['this']\n")
    fetch(tmp_path, "real_questions", address)
    found = lines(tmp_path / "real_questions" / "topics.tsv.gz")
    assert found == ["nq0\twho lost", "nq1\twho drew", "wq0\twhat is it", "tq0\tWhich one?"]
    assert not (tmp_path / "real_questions" / "docs.jsonl.gz").exists()


def test_vaswani_is_what_ir_datasets_reads(tmp_path):
    home = tmp_path / "home" / "vaswani"
    home.mkdir(parents=True)
    (home / "docs.txt").write_text("1\ncompact memories\nhave capacities\n   /\n2\nan analogue computer\n   /\n")
    (home / "queries.txt").write_text("1\nMEASUREMENT OF\nCAPACITIES\n/\n")
    (home / "qrels.txt").write_text("1\n 1 2\n   /\n")
    fetch(tmp_path, "vaswani", IR_DATASETS_HOME=str(tmp_path / "home"))
    first = json.loads(lines(tmp_path / "vaswani" / "docs.jsonl.gz")[0])
    assert first == {"docno": "1", "text": "compact memories have capacities"}
    assert lines(tmp_path / "vaswani" / "topics.tsv.gz") == ["1\tmeasurement of capacities"]
    assert lines(tmp_path / "vaswani" / "qrels.txt.gz") == ["1 0 1 1", "1 0 2 1"]


def test_what_cannot_be_reached_is_named_and_leaves_no_folder(published, tmp_path):
    done = fetch(tmp_path / "data", "squad_dev", published[1])
    assert "NOT MADE" in done.stdout
    assert "404" in done.stdout
    assert not (tmp_path / "data").exists()
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["squad_dev", "qed_nq", "real_questions", "vaswani"])
def test_the_collections_of_the_published_figures_are_recognised(name):
    done = fetch(data_folder(name).parent, name)
    assert "exactly what README's figures were measured on" in done.stdout
    assert done.returncode == 0
