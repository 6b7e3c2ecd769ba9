"""Everything that a training run can be told, in one frozen object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.training.losses import Contrastive, Loss, MarginMSE

if TYPE_CHECKING:
    import pyterrier as pt

    from pyterrier_bertcat.training.teachers import TeacherFile


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How ``BertCatReRanker.fit`` trains; the defaults are for fine-tuning a DistilBERT-sized checkpoint.

    Args:
        loss: A loss of `pyterrier_bertcat.training.losses`. None: `MarginMSE` with a teacher, `Contrastive` without.
        teacher: Whose scores are distilled: a transformer that scores result frames, a `TeacherFile`, or several of
            them (the mean of their scores, the paper's T2). The teacher gets rows of the training frame as they are,
            a first stage's ``score`` included.
        negatives: Passages per query beside the relevant one. Queries with fewer use what they have.
        negative_ranks: Half-open range of the first stage's ranks, counted from 0, that negatives are drawn from.
            With a `TeacherFile` ranks are counted among the candidates that it scores.
        queries_per_step: Queries per optimiser step, over all devices.
        steps: Optimiser steps.
        learning_rate: Peak learning rate of AdamW, above 0; 7e-6 is the paper's.
        schedule: How the learning rate goes on after the warm-up.
        warmup_steps: Steps in which the learning rate rises from 0.
        precision: ``"bfloat16"`` and ``"float16"`` are mixed precision: the weights stay float32.
        seed: Fixes the order of queries, the negatives drawn and dropout.
        measure: An ir_measures measure for the validation frames, more is better.
        save_every: Steps between two saved states; with validation frames each is evaluated, and the best one is kept.
        patience: Stop after so many evaluations without a gain. None: never early.
        output: Folder for the trained checkpoint and the saved states. A run that was killed goes on from its last
            saved state when it is started again with the same folder and options. None: in memory only.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker, TrainingOptions
        >>> options = TrainingOptions(teacher=BertCatReRanker(), output="my-bertcat")
        >>> options.chosen_loss
        MarginMSE(pairs='positive')
        >>> BertCatReRanker("mini", training=options)  # then: pipeline.fit(topics, qrels)
        BertCatReRanker('mini')
    """

    loss: Loss | None = None
    teacher: pt.Transformer | TeacherFile | Sequence[pt.Transformer | TeacherFile] | None = None
    negatives: int = 7
    negative_ranks: tuple[int, int] = (0, 100)
    queries_per_step: int = 8
    steps: int = 2000
    learning_rate: float = 7e-6
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 100
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 42
    measure: Any = "nDCG@10"
    save_every: int = 250
    patience: int | None = None
    output: str | Path | None = None

    def __post_init__(self) -> None:
        least = {"negatives": 1, "queries_per_step": 1, "steps": 1, "save_every": 1, "warmup_steps": 0, "seed": 0}
        for name, smallest in least.items():
            if not _is_whole(value := getattr(self, name), smallest):
                raise InputError(f"{name} must be a whole number of at least {smallest}, got {value!r}")
        first, last = self.negative_ranks
        if not (_is_whole(first, 0) and _is_whole(last, first + 1)):
            raise InputError(
                f"negative_ranks must be a range (first, last) with 0 <= first < last, got {(first, last)}"
            )
        if self.patience is not None and not _is_whole(self.patience, 1):
            raise InputError(f"patience must be a whole number of at least 1 or None, got {self.patience!r}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be above 0, got {self.learning_rate!r}")
        choices = {"schedule": ("linear", "cosine", "constant"), "precision": ("float32", "bfloat16", "float16")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.loss is not None and self.loss.needs_teacher and not self.teachers:
            raise InputError(f"{self.loss} needs teacher scores: give teacher=")
        if self.teachers and not self.chosen_loss.needs_teacher:
            raise InputError(f"{self.loss} would not use the teacher: leave teacher= out, or choose another loss")

    @property
    def teachers(self) -> tuple[pt.Transformer | TeacherFile, ...]:
        """The teachers as a tuple, empty where there is none."""
        if self.teacher is None:
            return ()
        return tuple(self.teacher) if isinstance(self.teacher, (list, tuple)) else (self.teacher,)

    @property
    def chosen_loss(self) -> Loss:
        """The loss in use once the default is resolved."""
        if self.loss is not None:
            return self.loss
        return MarginMSE() if self.teachers else Contrastive()


def _is_whole(value: object, smallest: int) -> bool:
    return type(value) is int and value >= smallest
