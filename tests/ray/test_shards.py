"""Parquet cut into shards, and parts that are complete or absent; no cluster is needed."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyarrow", reason="pyarrow comes with the extra ray")

import pyarrow as pa
import pyarrow.parquet as pq

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.ray import read_ranked
from pyterrier_bertcat.ray.shards import (
    ParquetFolder,
    Plan,
    Shard,
    begin_or_resume,
    check_columns,
    part_name,
    plan_shards,
    read_shard,
    row_groups_with_missing,
    write_scores,
)

KEY = ["qid", "docno"]


def rows(count: int) -> pd.DataFrame:
    numbers = range(count)
    return pd.DataFrame({"qid": [f"q{n // 5}" for n in numbers], "docno": [f"d{n}" for n in numbers], "text": "a text"})


def plan_of(folder: Path, frame: pd.DataFrame, *, row_group_size: int = 100, shard_rows: int = 4) -> Plan:
    folder.mkdir(exist_ok=True)
    frame.to_parquet(folder / "pairs.parquet", row_group_size=row_group_size)
    return plan_shards(ParquetFolder(folder), shard_rows=shard_rows)


def write_part(output: ParquetFolder, plan: Plan, shard: Shard) -> None:
    write_scores(
        output, shard, read_shard(plan.source, shard, KEY), np.full(shard.rows, shard.number, dtype=np.float32)
    )


@hypothesis.given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    row_group_size=st.integers(1, 12),
    shard_rows=st.integers(1, 12),
)
@hypothesis.settings(max_examples=25)
def test_the_shards_are_the_input_cut_in_order(tmp_path_factory, counts, row_group_size, shard_rows):
    folder = tmp_path_factory.mktemp("pairs")
    frame, start = rows(sum(counts)), 0
    for file, count in enumerate(counts):
        frame.iloc[start : start + count].to_parquet(folder / f"{file}.parquet", row_group_size=row_group_size)
        start += count
    plan = plan_shards(ParquetFolder(folder), shard_rows=shard_rows)
    tables = [read_shard(plan.source, shard, ["docno", "qid"]) for shard in plan.shards]
    assert [table.num_rows for table in tables] == [shard.rows for shard in plan.shards]
    assert max(table.num_rows for table in tables) <= shard_rows
    assert plan.rows == len(frame)
    pd.testing.assert_frame_equal(pa.concat_tables(tables).to_pandas(), frame[["docno", "qid"]])


def test_a_file_alone_and_a_folder_with_folders_and_hidden_files_are_read(tmp_path):
    for name in ("one.parquet", "year=1/two.parquet", "_job/no.parquet", ".no.parquet", "no.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rows(2).to_parquet(tmp_path / name)
    assert ParquetFolder(tmp_path).parquet_files() == [
        str(tmp_path / "one.parquet"),
        str(tmp_path / "year=1/two.parquet"),
    ]
    assert plan_shards(ParquetFolder(tmp_path / "one.parquet"), shard_rows=9).rows == 2


def test_only_what_is_missing_or_damaged_is_left_to_do(tmp_path):
    plan = plan_of(tmp_path / "pairs", rows(20))
    output = ParquetFolder(tmp_path / "scores")
    assert begin_or_resume(output, plan, {"dtype": "float32"}) == plan.shards
    for shard in plan.shards[1:]:
        write_part(output, plan, shard)
    damaged = Path(output.inside(part_name(3)))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    Path(output.inside(".part-of-a-killed-job")).write_bytes(b"PAR1")
    assert begin_or_resume(output, plan, {"dtype": "float32"}) == [plan.shards[0], plan.shards[3]]
    assert not [name for name in output.names() if name.startswith(".")]


def test_another_job_in_the_same_folder_is_refused(tmp_path):
    plan = plan_of(tmp_path / "pairs", rows(20))
    output = ParquetFolder(tmp_path / "scores")
    begin_or_resume(output, plan, {"checkpoint": "aa", "dtype": "float32"})
    with pytest.raises(InputError, match=r"another job or an earlier release \(checkpoint was aa, is bb\)"):
        begin_or_resume(output, plan, {"checkpoint": "bb", "dtype": "float32"})
    changed = plan_of(tmp_path / "pairs", rows(20).assign(text="b text"))
    with pytest.raises(InputError, match=r"another job or an earlier release \(input was"):
        begin_or_resume(output, changed, {"checkpoint": "aa", "dtype": "float32"})
    with pytest.raises(InputError, match="a folder of its own"):
        begin_or_resume(ParquetFolder(tmp_path / "pairs"), plan, {})


def test_columns_and_missing_values_are_found_by_the_footers(tmp_path):
    frame = rows(8).assign(number=1)
    frame.loc[6, "text"] = None
    plan = plan_of(tmp_path / "pairs", frame, row_group_size=3)
    check_columns(plan, needed=["qid", "number"], strings=["text"])
    with pytest.raises(InputError, match=r"pairs.parquet: expected the columns .*\['query'\] are not in"):
        check_columns(plan, needed=["qid", "query"], strings=[])
    with pytest.raises(InputError, match="expected strings in column 'number', got int64"):
        check_columns(plan, needed=["number"], strings=["number"])
    groups = [(group.row_group, group.rows) for group in row_groups_with_missing(plan, ["text"])]
    assert groups == [(2, 2)]
    assert not [*row_groups_with_missing(plan, ["qid"])]


def test_texts_that_repeat_may_be_dictionaries(tmp_path):
    table = pa.table({"text": pa.array(["a", "a"]).dictionary_encode(), "qid": pa.array(["1", "2"], pa.large_string())})
    pq.write_table(table, tmp_path / "pairs.parquet")
    check_columns(plan_shards(ParquetFolder(tmp_path), shard_rows=2), needed=["text"], strings=["text", "qid"])


def test_a_finished_job_is_read_as_a_run_and_an_unfinished_one_refused(tmp_path):
    plan = plan_of(tmp_path / "pairs", rows(10))
    output = ParquetFolder(tmp_path / "scores")
    with pytest.raises(InputError, match="expected the output folder of a job"):
        read_ranked(tmp_path / "scores")
    begin_or_resume(output, plan, {})
    for shard in plan.shards[::-1][:-1]:
        write_part(output, plan, shard)
    with pytest.raises(InputError, match="1 of 3 parts are missing"):
        read_ranked(tmp_path / "scores")
    write_part(output, plan, plan.shards[0])
    run = read_ranked(tmp_path / "scores")
    assert run.columns.tolist() == ["qid", "docno", "score", "rank"]
    assert run["docno"].tolist() == ["d4", "d3", "d2", "d1", "d0", "d9", "d8", "d7", "d6", "d5"]
    assert run["rank"].tolist() == [0, 1, 2, 3, 4] * 2
    assert run["score"].dtype == np.float32
