"""``Explainer``: a pair, the rows of a frame, or two texts for one query, to explanations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.explain.explanations import Comparison, Explanation, Explanations
from pyterrier_bertcat.explain.occlusion import Score, occlusion
from pyterrier_bertcat.explain.reading import read_pair
from pyterrier_bertcat.explain.words import Word
from pyterrier_bertcat.scoring.options import ScoringOptions

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer

Method = Literal["occlusion", "gradients"]
_BAR_DELAY_S = 1.0


class Explainer:
    """Explains the scores of a checkpoint, word by word."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        score: Score,
        *,
        method: Method = "occlusion",
        scoring: ScoringOptions | None = None,
        verbose: bool = True,
    ) -> None:
        """Keeps what is needed.

        Args:
            checkpoint: Model and tokenizer; neither is changed.
            score: Queries and texts to float32 scores, by this checkpoint: `PairScorer.score`.
            method: ``"occlusion"``: what the score loses without the word; exact, one more pair to score per word.
                ``"gradients"``: integrated gradients, which add up; slower; needs the extra ``explain``.
            scoring: How pairs are cut, and where gradients are computed, in float32. None: the defaults.
            verbose: Whether a frame that takes longer than a second shows a progress bar.

        Raises:
            InputError: There is no such method.
        """
        if method not in get_args(Method):
            raise InputError(f"method={method!r} is not one of {', '.join(map(repr, get_args(Method)))}")
        self._checkpoint = checkpoint
        self._tokenizer = copy.deepcopy(checkpoint.tokenizer)  # tokenising changes its settings
        self._score = score
        self._method = method
        self._scoring = scoring or ScoringOptions()
        self._verbose = verbose

    def explain(self, query: str, text: str) -> Explanation:
        """Explains the score of one pair.

        Raises:
            InputError: Something is not a string.
            ScoreError: The model gave a score that is not finite.
            MissingExtraError: ``method="gradients"`` without captum.
        """
        score = float(self._score([query], [text])[0])  # it also refuses what is no string
        reading = read_pair(self._tokenizer, query, text, cut=self._scoring.truncation)
        baselines = None
        if self._method == "occlusion":
            effects = occlusion(query, text, reading, self._score)
        else:
            from pyterrier_bertcat.explain.gradients import integrated_gradients

            baselines, effects = integrated_gradients(
                self._checkpoint.model, int(self._tokenizer.pad_token_id), reading, device=self._scoring.device
            )
        strings = {"query": query, "text": text}
        words = tuple(
            Word(strings[part][start:end], part, start, end, float(effect), bool(read))
            for (part, start, end), effect, read in zip(reading.words, effects, reading.read, strict=True)
        )
        return Explanation(query, text, score, self._method, words, baselines)

    def explain_rows(self, frame: pd.DataFrame, texts: Sequence[str]) -> Explanations:
        """Explains every row of a result frame that was checked before.

        Args:
            frame: ``qid``, ``query`` and ``docno`` of n rows.
            texts: n strings, what was scored of each row's document.

        Returns:
            One explanation per row, in the order of the rows.
        """
        rows = zip(frame["qid"].tolist(), frame["docno"].tolist(), frame["query"].tolist(), texts, strict=True)
        if self._verbose:
            rows = pt.tqdm(rows, total=len(frame), desc="explaining", unit="pair", delay=_BAR_DELAY_S)
        return Explanations(tuple(self.explain(query, text).named(qid, docno) for qid, docno, query, text in rows))

    def compare(self, query: str, text_a: str, text_b: str) -> Comparison:
        """Explains why one text is above another for the same query; raises what `explain` raises."""
        return Comparison(self.explain(query, text_a), self.explain(query, text_b))


def best_passages(scorer: PairScorer, queries: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The passage of each text that makes its score.

    Args:
        scorer: Scores texts by passages.
        queries: n strings.
        texts: n strings.

    Raises:
        InputError: The scores are aggregated from several passages, so that no single one explains them.
    """
    passages = scorer.passages
    if passages is not None and passages.aggregate not in ("max", "first"):
        raise InputError(
            f"aggregate={passages.aggregate!r} combines several passages, so no single passage explains the score: use "
            "aggregate='max', or explain one passage with a re-ranker that has passages=None"
        )
    if not texts:
        return []
    scored = scorer.score_in_detail(queries, texts)
    starts, ends = scorer.character_ranges(texts, scored.best_passages).tolist()
    return [text[start:end] for text, start, end in zip(texts, starts, ends, strict=True)]
