"""``rank``: re-ranks a plain list of strings for one query, without a frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pipeline.pyserini import ReRanker

_SHOWN_CHARACTERS = 60


class RankedText(NamedTuple):
    """A text of a list that was ranked.

    Attributes:
        position: Where it stood in the list, from 0.
        score: The re-ranker's score: a raw relevance logit, higher is more relevant, not a probability.
        text: The text itself.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> bertcat = BertCatReRanker("mini", device="cpu", verbose=False)
        >>> best = bertcat.rank("how do I copy a folder", ["Delete a directory tree.", "Copy a directory tree."])[0]
        >>> best.position, best.text
        (1, 'Copy a directory tree.')
    """

    position: int
    score: float
    text: str

    def __repr__(self) -> str:
        text = self.text
        if isinstance(text, str) and len(text) > _SHOWN_CHARACTERS:
            text = text[: _SHOWN_CHARACTERS - 1] + "…"
        return f"{type(self).__name__}(position={self.position}, score={self.score:.4g}, text={text!r})"


def rank(reranker: ReRanker, query: str, texts: Iterable[str]) -> list[RankedText]:
    """Ranks texts for a query.

    Args:
        reranker: Scores the texts.
        query: The query.
        texts: The texts, in any number. With ``depth``, the first ones are re-ranked and the others kept below.

    Returns:
        One for each text, best first; equal scores in the order of the texts. No texts give an empty list.

    Raises:
        InputError: The query is not a string, or ``texts`` is not a list of strings; the message names its position as
            a docno.
    """
    if not isinstance(query, str) or isinstance(texts, (str, bytes, dict)) or not isinstance(texts, Iterable):
        raise InputError(
            "rank takes a query and a list of texts, all of them strings, "
            f"got {type(query).__name__} and {type(texts).__name__}"
        )
    listed = list(texts)
    if not listed:
        return []
    positions = np.arange(len(listed))
    frame = pd.DataFrame({"qid": "1", "query": query, "docno": positions, "score": -positions.astype(float)})
    frame = frame.assign(rank=positions, **{reranker.text_field: pd.Series(listed, dtype=object)})
    scored = reranker.transform(frame)
    ranked = [
        RankedText(int(position), float(score), listed[position])
        for position, score in zip(scored["docno"], scored["score"], strict=True)
    ]
    return sorted(ranked, key=lambda one: (-one.score, one.position))
