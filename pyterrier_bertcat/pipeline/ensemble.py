"""``MeanReRanker``: a transformer that averages several re-rankers' scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import InputError, TruncationWarning, warn
from pyterrier_bertcat.identity import IdentifiedByOptions
from pyterrier_bertcat.pipeline.frames import MissingText, query_text_pairs, ranked
from pyterrier_bertcat.pipeline.plain_texts import RankedText, rank
from pyterrier_bertcat.scoring.statistics import RunStatistics, truncation_message

if TYPE_CHECKING:
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer


class Member(Protocol):
    """The part of a ``BertCatReRanker`` that an ensemble uses."""

    text_field: str
    missing_text: MissingText
    depth: int | None
    extra_columns: Sequence[str]
    store: object

    @property
    def scorer(self) -> PairScorer:
        """Scores pairs of strings."""


class MeanReRanker(IdentifiedByOptions, pt.Transformer):  # type: ignore[misc]
    """Averages the scores of several re-rankers; ``BertCatReRanker.mean`` makes one.

    It reads and returns the same columns as its members. As a teacher for ``fit``, with three members, it is the
    paper's T2.

    Source: Hofstätter et al. 2020, arXiv 2010.02666, section 3.2.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> BertCatReRanker.mean([BertCatReRanker("mini"), BertCatReRanker("mini", max_length=128)])
        MeanReRanker((BertCatReRanker('mini'), BertCatReRanker('mini', max_length=128)))
    """

    _stats: tuple[RunStatistics, ...]

    def __init__(self, rerankers: Sequence[Member]) -> None:
        """Keeps the members, and loads nothing.

        Args:
            rerankers: One or more ``BertCatReRanker``.

        Raises:
            InputError: The list is empty or holds something else; or the members differ in ``text_field`` or
                ``missing_text``, or use ``depth``, ``extra_columns`` or ``store``.
        """
        self.rerankers = tuple(rerankers)
        self._stats = ()
        if not self.rerankers:
            raise InputError("an ensemble needs at least one re-ranker, got none")
        if others := [one for one in self.rerankers if not hasattr(type(one), "scorer")]:
            raise InputError(
                f"the members of an ensemble are BertCatReRankers, got {others[0]!r}; "
                "for other transformers, use PyTerrier's own sum: 0.5 * one + 0.5 * two"
            )
        for name in ("text_field", "missing_text"):
            values = {getattr(reranker, name) for reranker in self.rerankers}
            if len(values) > 1:
                raise InputError(f"the members of an ensemble need the same {name}, got {sorted(values)}")
        if any(reranker.depth is not None or reranker.extra_columns or reranker.store for reranker in self.rerankers):
            raise InputError(
                "an ensemble uses only the scores of its members: leave depth, extra_columns and store out of them"
            )

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Re-ranks a result frame, with the columns and errors of `BertCatReRanker.transform`."""
        first = self.rerankers[0]
        pt.validate.result_frame(inp, extra_columns=["query", first.text_field])
        queries, texts = query_text_pairs(inp, text_field=first.text_field, missing_text=first.missing_text)
        if not queries:
            return ranked(inp, np.empty(0, dtype=np.float32))
        scorers = [member.scorer for member in self.rerankers]
        scores = [scorer.score_in_detail(queries, texts).scores for scorer in scorers]
        self._stats = tuple(scorer.stats or RunStatistics() for scorer in scorers)
        warned = [
            truncation_message(stats, passages=scorer.passages)
            for scorer, stats in zip(scorers, self._stats, strict=True)
        ]
        for message in filter(None, dict.fromkeys(warned)):  # members that cut the same pairs say so once
            warn(message, TruncationWarning, stacklevel=2)
        return ranked(inp, np.array(scores).mean(axis=0, dtype=np.float64).astype(np.float32))

    def rank(self, query: str, texts: Iterable[str]) -> list[RankedText]:
        """Ranks a plain list of strings, as `BertCatReRanker.rank`."""
        return rank(self, query, texts)

    @property
    def text_field(self) -> str:
        """The column with the documents' text, the same for all members."""
        return self.rerankers[0].text_field

    def load(self) -> MeanReRanker:
        """Loads all members now, so that a timed experiment does not count it; returns self."""
        for member in self.rerankers:
            _ = member.scorer
        return self

    @property
    def stats(self) -> tuple[RunStatistics, ...]:
        """As `BertCatReRanker.stats`, one for each member; empty before the first frame."""
        return self._stats

    def __getstate__(self) -> dict[str, Any]:
        return {**self._options(), "_stats": ()}

    def schematic(self, *, input_columns: list[str] | None = None) -> dict[str, Any]:
        """Draws how many models there are, and shows each with its options beside it (``pt.schematic``)."""
        count = len(self.rerankers)
        return {
            "label": f"mean of {count} model{'s' * (count > 1)}",
            "settings": {f"model {number}": repr(one) for number, one in enumerate(self.rerankers, start=1)},
            "help_url": "https://arxiv.org/abs/2010.02666",
        }

    def subtransformers(self) -> dict[str, pt.Transformer]:
        """Empty, so that ``pt.inspect`` doesn't show the members as steps of a pipeline."""
        return {}
