"""``ScoreStore``: scores kept by content, on disk, so that no pair is scored twice and a killed job goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import InputError, StoreError
from pyterrier_bertcat.identity import IdentifiedByOptions
from pyterrier_bertcat.store.database import Cut, ScoreDatabase, Scores
from pyterrier_bertcat.store.pair_hashes import HashedPairs

_FILE = "scores.sqlite3"
_META_FILE = "pt_meta.json"

Settings = Mapping[str, Any]


class ScoreStore(IdentifiedByOptions, pt.Artifact):  # type: ignore[misc]
    """Scores by what they are scores of: settings, the query's content and the text's content.

    ``settings`` is a mapping of all that changes a score besides the pair: the checkpoint's fingerprint, the most
    tokens, the precision, and so on. Scores come back, bit by bit, for equal settings only. Ids play no part, so one
    store serves many collections and pipelines; texts are kept as 128-bit hashes only.

    A folder with one SQLite file in WAL mode, some 40 bytes for a pair. Any number of threads and processes of one
    machine may read and write it at once, writers by turns; over a network file system only one machine at a time
    (`merge` brings the stores of several together). A process that is killed leaves all that it had committed. A file
    that was damaged gives an error, or less than it had, but no wrong score: each one is stored with a check.

    Nothing is read before the first use and nothing is made before the first write. Stores are equal when their paths
    are, and pickle as their path. Share one with ``store.to_hf(...)`` and ``ScoreStore.from_hf(...)``.

    Example:
        >>> import pandas as pd
        >>> from pyterrier_bertcat import BertCatReRanker, ScoreStore
        >>> store = ScoreStore("pydoc.scores")
        >>> bertcat = BertCatReRanker("mini", store=store, device="cpu", verbose=False)
        >>> candidates = pd.DataFrame([["1", "copy a folder", "d1", "Copy a directory tree."]])
        >>> candidates.columns = ["qid", "query", "docno", "text"]
        >>> _ = bertcat(candidates)
        >>> len(store)
        1
    """

    ARTIFACT_TYPE = "score_store"
    ARTIFACT_FORMAT = "sqlite3"
    ARTIFACT_PACKAGE_HINT = "pyterrier-bertcat"

    _not_identity: ClassVar[frozenset[str]] = frozenset({"timeout_s"})

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float = 30.0) -> None:
        """Keeps the path.

        Args:
            path: The store's folder; the first write makes it.
            timeout_s: How long to wait while another process writes, in seconds.
        """
        super().__init__(Path(path).absolute())
        self.timeout_s = timeout_s
        self._database = ScoreDatabase(self.path / _FILE, timeout_s=timeout_s)

    def scores_of(self, settings: Settings, pairs: HashedPairs) -> Scores:
        """Looks up scores.

        Args:
            settings: All that changes a score; what JSON can hold.
            pairs: ``HashedPairs.of(queries, texts)``.

        Returns:
            float32 (n,), in the order of the pairs; NaN where there is none.

        Raises:
            InputError: ``settings`` are not what JSON can hold.
            StoreError: The file is locked, damaged or not a store.
        """
        return self.look_up(settings, pairs)[0]

    def look_up(self, settings: Settings, pairs: HashedPairs) -> tuple[Scores, Cut]:
        """Looks up scores as `scores_of` does, and what was cut of their pairs: bool (2, n), query and text."""
        return self._database.find(_settings_text(settings), pairs)

    def add(self, settings: Settings, pairs: HashedPairs, scores: Scores, *, cut: Cut | None = None) -> None:
        """Stores scores in one transaction. A stored score is replaced, and one that is not finite is left out.

        Args:
            settings: All that changes a score; what JSON can hold.
            pairs: ``HashedPairs.of(queries, texts)``.
            scores: float32 (n,), in the order of the pairs.
            cut: bool (2, n), whether each query and each text was cut. None: nothing was.

        Raises:
            InputError: There is not one score for each pair, or ``settings`` are not what JSON can hold.
            StoreError: The disk is full, or the file is locked, damaged or not to be written. Nothing of this call is
                then stored, and all that was stored before is.
        """
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape != (len(pairs),):
            raise InputError(f"expected one score for each of {len(pairs)} pairs, got scores of shape {scores.shape}")
        cut = np.zeros((2, len(pairs)), dtype=np.bool_) if cut is None else cut
        self._writable().write(_settings_text(settings), pairs, scores, cut)

    def merge(self, other: ScoreStore | str | os.PathLike[str]) -> int:
        """Adds all scores of another store; of pairs that are in both, this store's stay.

        Interrupted, it keeps what was added so far and can be run again.

        Returns:
            How many were added.

        Raises:
            StoreError: There is no store in the other folder; or as in `add`.
        """
        other = other if isinstance(other, ScoreStore) else ScoreStore(other)
        if not other._database.exists:
            raise StoreError(f"{other.path} is no score store: expected a folder with a file {_FILE}")
        if self == other:
            return 0
        return self._writable().merge(other._database)

    def export(self, file: str | os.PathLike[str]) -> int:
        """Writes all scores to a Parquet file.

        Its columns are ``settings`` (JSON), ``query`` and ``text`` (16 bytes each, BLAKE2b of the string in UTF-8),
        ``score`` (float32), ``query_cut`` and ``text_cut`` (bool, whether they were too long).

        Returns:
            How many rows were written.

        Raises:
            MissingExtraError: pyarrow is not installed.
            StoreError: As in `scores_of`.
        """
        from pyterrier_bertcat.store.export import write_parquet

        return write_parquet(self._database, Path(file))

    def settings(self) -> pd.DataFrame:
        """What is stored: a row for each settings, with their facts, then ``queries`` and ``pairs`` as counts."""
        counts = self._database.counts()
        try:
            rows = [{**json.loads(facts), "queries": queries, "pairs": pairs} for facts, queries, pairs in counts]
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.path}: the store is damaged, its settings can't be read: delete it") from error
        summary: pd.DataFrame = pd.DataFrame(rows, columns=None if rows else ["queries", "pairs"])
        return summary

    def recall(self, name: str) -> str | None:
        """What `remember` was given last for this name, or None."""
        return self._database.note(name)

    def remember(self, name: str, value: str) -> None:
        """Keeps a fact that takes long to find, such as the fingerprint of a folder with known files."""
        self._writable().set_note(name, value)

    def close(self) -> None:
        """Closes the file, so that it can be copied alone; the next use opens it again."""
        self._database.file.close()

    def __len__(self) -> int:
        return sum(pairs for _, _, pairs in self._database.counts())

    def __bool__(self) -> bool:
        return True  # a store is there, also while it is empty

    def __getstate__(self) -> dict[str, Any]:
        return self._options()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _identity(self) -> dict[str, Any]:
        return {**super()._identity(), "path": str(self.path)}

    def _writable(self) -> ScoreDatabase:
        """The database, after making the folder that says what it is."""
        meta = self.path / _META_FILE
        try:
            if not meta.exists():
                self.path.mkdir(parents=True, exist_ok=True)
                with pt.io.finalized_open(str(meta), "t") as file:
                    file.write(json.dumps(self._build_metadata()) + "\n")
        except OSError as error:
            raise StoreError(f"can't make a score store in the folder {self.path}: {error}") from error
        return self._database

    def _package_files(self) -> Iterator[tuple[str, str | BytesIO]]:
        """What `build_package` and ``to_hf`` take: one view of the file, whoever writes to it meanwhile."""
        self._writable()
        with TemporaryDirectory() as scratch:
            copy = Path(scratch) / _FILE
            self._database.copy(copy)
            yield _META_FILE, str(self.path / _META_FILE)
            yield _FILE, str(copy)


def _settings_text(settings: Settings) -> str:
    """Equal settings as the same text."""
    try:
        return json.dumps(dict(settings), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"settings is a mapping of what JSON can hold, got {settings!r}: {error}") from error
