"""Parquet in and out: the input is cut into shards, and each gets one output file, which is complete or absent.

A shard is a range of rows within a row group of a file, so it holds the same rows whenever and wherever it is read.
Files may be wherever pyarrow reads and writes: local folders, ``s3://``, ``gs://``, ``hdfs://``.
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
_JOB_FILE = "_job.json"  # Parquet readers skip names that begin with "_" or "."
_HIDDEN = ("_", ".")
_UNFINISHED = ".part-"


@dataclass(frozen=True)
class Shard:
    """Rows of the input that are scored together.

    Attributes:
        number: Counts from 0, in the order of the input.
        file: Path of the input file.
        row_group: Number of the row group in the file.
        start: The first row, within the row group.
        rows: How many rows.
    """

    number: int
    file: str
    row_group: int
    start: int
    rows: int


class ParquetFolder:
    """A folder, or a single file, of a file system."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """Takes a local path or an address such as ``s3://bucket/folder``, which need not exist yet."""
        name = os.fspath(location)
        self.location = name.rstrip("/") if "://" in name else str(Path(name).absolute())
        self.filesystem, self.path = pyarrow.fs.FileSystem.from_uri(self.location)

    def inside(self, name: str) -> str:
        """The path of a file in this folder."""
        return f"{self.path}/{name}"

    def names(self) -> list[str]:
        """The names of the files directly in this folder, hidden ones too. Empty if there is no folder."""
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
        return [info.base_name for info in self.filesystem.get_file_info(selector) if info.is_file]

    def parquet_files(self) -> list[str]:
        """Paths of the Parquet files in this folder and its subfolders, hidden ones left out, sorted; or this file."""
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
        """Opens a Parquet file and reads its footer only."""
        return pq.ParquetFile(self.filesystem.open_input_file(path))

    def write(self, name: str, content: bytes | pa.Table) -> None:
        """Writes a file into this folder, which appears complete or not at all. It replaces an older one."""
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
        source: Where the input is.
        shards: All shards, ordered by number.
        digest: Of the files' names, sizes and footers. Footers hold statistics of every column, so changed input has
            another digest.
    """

    source: ParquetFolder
    shards: list[Shard]
    digest: str

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)


def plan_shards(source: ParquetFolder, *, shard_rows: int) -> Plan:
    """Cuts Parquet files into shards of at most ``shard_rows`` rows. A shard stays within a row group."""
    shards: list[Shard] = []
    digest = hashlib.sha256()
    for path in source.parquet_files():
        with source.open_parquet(path) as file:
            name = path.removeprefix(source.path)
            digest.update(json.dumps([name, file.metadata.to_dict()], sort_keys=True, default=str).encode())
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                for start in range(0, rows, shard_rows):
                    shards.append(Shard(len(shards), path, group, start, min(shard_rows, rows - start)))
    return Plan(source, shards, digest.hexdigest())


def check_columns(plan: Plan, *, needed: Sequence[str], strings: Sequence[str]) -> None:
    """Refuses input that lacks a column, or has another type than string in some of them. Reads footers only.

    Raises:
        InputError: The message names the file, what was expected and what it has.
    """
    for path in {shard.file: None for shard in plan.shards}:
        with plan.source.open_parquet(path) as file:
            schema = file.schema_arrow
        missing = [name for name in needed if name not in schema.names]
        if missing:
            raise InputError(f"{path}: expected the columns {list(needed)}, and {missing} are not in {schema.names}")
        for name in strings:
            found = schema.field(name).type
            if not _is_string(found):
                # Ray pickles a column of objects, such as one in which pandas 2 wrote a missing text as NaN, a float.
                is_pickled = isinstance(found, pa.BaseExtensionType) and found.extension_name.startswith("ray.")
                hint = ": Ray pickles a column that is not all strings, so write a missing text as None"
                raise InputError(f"{path}: expected strings in column {name!r}, got {found}{hint * is_pickled}")


def row_groups_with_missing(plan: Plan, columns: Sequence[str]) -> Iterator[Shard]:
    """Yields row groups, as one shard each, for which the footer's statistics count missing values in the columns."""
    for path, group in {(shard.file, shard.row_group): None for shard in plan.shards}:
        with plan.source.open_parquet(path) as file:
            facts = file.metadata.row_group(group)
        chunks = [facts.column(index) for index in range(facts.num_columns)]
        statistics = [chunk.statistics for chunk in chunks if chunk.path_in_schema in columns]
        if any(known is not None and known.null_count for known in statistics):
            yield Shard(-1, path, group, 0, facts.num_rows)


