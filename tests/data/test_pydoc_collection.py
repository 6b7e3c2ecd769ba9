from __future__ import annotations

import functools
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyterrier as pt
import pytest

from pyterrier_bertcat.data import pydoc_collection
from pyterrier_bertcat.data.pydoc_collection import (
    BertCatDatasetProvider,
    PydocDataset,
    PydocTextLoader,
    pydoc_documents,
    pydoc_questions,
    reading_ahead,
)
from pyterrier_bertcat.data.pydoc_reader import kept_documents
from pyterrier_bertcat.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {document["docno"]: document["text"] for document in pydoc_documents()}


def first_sentence(text: str) -> str:
    docstring = text.partition("\n\n")[2]
    return re.split(r"\.\s|\n\n", docstring, maxsplit=1)[0]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def test_the_collection_has_about_five_thousand_documents_each_docno_once(texts):
    assert 4000 < len(texts) < 7000
    assert len(texts) == len(pydoc_documents())
    assert {"shutil.copytree", "os.path.join", "io.open", "datetime.datetime.strptime", "topic:lambda"} <= set(texts)


def test_no_document_is_private_a_test_or_empty(texts):
    for docno, text in texts.items():
        assert not any(part.startswith("_") for part in docno.split(".")), docno
        assert not docno.startswith(("test.", "idlelib")), docno
        assert text.partition("\n\n")[2].strip(), docno


def test_the_documents_are_read_once_and_callers_get_their_own(texts, monkeypatch):
    monkeypatch.setattr("pyterrier_bertcat.data.pydoc_collection.read_documents", None)  # to read again is an error
    pydoc_documents()[0]["text"] = "changed"
    assert pydoc_documents()[0]["text"] == texts[pydoc_documents()[0]["docno"]]


@pytest.fixture
def new_home(tmp_path, monkeypatch) -> Path:
    """A home of PyTerrier's in which nothing is kept, for a process that has read nothing."""
    monkeypatch.setenv("PYTERRIER_HOME", str(tmp_path / "home"))
    read = functools.cache(pydoc_collection._texts.__wrapped__)
    monkeypatch.setattr(pydoc_collection, "_texts", read)
    return tmp_path / "home"


def test_another_process_reads_ahead_and_this_one_takes_what_it_kept(new_home, texts, monkeypatch):
    with reading_ahead() as reads:
        assert reads
    assert {one["docno"]: one["text"] for one in kept_documents(new_home / "bertcat")} == texts
    monkeypatch.setattr(pydoc_collection, "keep_documents", None)  # to read again is an error
    with reading_ahead() as reads:
        assert not reads
    assert len(pydoc_documents()) == len(texts)


def test_an_error_while_another_process_reads_ends_that_process(new_home, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *arguments, **options: started.append(popen(*arguments, **options)) or started[-1]
    )
    with pytest.raises(InputError, match="of the model"), reading_ahead():
        raise InputError("of the model")
    assert started[0].poll() is not None


def test_where_pyterrier_can_have_no_home_the_documents_are_read_every_time(new_home, texts, monkeypatch):
    new_home.write_text("not a folder")
    monkeypatch.setenv("PYTERRIER_HOME", str(new_home / "below"))
    with reading_ahead() as reads:
        assert not reads
    assert {one["docno"]: one["text"] for one in pydoc_documents()} == texts


def test_every_judged_document_is_in_the_collection_of_this_python(texts):
    judged = {docno for question in pydoc_questions() for docno in question["judgments"]}
    assert judged - set(texts) == set()


def test_every_question_is_different_and_has_a_direct_answer():
    questions = pydoc_questions()
    assert 55 <= len(questions) <= 70
    assert len({question["qid"] for question in questions}) == len(questions)
    assert len({question["query"] for question in questions}) == len(questions)
    for question in questions:
        labels = set(question["judgments"].values())
        assert labels <= {1, 2}, question["qid"]
        assert 2 in labels, question["qid"]


def test_the_direct_answers_come_from_many_modules():
    direct = {docno for question in pydoc_questions() for docno, label in question["judgments"].items() if label == 2}
    assert len({re.split(r"[.:]", docno)[0] for docno in direct}) >= 40


def test_no_question_repeats_the_first_sentence_of_a_direct_answer(texts):
    """Neither five words in a row, nor nearly all words of the question (docstrings of four words aside)."""
    for question in pydoc_questions():
        asked = words(question["query"])
        for docno, label in question["judgments"].items():
            sentence = words(first_sentence(texts[docno]))
            if label < 2 or len(sentence) <= 4:
                continue
            runs = {tuple(sentence[start : start + 5]) for start in range(len(sentence) - 4)}
            assert not any(tuple(asked[start : start + 5]) in runs for start in range(len(asked) - 4)), (
                question,
                docno,
            )
            assert len(set(asked) & set(sentence)) / len(set(asked)) < 0.8, (question, docno)


