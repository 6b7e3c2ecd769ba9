from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.data.runs import RunWriter, read_run
from pyterrier_bertcat.errors import InputError

# What separates columns and rows are ASCII's blanks; a first qid that begins with a byte order mark loses it.
names = st.text(
    st.characters(exclude_characters=" \t\n\r\v\f\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=8
)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
results = st.dictionaries(names, st.dictionaries(names, float32s, min_size=1, max_size=6), min_size=1, max_size=4)


def frame_of(scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Ranked as PyTerrier does: best first, ranks from 0, ties by docno as trec_eval."""
    rows = [
        (qid, docno, score, rank)
        for qid, documents in scores.items()
        for rank, (docno, score) in enumerate(
            sorted(documents.items(), key=lambda item: (item[1], item[0]), reverse=True)
        )
    ]
    return pd.DataFrame(rows, columns=["qid", "docno", "score", "rank"]).astype({"score": np.float32})


def write(path, frame, **options):
    with RunWriter(path, **options) as run:
        run.write(frame)


@given(scores=results, packed=st.booleans())
@example(scores={"1": {"d\x85\u2028": 1.0, "d\xa0": float(np.nextafter(np.float32(1), np.float32(2)))}}, packed=True)
@settings(deadline=None)
def test_what_is_written_is_read_again_bit_by_bit(scores, packed, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / ("run.txt.gz" if packed else "run.txt")
    frame = frame_of(scores)
    write(path, frame)
    again = read_run(path)
    assert again[["qid", "docno", "rank"]].to_numpy().tolist() == frame[["qid", "docno", "rank"]].to_numpy().tolist()
    assert again["score"].to_numpy().astype(np.float32).tobytes() == frame["score"].to_numpy().tobytes()
    assert again["score"].nunique() == frame["score"].nunique()  # read as float64, which has room for new ties


def test_pyterrier_reads_the_run_with_ranks_from_1(tmp_path):
    write(tmp_path / "run.txt", frame_of({"q1": {"a": 2.5, "b": 3.0}}), tag="mine")
    assert (tmp_path / "run.txt").read_text() == "q1 Q0 b 1 3.0 mine\nq1 Q0 a 2 2.5 mine\n"
    assert pt.io.read_results(str(tmp_path / "run.txt"))["rank"].tolist() == [1, 2]


ROWS = "q2 Q0 d1 7 0.5 bm25\n\n \t\r\n  q2\tQ0  d3\t1   1.5 bm25 \r\nq1 Q0 d2 1 2 bm25\nq2 Q0 d2 3 1.5e0 bm25"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: b"\xef\xbb\xbf" + data])
def test_rows_are_ordered_by_score_whatever_their_ranks_and_blanks_say(tmp_path, pack):
    path = tmp_path / "run"
    path.write_bytes(pack(ROWS.encode()))
    run = read_run(path)
    assert run.columns.tolist() == ["qid", "docno", "score", "rank"]
    assert run.to_numpy().tolist() == [
        ["q2", "d3", 1.5, 0],
        ["q2", "d2", 1.5, 1],
        ["q2", "d1", 0.5, 2],
        ["q1", "d2", 2.0, 0],
    ]


def test_a_run_is_read_from_a_pipe():
    code = "import sys; from pyterrier_bertcat.data.runs import read_run; print(len(read_run('/dev/stdin')))"
    if not os.path.exists("/dev/stdin"):
        pytest.skip("this system has no /dev/stdin")
    done = subprocess.run([sys.executable, "-c", code], input=gzip.compress(ROWS.encode()), capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"4", b"")


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("q1 Q0 d2 2 0.5", "q1 Q0 d2 2 0.5"),
        ("q1 Q0 d 2 2 0.5 tag", "'q1 Q0 d 2 2 0.5 tag'"),
        ("q1 Q0 d2 2 nan tag", "nan"),
        ("q1 Q0 d2 2 1e999 tag", "1e999"),
        ("q1 Q0 d2 2 1_0 tag", "1_0"),
        ("q1 Q0 d2 2 high tag", "high"),
        (b"q1 Q0 d\xff 2 1 tag", "UTF-8"),
    ],
)
def test_a_wrong_line_is_named_with_what_it_holds(tmp_path, line, got):
    path = tmp_path / "run.txt"
    path.write_bytes(b"q1 Q0 d1 1 1.5 tag\n\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(InputError, match=r"run\.txt, line 3: expected ") as caught:
        read_run(path)
    assert got in str(caught.value)


def test_duplicates_are_named_or_the_first_is_kept(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("q1 Q0 a 1 2 t\nq1 Q0 b 2 1 t\n\nq2 Q0 a 1 1 t\nq1 Q0 a 3 9 t\n")
    with pytest.raises(InputError, match=r"1 duplicated .qid, docno.: docno 'a' of qid 'q1' on lines 1 and 5"):
        read_run(path)
    kept = read_run(path, duplicates="first")
    assert kept[["qid", "docno", "score"]].to_numpy().tolist() == [["q1", "a", 2.0], ["q1", "b", 1.0], ["q2", "a", 1.0]]


@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"")])
def test_a_run_without_rows_is_refused(tmp_path, content):
    (tmp_path / "run").write_bytes(content)
    with pytest.raises(InputError, match="has no rows"):
        read_run(tmp_path / "run")


def test_a_missing_file_and_a_truncated_gzip_are_refused(tmp_path):
    with pytest.raises(InputError, match="run can't be read: No such file"):
        read_run(tmp_path / "run")
    lines = b"".join(b"q%d Q0 d%d 1 1 t\n" % (number, number * number) for number in range(5000))
    (tmp_path / "run").write_bytes(gzip.compress(lines)[:-2000])
    with pytest.raises(InputError, match=r"can't be read after line \d+: "):
        read_run(tmp_path / "run")


@given(
    content=st.binary(max_size=200)
    | st.lists(st.sampled_from([b"q1", b" ", b"\t", b"Q0", b"\n", b"1", b"\xff", b"-1e3"])).map(b"".join)
)
@example(content=b"\x1f\x8b")
@example(content=b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xff")
@example(content=b"q Q0 d 1 \xd9\xa3 t")
@settings(deadline=None)
def test_any_bytes_are_a_run_or_an_input_error(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "run"
    path.write_bytes(content)
    try:
        assert len(read_run(path)) > 0
    except InputError as error:
        if str(path) not in str(error):
            raise


@pytest.mark.parametrize(
    ("column", "value"), [("docno", "a b"), ("docno", ""), ("qid", "a\n"), ("docno", "\ud800"), ("score", np.inf)]
)
def test_what_could_not_be_read_again_is_not_written_and_the_old_run_stays(tmp_path, column, value):
    (tmp_path / "run").write_text("old")
    frame = frame_of({"q": {"a": 1.0}})
    dtype = object if isinstance(value, str) else None  # pyarrow, where pandas uses it, holds no lone surrogate
    frame[column] = pd.Series([value], dtype=dtype)
    with pytest.raises(InputError):
        write(tmp_path / "run", frame)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("run", "old")]


def test_a_full_disk_leaves_the_old_run_and_nothing_else(tmp_path):
    (tmp_path / "run").write_text("old")
    frame = pd.concat([frame_of({"q": {f"document{number}": 1.0 for number in range(2000)}})])
    script = tmp_path / "frame.pickle"
    frame.to_pickle(script)
    code = (
        "import resource, signal, sys, pandas as pd\nfrom pyterrier_bertcat.data.runs import RunWriter\n"
        f"frame = pd.read_pickle({str(script)!r})\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"with RunWriter({str(tmp_path / 'run')!r}) as run: run.write(frame)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OSError" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frame.pickle", "run"]
    assert (tmp_path / "run").read_text() == "old"


def test_the_file_has_the_permissions_of_any_other(tmp_path):
    write(tmp_path / "run", frame_of({"q": {"a": 1.0}}))
    (tmp_path / "other").touch()
    assert (tmp_path / "run").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(("path", "tag"), [("", "two words"), ("", ""), (".", "tag"), ("no/such/folder", "tag")])
def test_what_can_not_be_written_is_refused_at_the_start(tmp_path, path, tag):
    with pytest.raises(InputError):
        RunWriter(tmp_path / path if path else tmp_path / "run", tag=tag).__enter__()


def test_reading_takes_little_more_memory_than_the_rows(tmp_path):
    path, rows = tmp_path / "run", 50_000
    with path.open("w") as file:
        for row in range(rows):
            file.write(f"{row // 1000} Q0 document{row % 5000} {row % 1000 + 1} {1 / (row % 1000 + 1)} tag\n")
    tracemalloc.start()
    assert len(read_run(path)) == rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / rows < 200  # bytes; the file has 50 a row
