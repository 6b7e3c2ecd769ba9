"""Pairs by their content: 128-bit hashes of queries and texts, and records of scores with a check over all of it.

A hash is BLAKE2b with 16 bytes of the whole string in UTF-8, its length included, so two different texts share one
with a probability of 2^-128, and ids, titles or the order of a frame play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECORD = np.dtype([("text", "<u8", (2,)), ("score", "<f4"), ("check", "<u4")])
"""A stored score: the text's hash, the score bit by bit, and 30 bits of check over both, the query's hash and the
settings. The two lowest bits of ``check`` say whether the query and the text were cut."""

_MULTIPLIERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))  # odd, so that no bit is lost
_HALF = np.uint64(32)
_CUT_BITS = np.uint32(0b11)


@dataclass(frozen=True)
class HashedPairs:
    """Pairs of query and text, each string replaced by its hash.

    Attributes:
        queries: The hashes of the distinct queries, 16 bytes each, in order of first appearance.
        query: int64 (n,), which of them each pair has.
        texts: uint64 (n, 2), the hash of each pair's text in two halves.
    """

    queries: list[bytes]
    query: NDArray[np.int64]
    texts: NDArray[np.uint64]

    @classmethod
    def of(cls, queries: Sequence[str], texts: Sequence[str]) -> HashedPairs:
        """Hashes ``queries[i]`` with ``texts[i]``: twice n strings, lone surrogates too."""
        texts = list(texts)  # holds all objects, so that no two of them can have the same id
        number: dict[str, int] = {}
        query = np.fromiter((number.setdefault(query, len(number)) for query in queries), np.int64, len(queries))
        # A frame that has a text many times has one object many times, which is quicker to see than equal strings.
        identities = np.fromiter(map(id, texts), np.int64, len(texts))
        _, first, place = np.unique(identities, return_index=True, return_inverse=True)
        hashes = b"".join([_hash(texts[row]) for row in first.tolist()])
        return cls([_hash(query) for query in number], query, np.frombuffer(hashes, "<u8").reshape(-1, 2)[place])

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, rows: NDArray[np.int64]) -> HashedPairs:
        """Some of the pairs, with the same numbers for the queries."""
        return HashedPairs(self.queries, self.query[rows], self.texts[rows])


def salts_of(queries: Sequence[bytes], settings: str) -> NDArray[np.uint64]:
    """uint64 (n,): a number for each of n queries' hashes under these settings, which goes into its records' checks."""
    halves = np.frombuffer(b"".join(queries), "<u8").reshape(-1, 2)
    of_settings = np.frombuffer(blake2b(settings.encode(), digest_size=8).digest(), "<u8")
    return _mixed(_mixed(halves[:, 0] ^ of_settings) ^ halves[:, 1])


def records_of(
    texts: NDArray[np.uint64], scores: NDArray[np.float32], cut: NDArray[np.bool_], salts: NDArray[np.uint64]
) -> NDArray[Any]:
    """Records, `RECORD` (n,), of n scores.

    Args:
        texts: uint64 (n, 2), hashes of the texts.
        scores: float32 (n,).
        cut: bool (2, n), whether each query and each text was cut.
        salts: uint64 (n,), of each pair's query.
    """
    records = np.empty(len(scores), dtype=RECORD)
    records["text"], records["score"] = texts, scores
    records["check"] = _checks(records, cut[0] + cut[1] * np.uint32(2), salts)
    return records


def cut_of(records: NDArray[Any]) -> NDArray[np.bool_]:
    """Bool (2, n): whether the query and the text of each record, `RECORD` (n,), were cut."""
    return np.stack([records["check"] & 1, records["check"] >> 1 & 1]).astype(np.bool_)


def are_right(records: NDArray[Any], salts: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which records, `RECORD` (n,), are as they were made, for this query under these settings: bool (n,).

    A record of another query or other settings, or with a changed bit, passes with a probability of 2^-30.
    """
    checks = _checks(records, records["check"] & _CUT_BITS, salts)
    right: NDArray[np.bool_] = (records["check"] == checks) & np.isfinite(records["score"])
    return right


def _checks(records: NDArray[Any], cut: NDArray[np.uint32], salts: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The checks of records, uint32 (n,), with what was cut, 0 to 3, in the two lowest bits."""
    mixed = _mixed(_mixed(records["text"][:, 0] ^ salts) ^ records["text"][:, 1])
    mixed = _mixed(mixed ^ records["score"].view("<u4") ^ (cut.astype(np.uint64) << _HALF))
    checks: NDArray[np.uint32] = mixed.astype(np.uint32) & ~_CUT_BITS | cut
    return checks


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads each bit of 64 over all; different values stay different."""
    for multiplier in _MULTIPLIERS:
        values = values * multiplier
        values ^= values >> _HALF
    return values


def _hash(string: str) -> bytes:
    return blake2b(string.encode("utf-8", "surrogatepass"), digest_size=16).digest()
