"""The re-ranker's methods that explain scores."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, overload

import pandas as pd

from pyterrier_bertcat.errors import InputError

if TYPE_CHECKING:
    from pyterrier_bertcat.checkpoints import Checkpoint
    from pyterrier_bertcat.explain.explainer import Explainer, Method
    from pyterrier_bertcat.explain.explanations import Comparison, Explanation, Explanations
    from pyterrier_bertcat.passages import Passages
    from pyterrier_bertcat.scoring import PairScorer
    from pyterrier_bertcat.truncation import Truncation


class LooksInside:
    """A mixin for ``BertCatReRanker``, whose options and scorer it uses."""

    text_field: str
    passages: Passages | None
    device: str | None
    verbose: bool

    @property
    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """Model and tokenizer."""

    @property
    @abstractmethod
    def scorer(self) -> PairScorer:
        """What scores the pairs."""

    @abstractmethod
    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A result frame whose queries and texts are strings."""

    @abstractmethod
    def _truncation_options(self) -> Truncation:
        """How pairs are cut."""

    @overload
    def explain(self, query: str, text: str, *, method: Method = "occlusion") -> Explanation: ...

    @overload
    def explain(self, query: pd.DataFrame, text: None = None, *, method: Method = "occlusion") -> Explanations: ...

    def explain(
        self, query: str | pd.DataFrame, text: str | None = None, *, method: Method = "occlusion"
    ) -> Explanation | Explanations:
        """Shows how much each word moves the score, of one pair or of every row of a frame.

        With ``passages``, the best passage is what is explained, as a text of its own. Where it begins or ends inside a
        word, it is tokenised differently alone, and its score is not quite the one that ranked the document.

        Args:
            query: A query, or a result frame as `transform` takes it.
            text: The text for the query; None with a frame.
            method: ``"occlusion"``: what the score loses without the word. ``"gradients"``: integrated gradients, which
                add up; needs the extra ``explain``.

        Returns:
            What shows itself in notebooks, with ``to_dataframe()`` and ``to_html(path)``.

        Raises:
            InputError: There is no such method, something is not a string, or ``passages`` aggregates several passages'
                scores, which no single passage explains.
            MissingExtraError: ``"gradients"`` without captum.
        """
        explainer = self._explainer(method)
        if isinstance(query, pd.DataFrame):
            if text is not None:
                raise InputError("text goes with one query, got it with a frame: leave text out")
            frame = self._checked(query)
            passages = self._best_passages(frame["query"].tolist(), frame[self.text_field].tolist())
            return explainer.explain_frame(frame.assign(**{self.text_field: passages}), text_field=self.text_field)
        if not isinstance(query, str) or not isinstance(text, str):
            raise InputError(
                f"explain takes a query and a text, or a frame, got {type(query).__name__} and {type(text).__name__}"
            )
        return explainer.explain(query, *self._best_passages([query], [text]))

    def compare(self, query: str, text_a: str, text_b: str, *, method: Method = "occlusion") -> Comparison:
        """Shows why one text is above another for the same query, side by side; see `explain`."""
        return self._explainer(method).compare(query, *self._best_passages([query] * 2, [text_a, text_b]))

    def _explainer(self, method: Method) -> Explainer:
        from pyterrier_bertcat.explain.explainer import Explainer

        return Explainer(
            self.checkpoint,
            self.scorer.score,
            method=method,
            truncation=self._truncation_options(),
            device=self.device,
            verbose=self.verbose,
        )

    def _best_passages(self, queries: list[str], texts: list[str]) -> list[str]:
        """The passages that make their documents' scores; without passages, the texts."""
        if self.passages is None or not texts:
            return texts
        if self.passages.aggregate not in ("max", "first"):
            raise InputError(
                f"with aggregate={self.passages.aggregate!r} a document's score is that of several passages, which "
                "one of them would not explain: use aggregate='max', or give a passage to a re-ranker without"
            )
        scored = self.scorer.scored(queries, texts)
        starts, ends = self.scorer.character_ranges(texts, scored.best_passages).tolist()
        return [text[start:end] for text, start, end in zip(texts, starts, ends, strict=True)]
