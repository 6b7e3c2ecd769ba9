from __future__ import annotations

from pathlib import Path

import pytest

from pyterrier_bertcat.data.candidates import RunSources, read_candidates
from pyterrier_bertcat.errors import InputError

RUN = {"q1": ["a", "b", "c", "d"], "q2": ["a", "x", "e"], "q3": ["b"]}


@pytest.fixture
def sources(tmp_path: Path) -> RunSources:
    """A run of which the query q3 and the document x are unknown."""
    rows = [f"{qid} Q0 {docno} 1 {-place} t\n" for qid, docnos in RUN.items() for place, docno in enumerate(docnos)]
    (tmp_path / "run").write_text("".join(rows))
    (tmp_path / "topics").write_text("q2\tsecond\nq1\tfirst\nq9\tnot asked\n")
    (tmp_path / "texts").write_text("".join(f"{docno}\ttext of {docno}\n" for docno in "abcdefg"))
    return RunSources(run=tmp_path / "run", topics=tmp_path / "topics", texts=tmp_path / "texts", unknown="skip")


def test_rows_get_their_queries_and_texts_in_the_order_of_the_run(sources):
    frame = read_candidates(sources).frame()
    assert frame[["qid", "query", "docno", "text", "rank"]].to_numpy().tolist() == [
        ["q1", "first", "a", "text of a", 0],
        ["q1", "first", "b", "text of b", 1],
        ["q1", "first", "c", "text of c", 2],
        ["q1", "first", "d", "text of d", 3],
        ["q2", "second", "a", "text of a", 0],
        ["q2", "second", "e", "text of e", 1],
    ]


def test_what_is_unknown_is_counted_and_named(sources):
    skipped = read_candidates(sources).skipped
    assert skipped == (
        f"1 of 3 queries are not in {sources.topics}: 'q3'; 1 of 6 documents are not in {sources.texts}: 'x'"
    )
    with pytest.raises(InputError, match=r"1 of 3 queries .*'q3'; 1 of 6 documents .*'x'\. .*--unknown skip"):
        read_candidates(RunSources(run=sources.run, topics=sources.topics, texts=sources.texts))


def test_nothing_is_skipped_where_all_is_known(sources):
    Path(sources.run).write_text("q1 Q0 a 1 1 t\n")
    candidates = read_candidates(sources)
    assert candidates.skipped == ""
    assert (candidates.queries, candidates.texts) == ({"q1": "first"}, {"a": "text of a"})


def test_a_run_of_another_collection_is_refused_although_skipping_is_allowed(sources):
    Path(sources.run).write_text("q7 Q0 a 1 1 t\n")
    with pytest.raises(InputError, match="nothing is left of it: 1 of 1 queries"):
        read_candidates(sources)


def test_only_documents_above_the_depth_need_texts(sources):
    Path(sources.run).write_text("".join(f"q1 Q0 {docno} 1 {-place} t\n" for place, docno in enumerate("abxc")))
    strict = RunSources(run=sources.run, topics=sources.topics, texts=sources.texts)
    candidates = read_candidates(strict, depth=2)
    assert candidates.texts.keys() == {"a", "b"}
    assert candidates.frame()["text"].tolist() == ["text of a", "text of b", "", ""]
    with pytest.raises(InputError, match="'x'"):
        read_candidates(strict, depth=3)
    # When x is skipped, c moves up.
    skipping = read_candidates(sources, depth=3).frame()
    assert skipping["docno"].tolist() == ["a", "b", "c"]
    assert skipping["text"].tolist() == ["text of a", "text of b", "text of c"]


@pytest.mark.parametrize(
    ("rows_at_least", "sizes"), [(1, [4, 2]), (4, [4, 2]), (5, [6]), (100, [6])]
)  # fmt: skip
def test_frames_are_the_rows_in_parts_that_keep_queries_whole(sources, rows_at_least, sizes):
    candidates = read_candidates(sources)
    frames = list(candidates.frames(rows_at_least=rows_at_least))
    assert [len(frame) for frame in frames] == sizes
    docnos = [docno for frame in frames for docno in frame["docno"]]
    assert docnos == candidates.frame()["docno"].tolist()
