"""Verifies a checkpoint: does it still give the scores that it is known to give?

The published checkpoint comes with two passages and their scores. Others may have examples in their configuration
(``known_scores``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.names import PUBLISHED

_QUERY = "what is the transformers library"
# From the model card: query, passage, score.
PUBLISHED_SCORES: tuple[tuple[str, str, float], ...] = (
    (
        _QUERY,
        "We are very happy to show you the 🤗 Transformers library for pre-trained language models. "
        "We are helping the community work together towards the goal of advancing NLP 🔥.",
        5.899686336517334,
    ),
    (
        _QUERY,
        "Hmm I don't like this new movie about transformers that i got from my local library. "
        "Those transformers are robots?",
        2.2803378105163574,
    ),
)

ScorePairs = Callable[[list[str], list[str]], np.ndarray]


@dataclass(frozen=True)
class VerificationRow:
    """One known answer and the score that was computed."""

    query: str
    text: str
    expected: float
    got: float

    @property
    def difference(self) -> float:
        """The absolute difference between the two scores."""
        return abs(self.got - self.expected)


@dataclass(frozen=True)
class Verification:
    """How a checkpoint's scores compare with its known answers.

    Attributes:
        source: The checkpoint's name.
        tolerance: The largest difference that passes.
        rows: One per known answer.
    """

    source: str
    tolerance: float
    rows: tuple[VerificationRow, ...]

    @property
    def largest_difference(self) -> float:
        """The largest absolute difference; NaN if a score is NaN."""
        return float(np.max([row.difference for row in self.rows]))

    @property
    def passed(self) -> bool:
        """Whether every score is within the tolerance."""
        return self.largest_difference <= self.tolerance

    def __str__(self) -> str:
        outcome = "as known" if self.passed else "NOT as known"
        lines = [
            f"{self.source}: {outcome} (largest difference {self.largest_difference:.2g}, {self.tolerance:g} allowed)"
        ]
        lines += [
            f"  expected {row.expected:.6f}, got {row.got:.6f}: {row.query!r} / {row.text[:60]!r}" for row in self.rows
        ]
        return "\n".join(lines)


def verify_checkpoint(
    checkpoint: Checkpoint,
    score: ScorePairs,
    *,
    known: Sequence[tuple[str, str, float]] | None = None,
    tolerance: float = 1e-3,
) -> Verification:
    """Checks that a checkpoint gives the scores that it is known to give.

    Args:
        checkpoint: The checkpoint to verify.
        score: Queries and texts to float (n,): how to score with it. This is tested along with the checkpoint.
        known: Query, text and score of each known answer, or None for those that come with the checkpoint. A local copy
            of the published checkpoint comes with none: pass `PUBLISHED_SCORES`.
        tolerance: The largest difference that passes. Half precision needs a larger one than the default.

    Returns:
        The comparison; it passed.

    Raises:
        CheckpointError: A score differs by more than the tolerance, no score of this checkpoint is known, or the
            ``known_scores`` of its configuration do not have the documented form.
    """
    facts = tuple(_known_scores(checkpoint) if known is None else known)
    if not facts:
        raise CheckpointError(
            f"no score of {checkpoint.source!r} is known, so it can't be verified: its config.json has no "
            f"'known_scores', and it is not {PUBLISHED!r} from the hub. If it is a copy of that one, compare with "
            "the published example: 'pyterrier-bertcat verify --published', or verify(known=PUBLISHED_SCORES) with "
            f"{__name__}.PUBLISHED_SCORES"
        )
    got = score([query for query, _, _ in facts], [text for _, text, _ in facts])
    rows = tuple(
        VerificationRow(query, text, expected, float(value))
        for (query, text, expected), value in zip(facts, got, strict=True)
    )
    verification = Verification(source=checkpoint.source, tolerance=tolerance, rows=rows)
    if not verification.passed:
        raise CheckpointError(
            f"{verification}\nIts weights or vocabulary are not the ones it was published with, or the encoder does "
            "not run in float32 (half precision needs a larger tolerance)."
        )
    return verification


def record_known_scores(checkpoint: Checkpoint, score: ScorePairs, pairs: Sequence[tuple[str, str]]) -> None:
    """Writes the scores of some pairs into a checkpoint's configuration, for `verify_checkpoint` to compare with later.

    Args:
        checkpoint: Its configuration is changed in place. Its weights should already be the ones that will be saved:
            rounded, if you save them in half precision.
        score: Queries and texts to float (n,).
        pairs: Query and text of each answer to record.
    """
    got = score([query for query, _ in pairs], [text for _, text in pairs])
    checkpoint.model.config.known_scores = [
        {"query": query, "text": text, "score": float(value)} for (query, text), value in zip(pairs, got, strict=True)
    ]


def _known_scores(checkpoint: Checkpoint) -> tuple[tuple[str, str, float], ...]:
    """Looks up query, text and score of each known answer: from the configuration, or else from the model card."""
    stated = getattr(checkpoint.model.config, "known_scores", None)
    if stated:
        try:
            return tuple((str(fact["query"]), str(fact["text"]), float(fact["score"])) for fact in stated)
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.source}: config.json: expected known_scores as a list of objects with query, text and "
                f"score, got {str(stated)[:100]}"
            ) from error
    return PUBLISHED_SCORES if checkpoint.source.partition("@")[0] == PUBLISHED else ()
