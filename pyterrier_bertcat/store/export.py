"""A score store as a Parquet file, for other tools. Needs pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyterrier_bertcat.errors import MissingExtraError
from pyterrier_bertcat.store.database import ScoreDatabase

_ROWS_PER_GROUP = 1 << 20


def write_parquet(database: ScoreDatabase, file: Path) -> int:
    """Writes all scores, with some million rows in memory at a time; `ScoreStore.export` names the columns.

    Returns:
        How many rows were written.

    Raises:
        MissingExtraError: pyarrow is not installed.
        StoreError: The store can't be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="parquet") from error

    settings_type, hash_type = pa.dictionary(pa.int32(), pa.string()), pa.binary(16)
    schema = pa.schema(
        {
            "settings": settings_type,
            "query": hash_type,
            "text": hash_type,
            "score": pa.float32(),
            "query_cut": pa.bool_(),
            "text_cut": pa.bool_(),
        }
    )

    def hashes(values: bytes) -> Any:
        return pa.FixedSizeBinaryArray.from_buffers(hash_type, len(values) // 16, [None, pa.py_buffer(values)])

    written, waiting = 0, [schema.empty_table()]
    with pq.ParquetWriter(file, schema) as writer:

        def write() -> int:
            table = pa.concat_tables(waiting).unify_dictionaries()
            writer.write_table(table)
            return int(table.num_rows)

        for settings, pairs, scores, cut in database.everything():
            columns = [
                pa.DictionaryArray.from_arrays(np.zeros(len(pairs), np.int32), [settings]),
                hashes(pairs.queries[0] * len(pairs)),
                hashes(pairs.texts.tobytes()),
                np.ascontiguousarray(scores),
                *cut,
            ]
            waiting.append(pa.table(columns, schema=schema))
            if sum(map(len, waiting)) >= _ROWS_PER_GROUP:
                written += write()
                waiting = waiting[:1]
        return written + write()
