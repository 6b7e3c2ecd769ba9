"""``Explainer``: explains a pair, the rows of a frame, or why one of two texts is above the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError, one_of
from pyterrier_bertcat.explain.explanations import Comparison, Explanation, Explanations
from pyterrier_bertcat.explain.words import PairReading, Word, read_pair
from pyterrier_bertcat.scoring.options import ScoringOptions

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer

Method = Literal["occlusion", "gradients"]
Score = Callable[[Sequence[str], Sequence[str]], NDArray[np.float32]]
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
        """Sets up one method for one checkpoint.

        Args:
            checkpoint: Model and tokenizer; neither is changed.
            score: `PairScorer.score` of a scorer of this checkpoint.
            method: ``"occlusion"``: what the score loses without the word; exact, and scores one more pair per word.
                ``"gradients"``: integrated gradients, which add up; slower; needs the extra ``explain``.
            scoring: How pairs are cut, and where to compute gradients, in float32. None: the defaults.
            verbose: Whether frames that take longer than a second show a progress bar.

        Raises:
            InputError: There is no such method.
        """
        one_of("method", method, get_args(Method))
        self._checkpoint = checkpoint
        self._tokenizer = copy.deepcopy(checkpoint.tokenizer)  # tokenising changes its settings
        self._score = score
        self._method = method
        self._scoring = (scoring or ScoringOptions()).for_checkpoint(checkpoint)
        self._verbose = verbose

    def explain(self, query: str, text: str) -> Explanation:
        """Explains the score of one pair.

        Raises:
            InputError: The query or the text is not a string.
            ScoreError: The model gave a score that is not finite.
            MissingExtraError: ``method="gradients"`` without captum.
        """
        score = float(self._score([query], [text])[0])  # it also refuses anything but strings
        reading = read_pair(self._tokenizer, query, text, cut=self._scoring.truncation)
        baselines = None
        if self._method == "occlusion":
            effects = _occlusion(query, text, reading, self._score)
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
            texts: n strings, the part of each row's document that was scored.

        Returns:
            One explanation per row, in the order of the rows.
        """
        rows = zip(frame["qid"].tolist(), frame["docno"].tolist(), frame["query"].tolist(), texts, strict=True)
        if self._verbose:
            rows = pt.tqdm(rows, total=len(frame), desc="explaining", unit="pair", delay=_BAR_DELAY_S)
        return Explanations(
            tuple(replace(self.explain(query, text), qid=qid, docno=docno) for qid, docno, query, text in rows)
        )

    def compare(self, query: str, text_a: str, text_b: str) -> Comparison:
        """Explains why one text is above another for the same query; raises what `explain` raises."""
        return Comparison(self.explain(query, text_a), self.explain(query, text_b))


def best_passages(scorer: PairScorer, queries: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Finds the passage of each text that makes its score.

    Args:
        scorer: Scores texts by passages.
        queries: n strings.
        texts: n strings.

    Raises:
        InputError: The scores combine several passages, so no single one explains them.
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


def _occlusion(query: str, text: str, reading: PairReading, score: Score) -> NDArray[np.float64]:
    """How much the score loses without each word, float64 (words,); 0 for words that are not read.

    Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks" (ECCV).

    All pairs are scored in one call. A space replaces the word, so that its neighbours don't become one word. Both
    strings are first cut to the part that the model reads: otherwise, a long text without one of its words would show
    the model words that it had not read before.
    """
    read = np.flatnonzero(reading.read)
    seen = {"query": query[slice(*reading.window["query"])], "text": text[slice(*reading.window["text"])]}
    variants = [seen]
    for word in read:
        part, start, end = reading.words[word]
        first, last = reading.window[part]
        before, after = seen[part][: max(start - first, 0)], seen[part][min(end, last) - first :]
        variants.append({**seen, part: f"{before} {after}"})
    scores = score([pair["query"] for pair in variants], [pair["text"] for pair in variants]).astype(np.float64)
    effects = np.zeros(len(reading.words))
    effects[read] = scores[0] - scores[1:]
    return effects