def test_the_provider_gives_the_data_set_and_refuses_other_names():
    provider = BertCatDatasetProvider()
    assert list(provider.list_dataset_names()) == ["pydoc"]
    assert isinstance(provider.get_dataset("pydoc"), PydocDataset)
    with pytest.raises(KeyError, match="nonesuch"):
        provider.get_dataset("nonesuch")


def test_pyterrier_finds_the_data_set_where_the_package_is_installed():
    if not any(entry.name == "bertcat" for entry in pt.utils.entry_points("pyterrier.dataset_provider")):
        pytest.skip("the package runs from its sources, so it has no entry points")
    dataset = pt.get_dataset("bertcat:pydoc")
    assert isinstance(dataset, PydocDataset)
    assert list(dataset.get_topics().columns) == ["qid", "query"]
    with pytest.raises(KeyError):
        pt.get_dataset("bertcat:nonesuch")


def test_topics_and_qrels_are_the_packaged_questions():
    topics, qrels = PydocDataset().get_topicsqrels()
    assert list(topics.columns) == ["qid", "query"]
    assert list(qrels.columns) == ["qid", "docno", "label"]
    assert set(qrels["qid"]) == set(topics["qid"])
    assert pd.api.types.is_integer_dtype(qrels["label"])
    wanted = topics.loc[topics["query"] == "copy a folder with everything in it", "qid"].item()
    assert qrels[(qrels["qid"] == wanted) & (qrels["label"] == 2)]["docno"].tolist() == ["shutil.copytree"]


def test_a_variant_is_refused_because_there_is_none():
    with pytest.raises(InputError, match="no variants"):
        PydocDataset().get_topics("train")
    with pytest.raises(InputError, match="no variants"):
        PydocDataset().get_qrels("train")


def test_the_data_set_describes_itself_to_pyterriers_list():
    dataset = PydocDataset()
    assert [dataset._describe_component(name) for name in ("topics", "qrels", "corpus", "index")] == [True] * 3 + [None]
    assert dataset.get_corpus_lang() == dataset.get_topics_lang() == "en"
    assert dataset.info_url().startswith("https://docs.python.org/")


@pytest.mark.parametrize("verbose", [True, False])
def test_the_corpus_iterator_gives_the_documents(verbose, texts, capsys):
    assert {row["docno"]: row["text"] for row in PydocDataset().get_corpus_iter(verbose=verbose)} == texts
    assert ("bertcat:pydoc" in capsys.readouterr().err) == verbose


def test_the_text_loader_adds_texts_by_docno_whatever_the_index_and_keeps_other_columns(texts):
    frame = pd.DataFrame(
        {
            "qid": ["1", "1", "2"],
            "docno": ["shutil.rmtree", "topic:with", "shutil.rmtree"],
            "text": "old",
            "n": [1, 2, 3],
        },
        index=[7, 7, 0],
    )
    before = frame.copy()
    loaded = pt.text.get_text(PydocDataset(), "text")(frame)
    expected = pd.DataFrame(
        {
            "qid": ["1", "1", "2"],
            "docno": ["shutil.rmtree", "topic:with", "shutil.rmtree"],
            "n": [1, 2, 3],
            "text": [texts["shutil.rmtree"], texts["topic:with"], texts["shutil.rmtree"]],
        }
    )
    pd.testing.assert_frame_equal(loaded, expected, check_dtype=False)
    pd.testing.assert_frame_equal(frame, before)


def test_the_text_loader_names_documents_that_it_does_not_have():
    with pytest.raises(InputError, match=r"1 of 2 .*no\.such\.thing"):
        PydocTextLoader()(pd.DataFrame({"docno": ["shutil.rmtree", "no.such.thing"]}))


def test_the_text_loader_refuses_fields_that_there_are_not():
    with pytest.raises(InputError, match="title"):
        PydocDataset().text_loader(["text", "title"])
    assert PydocDataset().text_loader("*") == PydocDataset().text_loader(["text"])


def test_the_text_loader_can_be_inspected_pickled_and_compared():
    loader = PydocTextLoader()
    assert pt.inspect.transformer_inputs(loader) == [["docno"]]
    assert pt.inspect.transformer_outputs(loader, ["qid", "docno"]) == ["qid", "docno", "text"]
    assert pickle.loads(pickle.dumps(loader)) == loader
    assert hash(loader) == hash(PydocTextLoader())
    assert loader != pt.Transformer.identity()


def test_a_rank_cutoff_moves_before_the_text_loader_and_changes_nothing(texts):
    frame = pd.DataFrame({"qid": "1", "docno": list(texts)[:9], "score": range(9, 0, -1), "rank": range(9)})
    pipeline = PydocTextLoader() % 4
    pd.testing.assert_frame_equal(pipeline.compile()(frame), pipeline(frame))


def test_importing_the_collection_does_not_import_torch():
    code = "import pyterrier_bertcat.data.pydoc_collection, sys; print({'torch', 'transformers'} & set(sys.modules))"
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "set()"
