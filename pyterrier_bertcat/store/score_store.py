"""``ScoreStore``: keeps scores on disk by content, so that no pair is scored twice and a killed job can continue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import InputError, MissingExtraError, StoreError
from pyterrier_bertcat.identity import IdentifiedByOptions
from pyterrier_bertcat.store.database import Cut, ScoreDatabase, Scores
from pyterrier_bertcat.store.pair_hashes import HashedPairs

_FILE = "scores.sqlite3"
_META_FILE = "pt_meta.json"
_QUERIES_PER_ROW_GROUP = 256
# What a ``repr`` shows.
_MOST_COUNTED, _MOST_SETTINGS, _DIGITS = 1_000_000, 5, 8
_FINGERPRINT = 64  # digits

Settings = Mapping[str, Any]


class ScoreStore(IdentifiedByOptions, pt.Artifact):  # type: ignore[misc]
    """Scores on disk, found by settings and by the content of query and text.

    ``settings`` is a mapping of everything that can change a score besides the pair: the checkpoint's fingerprint, the
    most tokens, the precision, and so on. Scores come back, bit by bit, for equal settings only. Ids play no part, so
    one store serves many collections and pipelines. Texts are not kept, only their 128-bit hashes.

    The store is a folder with one SQLite file in WAL mode, about 40 bytes per pair. Any number of threads and processes
    of one machine may read and write it at once; writers take turns. Over a network file system only one machine may
    use it at a time: give each its own store, and `merge` them. A process that is killed leaves everything that it had
    committed. A damaged file gives an error or fewer scores, but never a wrong score: each is stored with a check.

    Nothing is read before the first use, and nothing is made before the first write. A ``repr`` says how many scores
    there are (it counts up to a million) and by which settings. Stores are equal if their paths are, and pickle as
    their path. Share one with ``store.to_hf(...)`` and ``ScoreStore.from_hf(...)``.

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
            settings: Everything that can change a score, as JSON values.
            pairs: ``HashedPairs.of(queries, texts)``.

        Returns:
            float32 (n,), in the order of the pairs; NaN if no score is stored.

        Raises:
            InputError: ``settings`` has values that JSON can't hold.
            StoreError: The file is locked, damaged, of another release's format, or not a store.
        """
        return self.look_up(settings, pairs)[0]

    def look_up(self, settings: Settings, pairs: HashedPairs) -> tuple[Scores, Cut]:
        """Looks up scores as `scores_of` does, and whether each query and each text was cut: bool (2, n)."""
        return self._database.find(_settings_text(settings), pairs)

    def add(self, settings: Settings, pairs: HashedPairs, scores: Scores, *, cut: Cut | None = None) -> None:
        """Stores scores in one transaction. They replace stored ones; those that are not finite are left out.

        Args:
            settings: As for `scores_of`.
            pairs: As for `scores_of`.
            scores: float32 (n,), in the order of the pairs.
            cut: bool (2, n), whether each query and each text was cut. None: none was.

        Raises:
            InputError: The shapes don't fit, or ``settings`` has values that JSON can't hold.
            StoreError: As for `scores_of`, or the disk is full, or the file can't be written. Then nothing of this call
                is stored, and everything from before still is.
        """
        scores = np.asarray(scores, dtype=np.float32)
        cut = np.zeros((2, len(pairs)), dtype=np.bool_) if cut is None else np.asarray(cut, dtype=np.bool_)
        if scores.shape != (len(pairs),) or cut.shape != (2, len(pairs)):
            raise InputError(
                f"expected scores ({len(pairs)},) and cut (2, {len(pairs)}) for {len(pairs)} pairs, "
                f"got the shapes {scores.shape} and {cut.shape}"
            )
        self._writable().write(_settings_text(settings), pairs, scores, cut)

    def merge(self, other: ScoreStore | str | os.PathLike[str]) -> int:
        """Adds the scores of another store. Pairs that are in both keep this store's score.

        If it is interrupted, what was added stays, and you can run it again.

        Returns:
            How many scores were added.

        Raises:
            StoreError: The other folder has no store; or as for `add`.
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
            StoreError: As for `scores_of`.
        """
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingExtraError("pyarrow", extra="parquet") from error

        types = {"settings": pa.dictionary(pa.int32(), pa.string()), "query": pa.binary(16), "text": pa.binary(16)}
        schema = pa.schema({**types, "score": pa.float32(), "query_cut": pa.bool_(), "text_cut": pa.bool_()})
        written, everything = 0, self._database.everything()
        with pq.ParquetWriter(Path(file), schema) as writer:
            while some := list(islice(everything, _QUERIES_PER_ROW_GROUP)):
                settings, pairs, scores, cut = zip(*some, strict=True)
                counts = [len(one) for one in pairs]
                columns = [
                    np.repeat(np.array(settings, dtype=object), counts),
                    np.repeat(np.array([one.queries[0] for one in pairs], dtype=object), counts),
                    [text.tobytes() for one in pairs for text in one.texts],
                    np.concatenate(scores),
                    *np.concatenate(cut, axis=1),
                ]
                writer.write_table(pa.table(columns, schema=schema))
                written += sum(counts)
        return written

    def settings(self) -> pd.DataFrame:
        """Counts what is stored: a row per settings, with their facts as columns, then ``queries`` and ``pairs``."""
        counts = self._database.counts()
        try:
            rows = [{**json.loads(facts), "queries": queries, "pairs": pairs} for facts, queries, pairs in counts]
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.path}: the store is damaged, its settings can't be read: delete it") from error
        summary: pd.DataFrame = pd.DataFrame(rows, columns=None if rows else ["queries", "pairs"])
        return summary

    def recall(self, name: str) -> str | None:
        """Returns what `remember` stored last under this name, or None."""
        return self._database.note(name)

    def remember(self, name: str, value: str) -> None:
        """Stores a fact that takes long to find, such as the fingerprint of a checkpoint's files."""
        self._writable().set_note(name, value)

    def close(self) -> None:
        """Closes the file, so that you can copy it. The next use opens it again."""
        self._database.file.close()

    def __repr__(self) -> str:
        name = super().__repr__()
        try:
            scores, settings = self._database.outline(most=_MOST_COUNTED)
        except StoreError as error:
            return f"{name}: can't be read ({error})"
        if not self._database.exists:
            return name
        counted = f"{scores:,}" if scores <= _MOST_COUNTED else f"more than {_MOST_COUNTED:,}"
        lines = [f"{name}: {counted} score{'s' * (scores != 1)}"]
        lines += [
            f"  {queries:,} {'query' if queries == 1 else 'queries'}: {_described(facts)}"
            for facts, queries in settings[:_MOST_SETTINGS]
        ]
        if (more := len(settings) - _MOST_SETTINGS) > 0:
            lines.append(f"  and {more} more settings: settings() lists them all")
        return "\n".join(lines)

    def __len__(self) -> int:
        return sum(pairs for _, _, pairs in self._database.counts())

    def __bool__(self) -> bool:
        return True  # an empty store is a store too

    def __getstate__(self) -> dict[str, Any]:
        return self._options()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _identity(self) -> dict[str, Any]:
        return {**super()._identity(), "path": str(self.path)}

    def _writable(self) -> ScoreDatabase:
        """The database, after making its folder with PyTerrier's metadata."""
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
        """The files for `build_package` and ``to_hf``: a copy of the database as it is now."""
        self._writable()
        with TemporaryDirectory() as scratch:
            copy = Path(scratch) / _FILE
            self._database.copy(copy)
            yield _META_FILE, str(self.path / _META_FILE)
            yield _FILE, str(copy)


def _described(settings: str) -> str:
    """Settings for people: the facts that are set, and of a fingerprint only the first digits."""
    try:
        facts: dict[str, Any] = json.loads(settings)
        single = [pair for fact in facts.items() for pair in (fact[1].items() if isinstance(fact[1], dict) else [fact])]
    except (ValueError, TypeError, AttributeError):
        return "damaged settings"
    shown = [(name, str(value)) for name, value in single if value is not None]
    return ", ".join(
        f"{name} {value[:_DIGITS] + '…' if len(value) == _FINGERPRINT else value}" for name, value in shown
    )


def _settings_text(settings: Settings) -> str:
    """Settings as JSON. Equal settings give the same text."""
    try:
        return json.dumps(dict(settings), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"settings is a mapping of JSON values, got {settings!r}: {error}") from error
