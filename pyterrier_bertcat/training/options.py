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
        hardest_negatives: How many of ``negatives`` are the best-ranked ones within ``negative_ranks``, in every group.
            The rest are drawn at random from the ranks below them.
        queries_per_step: Queries per optimiser step, on all devices together.
        steps: Optimiser steps.
        learning_rate: Peak learning rate of AdamW, above 0; 7e-6 is the paper's.
        head_learning_rate: The peak for the layers on top of the encoder: a new linear layer can take several times
            the encoder's. It rises and falls with ``learning_rate``. None: the same.
        final_learning_rate: What the linear schedule falls to, below ``learning_rate``. The head's falls by the same
            factor.
        schedule: How the learning rate falls after the warm-up.
        warmup_steps: Steps in which the learning rate rises from 0 to its peak.
        weight_decay: AdamW's, for all weights except biases and layer norms.
        averaging: Averages the weights of all steps, later ones counting more: each step, the average moves this share
            of the way to the new weights, such as 0.002. Early in the training the share is ``10 / (9 + step)``, if
            that is larger: the average then spans the last tenth of the steps, and the starting weights have no part in
            it. Validation and the trained checkpoint use the average; the training itself doesn't. None: no average.
        gradient_checkpointing: Saves memory and costs time (about a quarter): the backward pass computes the encoder's
            activations again instead of keeping them. The result is the same.
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
    hardest_negatives: int = 0
    queries_per_step: int = 8
    steps: int = 2000
    learning_rate: float = 7e-6
    head_learning_rate: float | None = None
    final_learning_rate: float = 0.0
    schedule: Schedule = "linear"
    warmup_steps: int = 100
    weight_decay: float = 0.0
    averaging: float | None = None
    gradient_checkpointing: bool = False
    precision: Precision = "float32"
    seed: int = 42
    measure: Any = "nDCG@10"
    save_every: int = 250
    patience: int | None = None
    output: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("negatives", "queries_per_step", "steps", "save_every"):
            whole_number(name, getattr(self, name))
        for name in ("warmup_steps", "seed", "hardest_negatives"):
            whole_number(name, getattr(self, name), at_least=0)
        whole_number("patience", self.patience, or_none=True)
        first, last = self.negative_ranks
        whole_number("the first of negative_ranks", first, at_least=0)
        whole_number("the last of negative_ranks", last, at_least=first + 1)
        if self.hardest_negatives > self.negatives:
            raise InputError(
                f"hardest_negatives is at most negatives={self.negatives}, which it is part of, "
                f"got {self.hardest_negatives}"
            )
        one_of("schedule", self.schedule, get_args(Schedule))
        self._check_rates()
        one_of("gradient_checkpointing", self.gradient_checkpointing, (True, False))
        one_of("precision", self.precision, get_args(Precision))
        if self.loss is not None and self.loss.needs_teacher and not self.teachers:
            raise InputError(f"{self.loss} needs teacher scores: give teacher=")
        if self.teachers and not self.chosen_loss.needs_teacher:
            raise InputError(f"{self.loss} would not use the teacher: leave teacher= out, or choose another loss")

    def _check_rates(self) -> None:
        for name in ("learning_rate", "head_learning_rate"):
            rate = getattr(self, name)
            if not (rate is None and name != "learning_rate") and not 0 < rate < math.inf:
                raise InputError(f"{name} is a number above 0, got {rate!r}")
        if not 0 <= self.final_learning_rate < self.learning_rate:
            raise InputError(
                f"final_learning_rate is a number from 0 to below learning_rate={self.learning_rate!r}, "
                f"got {self.final_learning_rate!r}"
            )
        if self.final_learning_rate and self.schedule != "linear":
            raise InputError(f"final_learning_rate is for schedule='linear', got schedule={self.schedule!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is a number of at least 0, got {self.weight_decay!r}")
        if self.averaging is not None and not 0 < self.averaging <= 1:
            raise InputError(f"averaging is a number above 0 and at most 1, or None, got {self.averaging!r}")

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
