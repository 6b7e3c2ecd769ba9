"""``TrainingOptions``: how a model is trained, in one frozen object that is checked here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pyterrier_bertcat.errors import InputError, one_of, whole_number
from pyterrier_bertcat.training.losses import Contrastive, Loss, MarginMSE

if TYPE_CHECKING:
    import pyterrier as pt

    from pyterrier_bertcat.training.teachers import TeacherFile

Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How ``BertCatReRanker.fit`` trains; the defaults are for fine-tuning a DistilBERT-sized checkpoint.

    Args:
        loss: A loss of `pyterrier_bertcat.training.losses`. None: `MarginMSE` with a teacher, `Contrastive` without.
        teacher: The model to distil: a transformer that scores result frames, a `TeacherFile`, or a list of them, whose
            scores are averaged (as the paper's T2). A transformer gets the training frame's rows unchanged, including
            the first stage's ``score``.
        negatives: Passages per query besides the relevant one. Queries with fewer use all of theirs.
        negative_ranks: The first stage's ranks to draw negatives from: ``(first, last)``, counted from 0, without
            ``last``. With a `TeacherFile`, only the candidates that it scores count.
        queries_per_step: Queries per optimiser step, on all devices together.
        steps: Optimiser steps.
        learning_rate: Peak learning rate of AdamW, above 0; 7e-6 is the paper's.
        schedule: How the learning rate falls after the warm-up.
        warmup_steps: Steps in which the learning rate rises from 0 to its peak.
        precision: ``"bfloat16"`` and ``"float16"`` are mixed precision: the weights stay float32.
        seed: Fixes the order of queries, the negatives drawn and dropout.
        measure: The ir_measures measure for the validation frames, or its name. Higher is better.
        save_every: Steps between two saved states. With validation frames, each is evaluated and the best one is kept.
        patience: Stops the training after this many evaluations without a gain. None: never.
        output: The folder for the trained checkpoint and the saved states. If a run is killed, start it again with the
            same folder and options: it continues from its last saved state. None: nothing is kept on disk.

    Raises:
        InputError: An option is outside its range, or loss and teacher don't go together.

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
    schedule: Schedule = "linear"
    warmup_steps: int = 100
    precision: Precision = "float32"
    seed: int = 42
    measure: Any = "nDCG@10"
    save_every: int = 250
    patience: int | None = None
    output: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("negatives", "queries_per_step", "steps", "save_every"):
            whole_number(name, getattr(self, name))
        for name in ("warmup_steps", "seed"):
            whole_number(name, getattr(self, name), at_least=0)
        whole_number("patience", self.patience, or_none=True)
        first, last = self.negative_ranks
        whole_number("the first of negative_ranks", first, at_least=0)
        whole_number("the last of negative_ranks", last, at_least=first + 1)
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is a number above 0, got {self.learning_rate!r}")
        one_of("schedule", self.schedule, get_args(Schedule))
        one_of("precision", self.precision, get_args(Precision))
        if self.loss is not None and self.loss.needs_teacher and not self.teachers:
            raise InputError(f"{self.loss} needs teacher scores: give teacher=")
        if self.teachers and not self.chosen_loss.needs_teacher:
            raise InputError(f"{self.loss} would not use the teacher: leave teacher= out, or choose another loss")

    @property
    def teachers(self) -> tuple[pt.Transformer | TeacherFile, ...]:
        """The teachers as a tuple, which may be empty."""
        if self.teacher is None:
            return ()
        return tuple(self.teacher) if isinstance(self.teacher, (list, tuple)) else (self.teacher,)

    @property
    def chosen_loss(self) -> Loss:
        """The given loss, or the default for these teachers."""
        if self.loss is not None:
            return self.loss
        return MarginMSE() if self.teachers else Contrastive()
