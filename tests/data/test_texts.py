from __future__ import annotations

import gzip
import json
import tracemalloc

import ir_datasets
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.data.qrels import read_qrels
from pyterrier_bertcat.data.texts import read_pairs, read_texts
from pyterrier_bertcat.errors import InputError


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize(
    ("content", "fields", "expected"),
    [
        ("d1\tone\r\nd2\t two \n\nd3\tthree", (), {"d1": "one", "d3": "three"}),
        (jsonl({"docno": "d1", "text": "one"}, {"docno": "d2", "text": "two"}), (), {"d1": "one"}),
        (jsonl({"id": "d3", "contents": "c", "extra": 7}), (), {"d3": "c"}),
        (jsonl({"_id": "d1", "title": "T", "text": "t", "metadata": {}}), (), {"d1": "t"}),
        (jsonl({"_id": "d1", "title": "T", "text": "t", "metadata": {}}), ("title", "text"), {"d1": "T t"}),
        (jsonl({"docid": "d1", "segment": "only"}), (), {"d1": "only"}),
        (jsonl({"docno": "d1", "text": "first"}, {"docno": "d1", "text": "again"}), (), {"d1": "first"}),
        (jsonl({"docno": "d1", "text": ""}, {"docno": 3, "text": "not d3"}), (), {"d1": ""}),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_wanted_texts_are_read(tmp_path, content, fields, expected, pack):
    (tmp_path / "texts").write_bytes(pack(content.encode()))
    assert read_texts(tmp_path / "texts", ["d1", "d3", "missing"], fields=fields) == expected


@pytest.mark.parametrize(
    ("content", "fields", "complaint"),
    [
        ("d0\tx\nno tab\n", (), "line 2: expected a docno, a tab and a text"),
        ("d0\turl\ttitle\tbody\n", (), "line 1: expected a docno, a tab and a text"),
        ('{"docno": "d0", "text": "x"}\n{"docno": \n', (), "line 2: expected a JSON object ("),
        ('{"docno": "d0", "text": "x"}\n[1]\n', (), "line 2: expected a JSON object with a docno"),
        (jsonl({"name": "d0", "text": "x"}), (), "line 1: expected a field 'docno' or"),
        (jsonl({"docno": None, "text": "x"}), (), "line 1: expected a docno that is a string"),
        (jsonl({"docno": "d1", "text": None}), (), "line 1: expected a string in field 'text', got None"),
        (jsonl({"docno": "d1", "url": "u", "title": "t"}), (), "there are 'url', 'title'"),
        (jsonl({"docno": "d1", "text": "t"}), ("body",), "line 1: expected a field 'body', there are 'text'"),
        ('{"docno": "d1", "text": "\\ud800"}', (), "line 1: expected Unicode in the text"),
        (b"d1\t\xff", (), "line 1: expected UTF-8"),
        ("d1\tone\n", ("title",), "has columns and no fields: leave text_fields (--text-fields) out"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, fields, complaint):
    (tmp_path / "texts").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_texts(tmp_path / "texts", ["d1"], fields=fields)
    assert complaint in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
records = st.dictionaries(st.sampled_from(["docno", "text", "title", "_id", ""]), json_values | st.just("d1"))


@given(content=st.binary(max_size=80) | st.lists(records).map(lambda rows: jsonl(*rows).encode()))
@example(content=b'{"docno": "d1", "text": ' + b"[" * 100_000)
@example(content=b'{"docno": "d1", "text": ' + b"1" * 10_000 + b"}")
@settings(deadline=None)
def test_any_bytes_are_texts_or_an_input_error(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "texts"
    path.write_bytes(content)
    try:
        assert set(read_texts(path, ["d1"])) <= {"d1"}
    except InputError as error:
        if str(path) not in str(error):
            raise


def test_only_the_wanted_texts_are_in_memory(tmp_path):
    with gzip.open(tmp_path / "texts.gz", "wt") as file:
        file.writelines(jsonl({"docno": f"d{number}", "text": f"{number} " * 500}) for number in range(5_000))
    tracemalloc.start()
    texts = read_texts(tmp_path / "texts.gz", ["d10", "d4999"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts["d4999"].startswith("4999 ")
    assert peak < 1_000_000  # bytes; all texts are 12 million


def test_reading_stops_when_all_are_found(tmp_path):
    (tmp_path / "texts").write_text("d1\tone\nd2\ttwo\nthis line is wrong\n")
    assert read_texts(tmp_path / "texts", ["d1", "d2"]) == {"d1": "one", "d2": "two"}
    assert read_texts(tmp_path / "no such file", []) == {}


def test_a_data_set_is_read_by_its_name():
    texts = read_texts("bertcat:pydoc", ["shutil.copytree", "no.such.docno"])
    assert list(texts) == ["shutil.copytree"]
    assert texts["shutil.copytree"]


def test_an_ir_dataset_is_read_by_its_name(tmp_path):
    (tmp_path / "docs.tsv").write_text("d1\tone\nd2\ttwo\n")
    (tmp_path / "qrels").write_text("q1 0 d1 2\n")
    name = f"texts-{tmp_path.name}"
    files = {"docs_tsv": str(tmp_path / "docs.tsv"), "qrels_trec": str(tmp_path / "qrels")}
    ir_datasets.registry.register(name, ir_datasets.create_dataset(**files))
    assert read_texts(f"irds:{name}", ["d2", "missing"]) == {"d2": "two"}
    with pytest.raises(InputError, match="expected a field 'body', there are 'text'"):
        read_texts(f"irds:{name}", ["d2"], fields=["body"])
    assert read_qrels(f"irds:{name}").to_numpy().tolist() == [["q1", "d1", 2]]


@pytest.mark.parametrize(
    "content",
    ["q one\td one \r\n\nq two\td\n", jsonl({"query": "q one", "text": "d one "}, {"text": "d", "query": "q two"})],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pairs_are_read(tmp_path, content, pack):
    (tmp_path / "pairs").write_bytes(pack(content.encode()))
    assert read_pairs(tmp_path / "pairs") == [("q one", "d one "), ("q two", "d")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is empty: expected lines of query, tab and text"),
        ("q\td\nno tab\n", "line 2: expected a query, a tab and a text, or JSON objects, got 'no tab'"),
        (jsonl({"query": "q", "text": "t"}) + "q\tt", "line 2: expected a JSON object ("),
        (jsonl({"query": "q"}), "line 1: expected a field 'text', there are 'query'"),
        (jsonl({"query": 7, "text": "t"}), "line 1: expected a string in field 'query', got 7"),
    ],
)
def test_wrong_pairs_are_named(tmp_path, content, complaint):
    (tmp_path / "pairs").write_text(content)
    with pytest.raises(InputError) as caught:
        read_pairs(tmp_path / "pairs")
    assert complaint in str(caught.value)


def test_qrels_are_read(tmp_path):
    (tmp_path / "qrels").write_bytes(gzip.compress(b"q1 0 d1 2\n\n q1\t0  d2 -1 \r\n"))
    qrels = read_qrels(tmp_path / "qrels")
    assert qrels.columns.tolist() == ["qid", "docno", "label"]
    assert qrels.to_numpy().tolist() == [["q1", "d1", 2], ["q1", "d2", -1]]
    assert len(read_qrels("bertcat:pydoc")) == 266


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no judgments"),
        (b"q1 0 d1 1\nq1 0 d1\n", "line 2: expected four"),
        (b"q 0 d high", "line 1: expected four"),
        (b"q\xff 0 d 1", "line 1: expected UTF-8"),
    ],
)
def test_wrong_qrels_are_named(tmp_path, content, complaint):
    (tmp_path / "qrels").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_qrels(tmp_path / "qrels")
