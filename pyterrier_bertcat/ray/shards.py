"""Parquet in and out: the input cut into shards, and for each of them one output file, complete or absent.

A shard is a range of rows inside a row group of a file, so it is the same rows whenever and wherever it is read. Files
may lie wherever pyarrow reads and writes: local folders, ``s3://``, ``gs://``, ``hdfs://``.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError

SCORE = "score"
_JOB_FILE = "_job.json"  # Parquet readers pass over names that begin with "_" or "."
_HIDDEN = ("_", ".")
_UNFINISHED = ".part-"


@dataclass(frozen=True)
class Shard:
    """Rows of the input that are scored together.

    Attributes:
        number: From 0 on, in the order of the input.
        file: The input file, as `Store.inside` names it.
        row_group: Which of the file's row groups.
        start: The first row in it.
        rows: How many.
    """

    number: int
    file: str
    row_group: int
    start: int
    rows: int


class Store:
    """A folder, or a single file, of a file system."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """Takes a local path or an address such as ``s3://bucket/folder``; nothing needs to be there yet."""
        name = os.fspath(location)
        self.location = name.rstrip("/") if "://" in name else str(Path(name).absolute())
        self.filesystem, self.path = pyarrow.fs.FileSystem.from_uri(self.location)

    def inside(self, name: str) -> str:
        """The path of a file in this folder."""
        return f"{self.path}/{name}"

    def names(self) -> list[str]:
        """The names of the files right in this folder, hidden ones too; none where there is no folder."""
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
        return [info.base_name for info in self.filesystem.get_file_info(selector) if info.is_file]

    def parquet_files(self) -> list[str]:
        """The Parquet files in this folder and those below, without hidden ones, sorted; or this file itself."""
        if self.filesystem.get_file_info(self.path).is_file:
            return [self.path]
        found = self.filesystem.get_file_info(pyarrow.fs.FileSelector(self.path, recursive=True, allow_not_found=True))
        inside = {info.path: PurePosixPath(info.path).relative_to(self.path).parts for info in found if info.is_file}
        return sorted(
            path
            for path, parts in inside.items()
            if path.endswith(".parquet") and not any(part.startswith(_HIDDEN) for part in parts)
        )

    def open_parquet(self, path: str) -> pq.ParquetFile:
        """Opens a Parquet file by its path; only its footer is read."""
        return pq.ParquetFile(self.filesystem.open_input_file(path))

    def write(self, name: str, content: bytes | pa.Table) -> None:
        """Writes a file of this folder that appears complete or not at all, in place of an older one."""
        unfinished = self.inside(f"{_UNFINISHED}{uuid.uuid4().hex}")
        if isinstance(content, bytes):
            with self.filesystem.open_output_stream(unfinished) as stream:
                stream.write(content)
        else:
            pq.write_table(content, unfinished, filesystem=self.filesystem)
        self.filesystem.move(unfinished, self.inside(name))


@dataclass(frozen=True)
class Plan:
    """The input of a job.

    Attributes:
        store: Where it is.
        shards: All of them, by number.
        digest: Of the files' names, sizes and footers, which hold statistics of every column: changed input has
            another one.
    """

    store: Store
    shards: list[Shard]
    digest: str

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)


def plan_shards(store: Store, *, shard_rows: int) -> Plan:
    """Cuts Parquet files into shards of at most ``shard_rows`` rows; a shard never goes beyond a row group."""
    shards: list[Shard] = []
    digest = hashlib.sha256()
    for path in store.parquet_files():
        with store.open_parquet(path) as file:
            name = path.removeprefix(store.path)
            digest.update(json.dumps([name, file.metadata.to_dict()], sort_keys=True, default=str).encode())
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                for start in range(0, rows, shard_rows):
                    shards.append(Shard(len(shards), path, group, start, min(shard_rows, rows - start)))
    return Plan(store, shards, digest.hexdigest())


def check_columns(plan: Plan, *, needed: Sequence[str], strings: Sequence[str]) -> None:
    """Refuses input without a column, or with another type than string in some; looks at footers only.

    Raises:
        InputError: with the file, what was expected and what it has.
    """
    for path in {shard.file: None for shard in plan.shards}:
        with plan.store.open_parquet(path) as file:
            schema = file.schema_arrow
        missing = [name for name in needed if name not in schema.names]
        if missing:
            raise InputError(f"{path}: expected the columns {list(needed)}, and {missing} are not in {schema.names}")
        for name in strings:
            if not _is_string(schema.field(name).type):
                raise InputError(f"{path}: expected strings in column {name!r}, got {schema.field(name).type}")


