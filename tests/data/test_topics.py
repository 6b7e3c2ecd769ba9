from __future__ import annotations

import gzip

import ir_datasets
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.data.topics import read_topics
from pyterrier_bertcat.errors import InputError

TREC_1 = """<top>

<head> Tipster Topic Description
<num> Number:  051
<dom> Domain:  International Economics
<title> Topic:  Airbus Subsidies

<desc> Description:
Document will discuss government assistance
to Airbus Industrie.
</top>
<top>
<num> Number:  301
<title> R&D at AT&amp;T, x < y

<narr> Narrative:
A relevant document <top-secret> is.
"""

ROBUST_2004 = """
<top>

<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations.

</top>

<top>
<num> Number: 302
<title> Poliomyelitis and Post-Polio
</top>
"""

WEB_TRACK = """<?xml version="1.0" encoding="UTF-8"?>
<!-- <topic number="0"><query>left out</query></topic> -->
<webtrack2009>
<topics>
<topic number="1" type="faceted">
  <query>obama family tree</query>
  <description>Find information on President Barack Obama's family
  history.</description>
  <subtopic number="1" type="nav">Find the TIME magazine photo essay.</subtopic>
</topic>
<topic number="2" type="ambiguous"><query><![CDATA[<b> & french lick]]></query></topic>
</topics>
"""

COVID = "<topics><topic><number>1</number><question>why?</question><query>coronavirus origin</query></topic></topics>"
CLEF = "<top lang='en'><num>C041</num><EN-title>x</EN-title><title>Pesticides</title></top>"
TRIALS = '<topics task="2021"><topic number="1">\nPatient is a man\nwith anaplastic astrocytoma\n</topic></topics>'


@pytest.mark.parametrize(
    ("content", "field", "expected"),
    [
        ("q1\tfirst query \r\n\nq2\tüber Ü", None, {"q1": "first query", "q2": "über Ü"}),
        (TREC_1, None, {"51": "Airbus Subsidies", "301": "R&D at AT&T, x < y"}),
        (
            TREC_1.split("<top>\n<num>")[0],
            "desc",
            {"51": "Document will discuss government assistance to Airbus Industrie."},
        ),
        (ROBUST_2004, None, {"301": "International Organized Crime", "302": "Poliomyelitis and Post-Polio"}),
        (WEB_TRACK, None, {"1": "obama family tree", "2": "<b> & french lick"}),
        (COVID, None, {"1": "coronavirus origin"}),
        (COVID, "question", {"1": "why?"}),
        (CLEF, None, {"C041": "Pesticides"}),
        (TRIALS, None, {"1": "Patient is a man with anaplastic astrocytoma"}),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_topics_are_read(tmp_path, content, field, expected, pack):
    path = tmp_path / "topics"
    path.write_bytes(pack(content.encode()))
    assert read_topics(path, field=field) == expected
    assert list(read_topics(str(path), field=field)) == list(expected)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("q1\tx\nq2 no tab\n", "line 2: expected a qid, a tab and a query, got 'q2 no tab'"),
        ("q1\tx\ty\n", "line 1: expected a qid, a tab"),
        ("q1\tx\nq1\ty\n", "line 2: the qid 'q1' was there before"),
        ("q1\tx\nq2\t \n", "line 2: expected a qid and a query"),
        ("", "has no topics"),
        ("<html><body>no</body></html>", "has no topics"),
        ("<top><num>1<title>x</top><top><num>2<desc>y<narr>z</top>", "topic 2: expected a field 'title' or "),
        ("<top><title>x</top>", "topic 1: expected a qid and a query, got '' and 'x'"),
        (b"q1\t\xff", "line 1: expected UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, complaint):
    path = tmp_path / "topics"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_topics(path)
    assert complaint in str(caught.value)


def test_columns_have_no_field_to_choose(tmp_path):
    (tmp_path / "topics").write_text("q1\tfirst\n")
    with pytest.raises(InputError, match="has columns and no fields: leave topic_field"):
        read_topics(tmp_path / "topics", field="desc")


pieces = st.sampled_from(
    [
        "<top>",
        "</top>",
        "<num>",
        "<title>",
        "<topic number='1'>",
        "</topic>",
        "<",
        ">",
        "1",
        " x",
        "\n",
        "\t",
        "<!--",
        "&",
    ]
)


@given(content=st.binary(max_size=100) | st.lists(pieces).map("".join).map(str.encode))
@example(content=b"<top" * 5000)
@example(content=b"<!--" * 5000)
@settings(deadline=None)
def test_any_bytes_are_topics_or_an_input_error(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "topics"
    path.write_bytes(content)
    try:
        assert all(qid and query for qid, query in read_topics(path).items())
    except InputError as error:
        if str(path) not in str(error):
            raise


def test_a_data_set_is_read_by_its_name():
    topics = read_topics("bertcat:pydoc")
    assert len(topics) == 66
    assert all(topics.values())


def test_an_ir_dataset_is_read_by_its_name(tmp_path):
    (tmp_path / "queries.tsv").write_text("1\tfirst\n2\tsecond\n")
    name = f"topics-{tmp_path.name}"
    ir_datasets.registry.register(name, ir_datasets.create_dataset(queries_tsv=str(tmp_path / "queries.tsv")))
    assert read_topics(f"irds:{name}") == {"1": "first", "2": "second"}
    with pytest.raises(InputError, match="expected a field 'narrative', there are 'text'"):
        read_topics(f"irds:{name}", field="narrative")


@pytest.mark.parametrize("name", ["irds:no-such-collection", "nonesuch:pydoc", "bertcat:nonesuch"])
def test_an_unknown_data_set_is_named(name):
    with pytest.raises(InputError, match=f"no data set '{name}', nor a file"):
        read_topics(name)


def test_an_ir_dataset_of_documents_has_no_topics(tmp_path):
    (tmp_path / "docs.tsv").write_text("1\tfirst\n")
    name = f"no-topics-{tmp_path.name}"
    ir_datasets.registry.register(name, ir_datasets.create_dataset(docs_tsv=str(tmp_path / "docs.tsv")))
    with pytest.raises(InputError, match="has no queries"):
        read_topics(f"irds:{name}")