def read_shard(source: ParquetFolder, shard: Shard, columns: Sequence[str]) -> pa.Table:
    """Reads some columns of a shard's rows."""
    with source.open_parquet(shard.file) as file:
        group = file.read_row_group(shard.row_group, columns=list(columns))
    rows: pa.Table = group.slice(shard.start, shard.rows).select(list(columns))
    return rows.replace_schema_metadata(None)  # it may describe a pandas index that was not read


def write_scores(output: ParquetFolder, shard: Shard, rows: pa.Table, scores: NDArray[np.float32]) -> None:
    """Writes a shard's rows with their scores. Writing them again gives the same file."""
    output.write(part_name(shard.number), rows.append_column(SCORE, pa.array(scores, type=pa.float32())))


def part_name(number: int) -> str:
    """Name of a shard's output file."""
    return f"part-{number:06d}.parquet"


def begin_or_resume(output: ParquetFolder, plan: Plan, settings: dict[str, Any]) -> list[Shard]:
    """Makes the output folder, or checks that the existing one belongs to the same job.

    Args:
        output: The folder.
        plan: The input.
        settings: JSON values that the output depends on, ``dtype`` among them.

    Returns:
        The shards that still have to be scored, because their output file is missing or damaged.

    Raises:
        InputError: The folder belongs to a job with other settings or other input, or not to a job.
    """
    settings = {**settings, "input": plan.digest}
    output.filesystem.create_dir(output.path, recursive=True)
    names = set(output.names())
    if _JOB_FILE in names:
        _check_same(output, _read_job(output)["settings"], settings)
    elif output.parquet_files():
        raise InputError(f"{output.location} has Parquet files but no {_JOB_FILE}: give a folder of its own as output")
    else:
        job = {"settings": settings, "rows": plan.rows, "shards": len(plan.shards)}
        output.write(_JOB_FILE, json.dumps(job, indent=2).encode())
    for name in names:
        if name.startswith(_UNFINISHED):  # of a job that was killed
            output.filesystem.delete_file(output.inside(name))
    return [
        shard
        for shard in plan.shards
        if part_name(shard.number) not in names or _rows_of_part(output, shard.number) != shard.rows
    ]


def has_begun(output: ParquetFolder) -> bool:
    """Whether a job has begun to write to this folder."""
    return _JOB_FILE in output.names()


def read_scores(output: ParquetFolder) -> pa.Table:
    """Reads all rows of a finished job, in the order of its input.

    Raises:
        InputError: The job is not finished, or there is no job.
    """
    shards = _read_job(output)["shards"]
    there = set(output.names())
    names = [name for name in map(part_name, range(shards)) if name in there]
    if len(names) < shards:
        raise InputError(
            f"{output.location} is not finished: {shards - len(names)} of {shards} parts are missing; "
            "call rerank again with the same arguments to score those"
        )
    tables = [pq.read_table(output.inside(name), filesystem=output.filesystem) for name in names]
    return pa.concat_tables(tables, promote_options="permissive")


def _read_job(output: ParquetFolder) -> dict[str, Any]:
    try:
        with output.filesystem.open_input_file(output.inside(_JOB_FILE)) as stream:
            job: dict[str, Any] = json.loads(stream.read())
    except (OSError, ValueError) as error:
        raise InputError(f"{output.location}: expected the output folder of a job, can't read {_JOB_FILE}") from error
    return job


def _rows_of_part(output: ParquetFolder, number: int) -> int | None:
    """Rows of an output file, or None if it is damaged, as after a power cut."""
    try:
        with output.open_parquet(output.inside(part_name(number))) as file:
            rows: int = file.metadata.num_rows
    except (OSError, pa.ArrowInvalid):
        return None
    return rows


def _check_same(output: ParquetFolder, before: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if not differing:
        return
    remedy = "give another output folder, or the input and options of that job"
    if differing == ["dtype"]:
        remedy = f"give dtype={before['dtype']!r}, on machines that compute in it, or another output folder"
    what = "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in differing)
    raise InputError(f"{output.location} holds scores of another job or an earlier release ({what}): {remedy}")


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