def row_groups_with_missing(plan: Plan, columns: Sequence[str]) -> Iterator[Shard]:
    """The row groups, each whole as one shard, where the footer's statistics count a missing value in some column."""
    for path, group in {(shard.file, shard.row_group): None for shard in plan.shards}:
        with plan.store.open_parquet(path) as file:
            facts = file.metadata.row_group(group)
        chunks = [facts.column(index) for index in range(facts.num_columns)]
        missing = [
            chunk
            for chunk in chunks
            if chunk.path_in_schema in columns and chunk.statistics is not None and chunk.statistics.null_count
        ]
        if missing:
            yield Shard(-1, path, group, 0, facts.num_rows)


def read_shard(store: Store, shard: Shard, columns: Sequence[str]) -> pa.Table:
    """Reads some columns of a shard's rows."""
    with store.open_parquet(shard.file) as file:
        group = file.read_row_group(shard.row_group, columns=list(columns))
    rows: pa.Table = group.slice(shard.start, shard.rows).select(list(columns))
    return rows.replace_schema_metadata(None)  # which may speak of a pandas index that was not read


def write_scores(store: Store, shard: Shard, rows: pa.Table, scores: NDArray[np.float32]) -> None:
    """Writes a shard's output: its rows with their scores. Written twice, it is the same file."""
    store.write(part_name(shard.number), rows.append_column(SCORE, pa.array(scores, type=pa.float32())))


def part_name(number: int) -> str:
    """The output file of a shard."""
    return f"part-{number:06d}.parquet"


def begin_or_resume(output: Store, plan: Plan, settings: dict[str, str]) -> list[Shard]:
    """Makes the output folder, or checks that the one there is of the same job.

    Args:
        output: The folder.
        plan: The input.
        settings: What the scores depend on.

    Returns:
        The shards that are still to be scored.

    Raises:
        InputError: The folder belongs to a job with other settings or other input, or is no job's.
    """
    settings = {**settings, "input": plan.digest}
    output.filesystem.create_dir(output.path, recursive=True)
    names = output.names()
    if has_begun(output):
        _check_same(output, read_job(output)["settings"], settings)
    elif output.parquet_files():
        raise InputError(f"{output.location} has Parquet files and no {_JOB_FILE}: give a folder of its own as output")
    else:
        job = {"settings": settings, "rows": plan.rows, "shards": len(plan.shards)}
        output.write(_JOB_FILE, json.dumps(job, indent=2).encode())
    for name in names:
        if name.startswith(_UNFINISHED):  # of a job that was killed
            output.filesystem.delete_file(output.inside(name))
    return missing_shards(output, plan.shards, names)


def has_begun(output: Store) -> bool:
    """Whether a job has made this its output folder."""
    return _JOB_FILE in output.names()


def missing_shards(output: Store, shards: Sequence[Shard], names: Sequence[str]) -> list[Shard]:
    """The shards without a whole output file among those that are there."""
    there = set(names)
    return [
        shard
        for shard in shards
        if part_name(shard.number) not in there or _rows_of_part(output, shard.number) != shard.rows
    ]


def read_job(output: Store) -> dict[str, Any]:
    """What the output folder says of its job: ``settings``, ``rows`` and ``shards``.

    Raises:
        InputError: It is no output folder.
    """
    try:
        with output.filesystem.open_input_file(output.inside(_JOB_FILE)) as stream:
            job: dict[str, Any] = json.loads(stream.read())
    except (OSError, ValueError) as error:
        raise InputError(f"{output.location}: expected the output folder of a job, can't read {_JOB_FILE}") from error
    return job


def read_scores(output: Store) -> pa.Table:
    """All rows that a finished job has written, in the order of its input.

    Raises:
        InputError: The job is not finished, or there is none.
    """
    job = read_job(output)
    there = set(output.names())
    parts = [output.inside(part_name(number)) for number in range(job["shards"]) if part_name(number) in there]
    if len(parts) < job["shards"]:
        raise InputError(
            f"{output.location} is not finished: {job['shards'] - len(parts)} of {job['shards']} parts are missing; "
            "call rerank again with the same arguments, and it scores those"
        )
    tables = [pq.read_table(part, filesystem=output.filesystem) for part in parts]
    return pa.concat_tables(tables, promote_options="permissive")


def _rows_of_part(output: Store, number: int) -> int | None:
    """How many rows an output file has; None if it is damaged, as after a power cut."""
    try:
        with output.open_parquet(output.inside(part_name(number))) as file:
            rows: int = file.metadata.num_rows
    except (OSError, pa.ArrowInvalid):
        return None
    return rows


def _check_same(output: Store, before: dict[str, str], now: dict[str, str]) -> None:
    differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if differing:
        what = "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in differing)
        raise InputError(
            f"{output.location} holds the scores of another job ({what}): give another output folder, or the same "
            "input and options"
        )


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
