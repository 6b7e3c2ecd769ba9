"""The figures of a scoring run, and the wording of every warning about pairs that were cut."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyterrier_bertcat.errors import TruncationWarning, warn

if TYPE_CHECKING:
    from pyterrier_bertcat.pairs.passages import Passages

Activity = Literal["scoring", "training", "command"]
_FOR_QUERIES = "shorten the queries, or keep more of them with max_query_length, max_length or another truncation"
# What helps queries, and what helps texts. "command" names the options of the command line.
_ADVICE: dict[Activity, tuple[str, str]] = {
    "scoring": (_FOR_QUERIES, "passages=Passages() scores documents whole"),
    "training": (
        "shorten the queries, or keep more of them with max_length (--max-length)",
        "training reads the beginning of each text: keep more of it with max_length (--max-length), or train on "
        "passages (pt.text.sliding)",
    ),
    "command": (
        "shorten the queries, or keep more of them with --max-length or another --truncation",
        "--passages scores documents whole",
    ),
}


@dataclass
class RunStatistics:
    """Figures of one call, filled in while it runs.

    Attributes:
        pairs: Pairs in the input.
        from_store: Pairs whose scores came from a store.
        distinct_pairs: Different pairs among the rest. Each was scored once.
        rows: Rows that the model read: pairs, or queries with passages.
        tokens: Tokens of these rows, with special tokens and without padding.
        padding_share: Padding as a share of everything that the model read, 0 to 1.
        truncated_pairs: Pairs of the input whose query or text was cut, including pairs from a store.
        truncated_queries: Pairs whose query was cut.
        truncated_texts: Pairs whose text was cut.
        tokens_lost: Tokens that were cut off, in the pairs that were scored now.
        seconds: The whole run.
        tokenising_seconds: Spent on tokens and batches. Part of a large input is tokenised while another is scored.
        scoring_seconds: Spent in the model.
        peak_memory_mb: The most memory that this process has used so far, in MB: tensors on a CUDA device, or else all
            memory. None if the system does not tell.
        device: Where the model ran.
        dtype: Precision of the encoder.
        max_length: The most tokens per pair, whether you asked for them or the checkpoint states them. None if all
            scores came from a store.
        batch_tokens: The most tokens per batch at the end of the run.
        back_offs: How often a batch did not fit in memory and was divided.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> bertcat = BertCatReRanker("mini", max_length=16, device="cpu", verbose=False)
        >>> texts = ["Copy a file.", "Copy a file. " * 10]
        >>> _ = bertcat.scorer.score(["copy a folder"] * 2, texts)
        >>> statistics = bertcat.scorer.stats  # of frames: bertcat.stats
        >>> statistics.truncated_pairs, statistics.tokens_lost
        (1, 30)
    """

    pairs: int = 0
    from_store: int = 0
    distinct_pairs: int = 0
    rows: int = 0
    tokens: int = 0
    padding_share: float = 0.0
    truncated_pairs: int = 0
    truncated_queries: int = 0
    truncated_texts: int = 0
    tokens_lost: int = 0
    seconds: float = 0.0
    tokenising_seconds: float = 0.0
    scoring_seconds: float = 0.0
    peak_memory_mb: float | None = None
    device: str = ""
    dtype: str = ""
    max_length: int | None = None
    batch_tokens: int = 0
    back_offs: int = 0

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to the figure of this name. One thread at a time may use a figure."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    @property
    def pairs_per_second(self) -> float:
        """Pairs of the input per second; 0 before the run has ended."""
        return self.pairs / self.seconds if self.seconds else 0.0

    @property
    def truncated_share(self) -> float:
        """The share of pairs whose query or text was cut, 0 to 1."""
        return self.truncated_pairs / self.pairs if self.pairs else 0.0

    def count_cut(self, cut: NDArray[np.bool_]) -> None:
        """Counts cut pairs: bool (2, n), whether each query and each text was cut."""
        self.truncated_queries += int(cut[0].sum())
        self.truncated_texts += int(cut[1].sum())
        self.truncated_pairs += int(cut.any(axis=0).sum())

    def include(self, other: RunStatistics) -> None:
        """Adds the pairs of another run, and how many of them were cut."""
        for name in ("pairs", "truncated_pairs", "truncated_queries", "truncated_texts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def to_dataframe(self) -> pd.DataFrame:
        """One row with a column per figure, so that the rows of several runs can be concatenated."""
        table: pd.DataFrame = pd.DataFrame([self._figures()])
        return table

    def __repr__(self) -> str:
        described = self._described()
        width = max(map(len, described))
        return "\n".join(f"{label:<{width}}  {text}" for label, text in described.items())

    def _repr_html_(self) -> str:
        table: pd.DataFrame = pd.DataFrame({"": self._described()})
        with pd.option_context("display.max_colwidth", None):
            html: str = table.to_html(header=False)
        return html

    def _described(self) -> dict[str, str]:
        """The figures for people, by what they are about."""
        scored = _count(self.distinct_pairs, "different pair")
        stored = f", {self.from_store:,} of them from a store" if self.from_store else ""
        described = {
            "pairs": f"{self.pairs:,} in {_shown(self.seconds)} s: {_shown(self.pairs_per_second)} per second{stored}",
            "cut": "none",
        }
        if self.truncated_pairs:
            queries, texts = _count(self.truncated_queries, "query", "queries"), _count(self.truncated_texts, "text")
            described["cut"] = (
                f"{_count(self.truncated_pairs, 'pair')} ({self.truncated_share:.1%}): {queries} and {texts}"
            )
            if self.tokens_lost:
                described["cut"] += f", which lost {_count(self.tokens_lost, 'token')}"
        if self.rows:
            limit = f", each at most {self.max_length:,} long" if self.max_length else ""
            padding = f"; {self.padding_share:.0%} of what the model read was padding" if self.padding_share else ""
            rows = f"{_count(self.rows, 'row')} with {_count(self.tokens, 'token')} in all{limit}{padding}"
            described |= {
                "scored": f"{scored}, read in {rows}",
                "time": f"{_shown(self.scoring_seconds)} s in the model, {_shown(self.tokenising_seconds)} s on tokens",
                "device": f"{self.device} in {self.dtype}, in batches of up to {_count(self.batch_tokens, 'token')}",
            }
            if self.back_offs:
                described["device"] += f"; {_count(self.back_offs, 'batch', 'batches')} did not fit in memory"
        if self.peak_memory_mb is not None:
            described["memory"] = f"{_shown(self.peak_memory_mb)} MB at most so far"
        return described

    def _figures(self) -> dict[str, Any]:
        return {**asdict(self), "pairs_per_second": self.pairs_per_second, "truncated_share": self.truncated_share}


def truncation_message(
    statistics: RunStatistics, *, passages: Passages | None, activity: Activity = "scoring"
) -> str | None:
    """Says how many pairs were cut and what helps; None if at most 1 % were.

    Args:
        statistics: Of the run.
        passages: How documents were divided into passages. ``aggregate="first"`` leaves text out on purpose, so only
            cut queries count.
        activity: Whose options the advice names.
    """
    pairs, queries, texts = statistics.truncated_pairs, statistics.truncated_queries, statistics.truncated_texts
    if passages is not None and passages.aggregate == "first":
        pairs, texts = queries, 0
    if 100 * pairs <= statistics.pairs:
        return None
    for_queries, for_texts = _ADVICE[activity]
    if passages is not None:  # a text loses tokens only if its query leaves no room for any
        advice = for_queries
    else:
        advice = "; ".join([for_texts] * bool(texts) + [for_queries] * bool(queries))
    return (
        f"{pairs:,} of {statistics.pairs:,} pairs were too long and were cut "
        f"(queries: {queries:,}, texts: {texts:,}): {advice}"
    )


def warn_of_truncation(
    statistics: RunStatistics, *, passages: Passages | None, activity: Activity = "scoring", stacklevel: int
) -> None:
    """Warns with the `truncation_message`, if there is one; ``stacklevel`` counts from the caller."""
    message = truncation_message(statistics, passages=passages, activity=activity)
    if message is not None:
        warn(message, TruncationWarning, stacklevel=stacklevel + 1)


def _shown(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
