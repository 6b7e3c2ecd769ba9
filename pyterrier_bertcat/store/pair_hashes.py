"""Pairs identified by content: 128-bit hashes of queries and texts, and records of scores with a check.

A hash is 16 bytes of BLAKE2b over the whole string in UTF-8, so two different texts share a hash with a probability of
2^-128. Ids, titles and the order of a frame play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECORD = np.dtype([("text", "<u8", (2,)), ("score", "<f4"), ("check", "<u4")])
"""A stored score: the text's hash, the score, and a check in whose two lowest bits is whether query and text were cut.

The other 30 bits are a checksum over all of that, the query's hash and the settings.
"""

_MULTIPLIERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))  # odd, so no bit is lost
_HALF = np.uint64(32)
_CUT_BITS = np.uint32(0b11)


@dataclass(frozen=True)
class HashedPairs:
    """Pairs of query and text, each string replaced by its hash.

    Attributes:
        queries: The hashes of the distinct queries, 16 bytes each, in order of first appearance.
        query: int64 (n,), each pair's position in ``queries``.
        texts: uint64 (n, 2), the hash of each pair's text in two halves.
    """

    queries: list[bytes]
    query: NDArray[np.int64]
    texts: NDArray[np.uint64]

    @classmethod
    def of(cls, queries: Sequence[str], texts: Sequence[str]) -> HashedPairs:
        """Hashes the pairs of ``queries[i]`` with ``texts[i]``, n of each. Lone surrogates are allowed."""
        texts = list(texts)  # keeps every object alive, so no two can have the same id
        number: dict[str, int] = {}
        query = np.fromiter((number.setdefault(query, len(number)) for query in queries), np.int64, len(queries))
        # A text that occurs many times in a frame is usually one object, and ids compare faster than strings.
        identities = np.fromiter(map(id, texts), np.int64, len(texts))
        _, first, place = np.unique(identities, return_index=True, return_inverse=True)
        hashes = b"".join([_hash(texts[row]) for row in first.tolist()])
        return cls([_hash(query) for query in number], query, np.frombuffer(hashes, "<u8").reshape(-1, 2)[place])

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, rows: NDArray[np.int64]) -> HashedPairs:
        """Selects pairs by position, with the same ``queries``."""
        return HashedPairs(self.queries, self.query[rows], self.texts[rows])


def salts_of(queries: Sequence[bytes], settings: str) -> NDArray[np.uint64]:
    """Mixes each query's hash with the settings, for the checks of its records: uint64 (n,)."""
    halves = np.frombuffer(b"".join(queries), "<u8").reshape(-1, 2)
    of_settings = np.frombuffer(blake2b(settings.encode(), digest_size=8).digest(), "<u8")
    return _mixed(_mixed(halves[:, 0] ^ of_settings) ^ halves[:, 1])


def records_of(
    texts: NDArray[np.uint64], scores: NDArray[np.float32], cut: NDArray[np.bool_], salts: NDArray[np.uint64]
) -> NDArray[Any]:
    """Makes records, `RECORD` (n,).

    Args:
        texts: uint64 (n, 2), hashes of the texts.
        scores: float32 (n,).
        cut: bool (2, n), whether each query and each text was cut.
        salts: uint64 (n,), of each pair's query; see `salts_of`.
    """
    records = np.empty(len(scores), dtype=RECORD)
    records["text"], records["score"] = texts, scores
    records["check"] = _checks(records, cut[0] + cut[1] * np.uint32(2), salts)
    return records


def cut_of(records: NDArray[Any]) -> NDArray[np.bool_]:
    """Reads from records, `RECORD` (n,), whether each query and each text was cut: bool (2, n)."""
    return np.stack([records["check"] & 1, records["check"] >> 1 & 1]).astype(np.bool_)


def are_right(records: NDArray[Any], salts: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tells which records, `RECORD` (n,), are undamaged and belong to this query and these settings: bool (n,).

    Any other record passes with a probability of 2^-30.
    """
    checks = _checks(records, records["check"] & _CUT_BITS, salts)
    right: NDArray[np.bool_] = (records["check"] == checks) & np.isfinite(records["score"])
    return right


def _checks(records: NDArray[Any], cut: NDArray[np.uint32], salts: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The checks of records, uint32 (n,). ``cut`` (0 to 3) goes into the two lowest bits."""
    mixed = _mixed(_mixed(records["text"][:, 0] ^ salts) ^ records["text"][:, 1])
    mixed = _mixed(mixed ^ records["score"].view("<u4") ^ (cut.astype(np.uint64) << _HALF))
    checks: NDArray[np.uint32] = mixed.astype(np.uint32) & ~_CUT_BITS | cut
    return checks


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads each of the 64 bits over all others. Different values stay different."""
    for multiplier in _MULTIPLIERS:
        values = values * multiplier
        values ^= values >> _HALF
    return values


def _hash(string: str) -> bytes:
    return blake2b(string.encode("utf-8", "surrogatepass"), digest_size=16).digest()
