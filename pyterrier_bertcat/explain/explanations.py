"""The explanations that users get. They show themselves in notebooks, and become frames and HTML files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pandas as pd

from pyterrier_bertcat.explain import html
from pyterrier_bertcat.explain.words import Word

_WORD_TYPES: dict[str, Any] = {
    **dict.fromkeys(("part", "word"), str),
    **dict.fromkeys(("start", "end"), "int64"),
    **{"effect": "float64", "read": bool},
}
_DIFFERENCE_TYPES: dict[str, Any] = {
    **dict.fromkeys(("part", "word"), str),
    **dict.fromkeys(("effect_a", "effect_b", "difference"), "float64"),
}
_WORDS_NAMED = 6


class Shown(ABC):
    """Something that a notebook displays as HTML."""

    @abstractmethod
    def _repr_html_(self) -> str:
        """One snippet with its own style. It has no script and loads nothing."""

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Writes what a notebook displays as a page (UTF-8), and returns its path."""
        target = Path(path)
        target.write_text(html.page(self._repr_html_()), encoding="utf-8")
        return target


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """How much each word of a query and a text moves their score.

    Attributes:
        query: The query.
        text: The text.
        score: The pair's score, a raw relevance logit.
        method: ``"occlusion"``: a word's effect is what the score loses without it. Effects need not add up: if a word
            occurs twice, the score may need only one of the two. ``"gradients"``: integrated gradients. The effects of
            the text's words add up to the score minus the score with every token of the text unknown, and likewise for
            the query.
        words: Every word of the query, then every word of the text, each in order.
        baselines: For gradients, the scores of the pair with an unknown query and with an unknown text; otherwise None.
        qid: From the row of a frame; otherwise None.
        docno: From the row of a frame; otherwise None.
    """

    query: str
    text: str
    score: float
    method: str
    words: tuple[Word, ...]
    baselines: tuple[float, float] | None = None
    qid: Any = None
    docno: Any = None

    def to_dataframe(self) -> pd.DataFrame:
        """One row per word: ``part`` (query or text), ``word``, ``start``, ``end``, ``effect``, ``read``."""
        return _words_frame([((), self)], {})

    def __repr__(self) -> str:
        strongest = sorted((word for word in self.words if word.effect), key=lambda word: -abs(word.effect))
        named = ", ".join(f"{word.text} {word.effect:+.3f}" for word in strongest[:_WORDS_NAMED])
        more = ", …" if len(strongest) > _WORDS_NAMED else ""
        return f"<Explanation by {self.method}: score {self.score:.3f}; {named}{more}>"

    def _repr_html_(self) -> str:
        scale = _scale([self])
        return html.snippet(html.legend(self.method, scale), self._card(scale), html.strongest(self.words))

    def _card(self, scale: float, name: str = "") -> str:
        known = [str(value) for value in (self.qid, self.docno) if value is not None]
        return html.card(
            name or " · ".join(known), self.score, query=self.query, text=self.text, words=self.words, scale=scale
        )


@dataclass(frozen=True, repr=False)
class Explanations(Shown, Sequence[Explanation]):
    """Explanations of the rows of a frame, in their order. Their colours share one scale."""

    rows: tuple[Explanation, ...]

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice) -> Explanations: ...
    def __getitem__(self, index: int | slice) -> Explanation | Explanations:
        return Explanations(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per word: ``qid``, ``docno``, then the columns of `Explanation.to_dataframe`."""
        return _words_frame([((row.qid, row.docno), row) for row in self.rows], {"qid": object, "docno": object})

    def __repr__(self) -> str:
        return f"<Explanations of {len(self)} pairs>"

    def _repr_html_(self) -> str:
        if not self.rows:
            return html.snippet("No pairs: the frame has no rows.")
        scale = _scale(self.rows)
        cards = [row._card(scale) + html.strongest(row.words) for row in self.rows]
        return html.snippet(html.legend(self.rows[0].method, scale), *cards)


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Why one text scores above another for the same query.

    It calls the texts by their docnos, if both are known and differ, and otherwise A and B.

    Attributes:
        a: The first text's explanation.
        b: The second's.
    """

    a: Explanation
    b: Explanation

    @property
    def names(self) -> tuple[str, str]:
        """What the two texts are called: their docnos, or ``"A"`` and ``"B"``."""
        name_a, name_b = (str(one.docno) if _is_known(one.docno) else "" for one in (self.a, self.b))
        return (name_a, name_b) if name_a and name_b and name_a != name_b else ("A", "B")

    @property
    def difference(self) -> float:
        """The score of A minus the score of B."""
        return self.a.score - self.b.score

    def differences(self) -> pd.DataFrame:
        """How much each word contributes to A being above B.

        Returns:
            One row per distinct word, ignoring case, the largest difference first: ``part`` (query or text), ``word``,
            ``effect_a`` and ``effect_b`` (the sum over its occurrences, 0 if there are none), ``difference``
            (``effect_a - effect_b``).
        """
        return _frame(self._differences(), _DIFFERENCE_TYPES)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per word: ``passage`` (one of `names`), then the columns of `Explanation.to_dataframe`."""
        name_a, name_b = self.names
        return _words_frame([((name_a,), self.a), ((name_b,), self.b)], {"passage": str})

    def __repr__(self) -> str:
        named = ", ".join(f"{word} {apart:+.3f}" for _, word, _, _, apart in self._differences()[:_WORDS_NAMED])
        name_a, name_b = self.names
        scores = f"{name_a} {self.a.score:.3f} - {name_b} {self.b.score:.3f} = {self.difference:+.3f}"
        return f"<Comparison by {self.a.method}: {scores}; {named}>"

    def _repr_html_(self) -> str:
        scale = _scale([self.a, self.b])
        columns = (one._card(scale, name) for one, name in zip((self.a, self.b), self.names, strict=True))
        return html.snippet(
            html.legend(self.a.method, scale),
            html.difference(self.names, self.a.score, self.b.score),
            html.side_by_side(*columns),
            html.differences(self.names, self._differences()),
        )

    def _differences(self) -> list[tuple[str, str, float, float, float]]:
        sums: dict[tuple[str, str], list[float]] = {}
        for side, explanation in enumerate((self.a, self.b)):
            for word in explanation.words:
                sums.setdefault((word.part, word.text.casefold()), [0.0, 0.0])[side] += word.effect
        rows = [(part, word, a, b, a - b) for (part, word), (a, b) in sums.items()]
        return sorted(rows, key=lambda row: -abs(row[-1]))


def _is_known(docno: Any) -> bool:
    return bool(pd.api.types.is_scalar(docno) and not pd.isna(docno))


def _scale(explanations: Iterable[Explanation]) -> float:
    """The largest effect of any word, which gets the full colour."""
    return max((abs(word.effect) for row in explanations for word in row.words), default=0.0)


def _words_frame(rows: list[tuple[tuple[Any, ...], Explanation]], key_types: dict[str, Any]) -> pd.DataFrame:
    values = [
        (*key, word.part, word.text, word.start, word.end, word.effect, word.read)
        for key, explanation in rows
        for word in explanation.words
    ]
    return _frame(values, {**key_types, **_WORD_TYPES})


def _frame(rows: Sequence[tuple[Any, ...]], types: dict[str, Any]) -> pd.DataFrame:
    """A frame that has these columns and types even without rows."""
    frame: pd.DataFrame = pd.DataFrame(rows, columns=list(types)).astype(types)
    return frame
