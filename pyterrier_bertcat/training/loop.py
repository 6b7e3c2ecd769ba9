"""The training loop: `transformers.Trainer`, told how to score groups and how to evaluate a ranking.

The Trainer brings mixed precision, several devices, progress, saved states and resuming; this module adds the loss over
(queries, candidates) grids, the order of the groups, and a ranking measure on validation frames.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset, SequentialSampler
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.bert_cat import CrossEncoder
from pyterrier_bertcat.training.collation import GroupCollator, GroupDataset
from pyterrier_bertcat.training.losses import Loss
from pyterrier_bertcat.training.options import TrainingOptions
from pyterrier_bertcat.training.sampling import Rows
from pyterrier_bertcat.training.validation import Validation

logger = logging.getLogger(__name__)

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class TrainingData:
    """What the loop trains on.

    Attributes:
        groups: Row positions, one array per group, in training order.
        collator: Makes a step's tensors of some groups.
        validation: Evaluates the model at each saved state, or None.
    """

    groups: Sequence[Rows]
    collator: GroupCollator
    validation: Validation | None


def queries_per_device(options: TrainingOptions, device: torch.device) -> int:
    """How many of a step's queries each device gets.

    Several GPUs of one machine are used through ``nn.DataParallel``, or one by each process that ``torchrun`` starts.

    Raises:
        InputError: They can't be split evenly.
    """
    visible = torch.cuda.device_count() if device.type == "cuda" else 1
    devices = int(os.environ.get("WORLD_SIZE", visible))
    if options.queries_per_step % devices:
        raise InputError(f"queries_per_step={options.queries_per_step} can't be split over {devices} devices evenly")
    return options.queries_per_step // devices


def train(
    model: CrossEncoder,
    data: TrainingData,
    options: TrainingOptions,
    states: Path,
    *,
    device: torch.device,
    verbose: bool = True,
) -> None:
    """Trains a model in place, going on from the last state in ``states`` where there is one.

    Args:
        model: Takes ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, gives scores (pairs,).
        data: Groups, how to make tensors of them, and the validation.
        options: The run's options.
        states: Folder of the saved states.
        device: Its type decides whether GPUs are used.
        verbose: Shows progress and losses.
    """
    evaluate = data.validation is not None
    trainer = _PairTrainer(
        model=model,
        args=_arguments(options, states, evaluate=evaluate, device=device, verbose=verbose),
        train_dataset=GroupDataset(data.groups),
        eval_dataset=_NoExamples() if evaluate else None,
        data_collator=data.collator,
        callbacks=[_Patience(options.patience)] if evaluate and options.patience is not None else [],
        loss=options.chosen_loss,
        validation=data.validation,
    )
    if not verbose:
        trainer.remove_callback(PrinterCallback)
    last_state = _last_state(states)
    if last_state is not None:
        logger.info("going on from %s", last_state)
    with nullcontext() if verbose else _without_bars():
        trainer.train(resume_from_checkpoint=last_state)
    if data.validation is not None:
        logger.info("best validation %s: %s", options.measure, trainer.state.best_metric)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hides the bars that transformers shows whenever it writes or reads weights."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class _PairTrainer(transformers.Trainer):
    """Scores every candidate of a step's queries and compares them within each query."""

    def __init__(self, *, loss: Loss, validation: Validation | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.loss = loss
        self.validation = validation
        # The loss is a mean over the step already: the Trainer must not divide it by a count of labels.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, *_: Any, **__: Any
    ) -> torch.Tensor:
        """The step's loss; inputs as `GroupCollator` makes them."""
        # Accelerate wraps a single model in autocast, but not one that is spread by DataParallel.
        with self.accelerator.autocast():
            scores = torch.cat([model(**batch) for batch in inputs["batches"]]).float()  # (pairs,)
        labels = inputs["labels"]  # (queries, candidates)
        grid = scores.new_zeros(labels.numel()).scatter(0, inputs["cells"], scores).view(labels.shape)
        return self.loss(grid, labels, inputs.get("teacher"))

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        # The groups are drawn beforehand, in training order: so a resumed run equals an uninterrupted one.
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Ranks the validation candidates with the model as it is."""
        if self.validation is None:
            raise InputError("there are no validation frames to evaluate on")
        model: Any = self.model
        metrics = {f"{metric_key_prefix}_measure": self.validation.evaluate(model)}
        model.train()  # scoring has put it into evaluation mode
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, *_: Any) -> int:
        """Not counted: the Trainer's estimate expects one batch of a language model."""
        return 0

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Early versions of the Trainer save numpy's state, but torch >= 2.6 then refuses to load it.
        allowed = [np.empty(0).__reduce__()[0], np.ndarray, np.dtype, type(np.dtype(np.uint32))]
        safe_globals = getattr(torch.serialization, "safe_globals", lambda _: nullcontext())
        with safe_globals(allowed):
            super()._load_rng_state(checkpoint)


class _Patience(transformers.EarlyStoppingCallback):
    """Early stopping that a resumed run remembers: one that had stopped trains no further."""

    stopped_before = False

    def on_train_begin(self, args: Any, state: Any, control: transformers.TrainerControl, **arguments: Any) -> None:
        super().on_train_begin(args, state, control, **arguments)  # type: ignore[no-untyped-call]
        self.stopped_before = self.early_stopping_patience_counter >= self.early_stopping_patience

    def on_step_end(self, args: Any, state: Any, control: transformers.TrainerControl, **_: Any) -> None:
        if self.stopped_before:  # the Trainer stops after a step only: that one is neither evaluated nor saved
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False


class _NoExamples(Dataset[int]):
    """The Trainer asks for a dataset before it evaluates; the validation frames take its place."""

    def __len__(self) -> int:
        return 0


def _arguments(
    options: TrainingOptions, states: Path, *, evaluate: bool, device: torch.device, verbose: bool
) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(states),
        use_cpu=device.type == "cpu",
        per_device_train_batch_size=queries_per_device(options, device),
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type=_SCHEDULES[options.schedule],
        warmup_steps=options.warmup_steps,
        weight_decay=0.0,
        bf16=options.precision == "bfloat16",
        fp16=options.precision == "float16",
        seed=options.seed,
        logging_steps=max(1, min(50, options.steps // 10)),
        eval_strategy="steps" if evaluate else "no",
        eval_steps=options.save_every,
        save_strategy="steps",
        save_steps=options.save_every,
        save_total_limit=2,
        load_best_model_at_end=evaluate,
        metric_for_best_model="measure" if evaluate else None,
        greater_is_better=True if evaluate else None,
        remove_unused_columns=False,
        label_names=[],
        report_to="none",
        disable_tqdm=not verbose,
        dataloader_pin_memory=device.type == "cuda",
        restore_callback_states_from_checkpoint=True,
        ddp_broadcast_buffers=False,  # processes may need different numbers of forward passes
    )


def _last_state(states: Path) -> str | None:
    """The newest saved state that is whole: the Trainer writes its own file last, and a kill may come before that."""
    found = [folder for folder in states.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _is_whole(folder)]
    return str(max(found, key=lambda folder: int(folder.name.rpartition("-")[2]))) if found else None


def _is_whole(state: Path) -> bool:
    try:
        json.loads((state / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
