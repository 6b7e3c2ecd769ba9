"""``Explainer``: explains a pair, the rows of a frame, or why one of two texts is above the other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyterrier_bertcat.errors import InputError, one_of
from pyterrier_bertcat.explain.explanations import Comparison, Explanation, Explanations
from pyterrier_bertcat.explain.progress import Progress
from pyterrier_bertcat.explain.words import PairReading, Word, read_pair
from pyterrier_bertcat.pairs.strings import checked_pairs

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer

Method = Literal["occlusion", "gradients"]


class Explainer:
    """Explains the scores of a checkpoint, word by word."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        scorer: PairScorer,
        *,
        method: Method = "occlusion",
        verbose: bool = True,
    ) -> None:
        """Sets up one method for one checkpoint.

        Args:
            checkpoint: Model and tokenizer; neither is changed.
            scorer: A scorer of this checkpoint. Its options say how pairs are cut and where gradients are computed.
            method: ``"occlusion"``: what the score loses without the word; exact, and scores one more pair per word.
                ``"gradients"``: integrated gradients, which add up; slower; needs the extra ``explain``.
            verbose: Whether a call that takes longer than a second shows a progress bar.

        Raises:
            InputError: There is no such method.
        """
        one_of("method", method, get_args(Method))
        self._checkpoint = checkpoint
        self._tokenizer = copy.deepcopy(checkpoint.tokenizer)  # tokenising changes its settings
        self._scorer = copy.copy(scorer)  # it shares all but the next line and the figures of its last call
        self._scorer.verbose = False  # one bar for a whole explanation, not one for each call
        self._scoring = scorer.options.for_checkpoint(checkpoint)
        self._method = method
        self._verbose = verbose

    def explain(self, query: str, text: str) -> Explanation:
        """Explains the score of one pair.

        Raises:
            InputError: The query or the text is not a string.
            ScoreError: The model gave a score that is not finite.
            MissingExtraError: ``method="gradients"`` without captum.
        """
        return self._explanations([query], [text])[0]

    def explain_rows(self, frame: pd.DataFrame, texts: Sequence[str]) -> Explanations:
        """Explains every row of a result frame that was checked before.

        Args:
            frame: ``qid``, ``query`` and ``docno`` of n rows.
            texts: n strings, the part of each row's document that was scored.

        Returns:
            One explanation per row, in the order of the rows.
        """
        explanations = self._explanations(frame["query"].tolist(), texts)
        keys = zip(explanations, frame["qid"].tolist(), frame["docno"].tolist(), strict=True)
        return Explanations(tuple(replace(one, qid=qid, docno=docno) for one, qid, docno in keys))

    def compare(self, query: str, text_a: str, text_b: str) -> Comparison:
        """Explains why one text is above another for the same query; raises what `explain` raises."""
        return Comparison(*self._explanations([query] * 2, [text_a, text_b]))

    def compare_rows(self, frame: pd.DataFrame, texts: Sequence[str]) -> Comparison:
        """Explains why one of two rows is above the other; see `explain_rows`."""
        return Comparison(*self.explain_rows(frame, texts))

    def _explanations(self, queries: Sequence[str], texts: Sequence[str]) -> list[Explanation]:
        """Explains pairs one after the other, with one progress bar for all of them."""
        queries, texts = checked_pairs(queries, texts)
        pairs = list(zip(queries, texts, strict=True))
        cut = self._scoring.truncation
        readings = [read_pair(self._tokenizer, query, text, cut=cut) for query, text in pairs]
        with Progress.shown(self._verbose, total=sum(map(self._least_work, readings))) as progress:
            return [
                self._explanation(query, text, reading, progress)
                for (query, text), reading in zip(pairs, readings, strict=True)
            ]

    def _least_work(self, reading: PairReading) -> int:
        """How often a pair is certainly put into the model, for its effects: gradients may need more."""
        if self._method == "occlusion":
            return 1 + int(reading.read.sum())
        from pyterrier_bertcat.explain.gradients import LEAST_WORK

        return LEAST_WORK

    def _explanation(self, query: str, text: str, reading: PairReading, progress: Progress) -> Explanation:
        score = float(self._scorer.score_in_detail([query], [text]).scores[0])
        baselines = None
        if self._method == "occlusion":
            effects = _occlusion(query, text, reading, self._scorer, progress)
        else:
            from pyterrier_bertcat.explain.gradients import integrated_gradients

            baselines, effects = integrated_gradients(
                self._checkpoint.model,
                int(self._tokenizer.pad_token_id),
                reading,
                device=self._scoring.device,
                progress=progress,
            )
        strings = {"query": query, "text": text}
        words = tuple(
            Word(strings[part][start:end], part, start, end, float(effect), bool(read))
            for (part, start, end), effect, read in zip(reading.words, effects, reading.read, strict=True)
        )
        return Explanation(query, text, score, self._method, words, baselines)


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


def _occlusion(
    query: str, text: str, reading: PairReading, scorer: PairScorer, progress: Progress
) -> NDArray[np.float64]:
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
    counted = 0

    def finished(rows: NDArray[np.int64], *_: Any) -> None:
        nonlocal counted
        counted += len(rows)
        progress.done(len(rows))

    queries, texts = [pair["query"] for pair in variants], [pair["text"] for pair in variants]
    scores = scorer.score_in_detail(queries, texts, finished=finished).scores.astype(np.float64)
    progress.done(len(variants) - counted)  # equal variants are scored once
    effects = np.zeros(len(reading.words))
    effects[read] = scores[0] - scores[1:]
    return effects
