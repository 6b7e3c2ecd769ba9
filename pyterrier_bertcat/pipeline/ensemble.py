"""The mean of several re-rankers' scores, as one transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pandas as pd
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.identity import IdentifiedByOptions
from pyterrier_bertcat.pipeline.frames import MissingText, query_text_pairs, ranked
from pyterrier_bertcat.scoring.statistics import RunStatistics, warn_of_truncation

if TYPE_CHECKING:
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer


class Member(Protocol):
    """What an ensemble asks of a ``BertCatReRanker``."""

    text_field: str
    missing_text: MissingText
    depth: int | None
    extra_columns: Sequence[str]
    store: object

    @property
    def scorer(self) -> PairScorer:
        """What scores the pairs."""


class MeanReRanker(IdentifiedByOptions, pt.Transformer):  # type: ignore[misc]
    """Scores by the mean of several re-rankers' scores; made by ``BertCatReRanker.mean``.

    Reads and returns the same columns as its members. As a teacher for ``fit`` it is the paper's T2, a mean of three.

    Source: Hofstätter et al. 2020, arXiv 2010.02666, section 3.2.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> BertCatReRanker.mean([BertCatReRanker("mini"), BertCatReRanker("mini", max_length=128)])
        MeanReRanker((BertCatReRanker('mini'), BertCatReRanker('mini', max_length=128)))
    """

    _stats: tuple[RunStatistics, ...]
    schematic: ClassVar[dict[str, str]] = {"label": "mean of BERT_Cats", "help_url": "https://arxiv.org/abs/2010.02666"}

    def __init__(self, rerankers: Sequence[Member]) -> None:
        """Keeps the members, and loads nothing.

        Args:
            rerankers: At least one.

        Raises:
            InputError: There is none, one is something else, or they don't agree in ``text_field`` or ``missing_text``,
                or use ``depth``, ``extra_columns`` or ``store``.
        """
        self.rerankers = tuple(rerankers)
        self._stats = ()
        if not self.rerankers:
            raise InputError("an ensemble has at least one re-ranker, got none")
        if others := [one for one in self.rerankers if not hasattr(type(one), "scorer")]:
            raise InputError(
                f"the members of an ensemble are BertCatReRankers, got {others[0]!r}; "
                "PyTerrier adds up the scores of other transformers: 0.5 * one + 0.5 * two"
            )
        for name in ("text_field", "missing_text"):
            values = {getattr(reranker, name) for reranker in self.rerankers}
            if len(values) > 1:
                raise InputError(f"the members of an ensemble have the same {name}, got {sorted(values)}")
        if any(reranker.depth is not None or reranker.extra_columns or reranker.store for reranker in self.rerankers):
            raise InputError(
                "an ensemble takes nothing but scores of its members: leave depth, extra_columns, store out"
            )

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Re-ranks a result frame; what goes in, what comes out and which errors there are: as for the members."""
        first = self.rerankers[0]
        pt.validate.result_frame(inp, extra_columns=["query", first.text_field])
        queries, texts = query_text_pairs(inp, text_field=first.text_field, missing_text=first.missing_text)
        if not queries:
            return ranked(inp, np.empty(0, dtype=np.float32))
        scores = self.scores(queries, texts)
        for member, statistics in zip(self.rerankers, self._stats, strict=True):
            warn_of_truncation(statistics, passages=member.scorer.passages, stacklevel=2)
        return ranked(inp, scores)

    def load(self) -> MeanReRanker:
        """Loads all members now, so that a timed experiment does not count it; returns self."""
        for member in self.rerankers:
            _ = member.scorer
        return self

    @property
    def stats(self) -> tuple[RunStatistics, ...]:
        """What the last frame took, as `BertCatReRanker.stats`: one for each member, none before the first frame."""
        return self._stats

    def scores(self, queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """Averages the members' scores of ``queries[i]`` with ``texts[i]``: twice n checked strings -> float32 (n,)."""
        scorers = [member.scorer for member in self.rerankers]
        scores = [scorer.score_in_detail(queries, texts).scores for scorer in scorers]
        self._stats = tuple(scorer.stats or RunStatistics() for scorer in scorers)
        mean: NDArray[np.float64] = np.mean(scores, axis=0, dtype=np.float64)
        return mean.astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {**self._options(), "_stats": ()}

    def subtransformers(self) -> dict[str, pt.Transformer]:
        """None, for ``pt.inspect``: the members are not run one after the other."""
        return {}
