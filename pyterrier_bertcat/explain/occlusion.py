"""Occlusion: a word's effect is what the score loses when the word is left out (Zeiler and Fergus 2014, ECCV)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pyterrier_bertcat.explain.reading import PairReading

Score = Callable[[Sequence[str], Sequence[str]], NDArray[np.float32]]


def occlusion(query: str, text: str, reading: PairReading, score: Score) -> NDArray[np.float64]:
    """Scores a pair, and once more without each of its words, in one call.

    A word is left out by putting a space in its place, so that its neighbours don't become one word. Both strings are
    first cut to what the model reads: else, leaving out a word of a long text would bring the next words into view.

    Args:
        query: The query.
        text: The text.
        reading: Of this pair.
        score: Queries and texts to float32 scores, such as `PairScorer.score`.

    Returns:
        float64 (words,), how much each word raises the score; 0 for words that are not read.
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
