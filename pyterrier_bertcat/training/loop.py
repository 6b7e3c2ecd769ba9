"""The training loop: `transformers.Trainer`, told how to score groups and what to measure.

The Trainer comes with mixed precision, several devices, saved states and resuming. This module adds the tensors of a
step, the loss over (queries, candidates) grids, the head's learning rate, the averaged weights and the validation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch.utils.data import SequentialSampler
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from pyterrier_bertcat.data.order import Rows
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.bert_cat import CrossEncoder
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.planning import plan_batches
from pyterrier_bertcat.training.averaging import AveragedWeights
from pyterrier_bertcat.training.history import LOGGED_MEASURE
from pyterrier_bertcat.training.options import TrainingOptions
from pyterrier_bertcat.training.report import TrainingReport
from pyterrier_bertcat.training.validation import Validation

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class GroupCollator:
    """Turns some groups into one step's input.

    Args:
        pair_tokenizer: Tokenises pairs as scoring does.
        queries: The query of each row of the training frame.
        passages: The passage of each row.
        labels: int64 (rows,).
        teacher: float32 (rows,), or None.
        batch_tokens: The most tokens, with padding, per forward pass. Several passes per step save padding, but no
            memory: the backward pass needs the activations of them all.
    """

    pair_tokenizer: PairTokenizer
    queries: Sequence[str]
    passages: Sequence[str]
    labels: npt.NDArray[np.int64]
    teacher: npt.NDArray[np.float32] | None
    batch_tokens: int

    def __call__(self, groups: Sequence[Rows]) -> dict[str, Any]:
        """One step's input.

        Returns:
            ``batches``: a list of model inputs, int64 (pairs, length). ``cells``: int64 (pairs of all batches,), the
            position of each pair in the flattened grid. ``labels``: int64 (queries, candidates), -1 is padding.
            ``teacher``: float32 (queries, candidates), if there is a teacher.
        """
        rows = np.concatenate(groups)
        width = max(len(group) for group in groups)
        # (pairs,): where each pair stands in the flattened (queries, candidates) grid
        cells = np.concatenate([query * width + np.arange(len(group)) for query, group in enumerate(groups)])
        pairs = self.pair_tokenizer.encode([self.queries[row] for row in rows], [self.passages[row] for row in rows])
        plan = plan_batches(pairs.lengths, batch_tokens=self.batch_tokens)
        grid = {"labels": torch.from_numpy(_spread(self.labels[rows], cells, (len(groups), width), empty=-1))}
        if self.teacher is not None:
            grid["teacher"] = torch.from_numpy(_spread(self.teacher[rows], cells, (len(groups), width), empty=0))
        return {
            "batches": [_tensors(pairs.batch(batch).padded()) for batch in plan],
            "cells": torch.from_numpy(cells[np.concatenate(plan)]),
            **grid,
        }


def queries_per_device(options: TrainingOptions, device: torch.device) -> int:
    """How many of a step's queries each device gets.

    One process uses all GPUs of its machine (``nn.DataParallel``). If ``torchrun`` starts several, each uses one.

    Raises:
        InputError: The queries can't be split evenly.
    """
    visible = torch.cuda.device_count() if device.type == "cuda" else 1
    devices = int(os.environ.get("WORLD_SIZE", visible))
    if options.queries_per_step % devices:
        raise InputError(f"queries_per_step={options.queries_per_step} can't be split over {devices} devices evenly")
    return options.queries_per_step // devices


def train(
    model: CrossEncoder,
    groups: Sequence[Rows],
    *,
    collator: GroupCollator,
    validation: Validation | None,
    options: TrainingOptions,
    states: Path,
    device: torch.device,
    verbose: bool = True,
) -> TrainingReport:
    """Trains a model in place, continuing from the last state in the folder ``states`` if there is one.

    ``groups`` are arrays of row positions in training order. ``validation`` evaluates the model before the first step
    and at each saved state; afterwards the model has the weights of the best one. All visible GPUs are used, unless
    ``device`` is a CPU.
    """
    evaluate = validation is not None
    if options.gradient_checkpointing:
        encoder: Any = model.bert_model
        encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trainer = _PairTrainer(
        model=model,
        args=_arguments(options, states, evaluate=evaluate, device=device),
        train_dataset=groups,
        eval_dataset=[] if evaluate else None,  # the Trainer wants one; the validation frames take its place
        data_collator=collator,
        callbacks=[_Patience(options.patience)] if evaluate and options.patience is not None else [],
        options=options,
        validation=validation,
    )
    report = TrainingReport(
        states.parent,
        measure=None if validation is None else str(validation.measure),
        evaluate=trainer.measure,
        verbose=verbose,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(report)
    last_state = _last_state(states)
    if trainer.average is not None and last_state is not None:
        trainer.average.load(Path(last_state))
    with _without_bars():
        trainer.train(resume_from_checkpoint=last_state)
    if trainer.average is not None:
        best_state = trainer.state.best_model_checkpoint if evaluate else None
        if best_state is not None:
            trainer.average.load(Path(best_state))
        trainer.average.move_into_model()
    return report


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hides the progress bars that transformers shows when it reads or writes weights."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class _PairTrainer(transformers.Trainer):
    """Scores every candidate of a step's queries and compares them within each query."""

    def __init__(self, *, options: TrainingOptions, validation: Validation | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.options = options
        self.loss = options.chosen_loss
        self.validation = validation
        self.average: AveragedWeights | None = None
        if options.averaging is not None:
            self.average = AveragedWeights(self._network, options.averaging)
            self.add_callback(_Averaging(self.average))
        # The loss is already a mean over the step, so the Trainer must not divide it by a number of labels.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, *_: Any, **__: Any
    ) -> torch.Tensor:
        """The loss of one step; `GroupCollator` makes the inputs."""
        # Accelerate wraps a model in autocast, unless DataParallel spreads it over several GPUs.
        with self.accelerator.autocast():
            scores = torch.cat([model(**batch) for batch in inputs["batches"]]).float()  # (pairs,)
        labels = inputs["labels"]  # (queries, candidates)
        grid = scores.new_zeros(labels.numel()).scatter(0, inputs["cells"], scores).view(labels.shape)
        return self.loss(grid, labels, inputs.get("teacher"))

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        # The groups are in training order already, so that a resumed run equals an uninterrupted one.
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def create_optimizer(self, *arguments: Any) -> torch.optim.Optimizer:
        """The Trainer's AdamW, with the head's own learning rate."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*arguments)
        if self.options.head_learning_rate is not None:
            encoder = {id(weight) for weight in self._network.bert_model.parameters()}
            for group in [*optimizer.param_groups]:
                head = [weight for weight in group["params"] if id(weight) not in encoder]
                group["params"] = [weight for weight in group["params"] if id(weight) in encoder]
                optimizer.add_param_group({**group, "params": head, "lr": self.options.head_learning_rate})
        return optimizer

    def measure(self) -> float:
        """The validation measure of the model as it is now, or of its averaged weights if there are any."""
        if self.validation is None:
            raise InputError("validation needs validation frames")
        with nullcontext() if self.average is None else self.average.in_model():
            value = self.validation.evaluate(self._network)
        self._network.train()  # scoring switched it to evaluation mode
        return value

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Ranks the validation candidates, and tells the Trainer."""
        metrics = {LOGGED_MEASURE: self.measure()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, *_: Any) -> int:
        """Not counted: the Trainer's estimate expects a single batch of a language model."""
        return 0

    @property
    def _network(self) -> CrossEncoder:
        network: Any = self.model
        return cast(CrossEncoder, network)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # A state is whole once the Trainer has written its own file, which comes after this.
        super()._save(output_dir, state_dict)
        if self.average is not None and output_dir is not None:
            self.average.save(Path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Early versions of the Trainer save numpy's random state, which torch >= 2.6 refuses to load by default.
        allowed = [np.empty(0).__reduce__()[0], np.ndarray, np.dtype, type(np.dtype(np.uint32))]
        safe_globals = getattr(torch.serialization, "safe_globals", lambda _: nullcontext())
        with safe_globals(allowed):
            super()._load_rng_state(checkpoint)


class _Averaging(transformers.TrainerCallback):
    """Takes each step's weights into the average."""

    def __init__(self, average: AveragedWeights) -> None:
        self.average = average

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.average.update(state.global_step)


class _Patience(transformers.EarlyStoppingCallback):
    """Early stopping that survives resuming: a run that had stopped trains no further."""

    stopped_before = False

    def on_train_begin(self, args: Any, state: Any, control: transformers.TrainerControl, **arguments: Any) -> None:
        super().on_train_begin(args, state, control, **arguments)  # type: ignore[no-untyped-call]
        self.stopped_before = self.early_stopping_patience_counter >= self.early_stopping_patience

    def on_step_end(self, args: Any, state: Any, control: transformers.TrainerControl, **_: Any) -> None:
        if self.stopped_before:  # the Trainer can only stop after a step, which is then neither evaluated nor saved
            control.should_training_stop = True
            control.should_evaluate = control.should_save = control.should_log = False


def _arguments(
    options: TrainingOptions, states: Path, *, evaluate: bool, device: torch.device
) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(states),
        use_cpu=device.type == "cpu",
        per_device_train_batch_size=queries_per_device(options, device),
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        **_schedule(options),
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
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
        disable_tqdm=True,  # `TrainingReport` has a bar
        dataloader_pin_memory=device.type == "cuda",
        restore_callback_states_from_checkpoint=True,
        ddp_broadcast_buffers=False,  # processes may need different numbers of forward passes
    )


def _schedule(options: TrainingOptions) -> dict[str, Any]:
    if not options.final_learning_rate:
        return {"lr_scheduler_type": _SCHEDULES[options.schedule]}
    falls_to = {"lr_end": options.final_learning_rate, "power": 1.0}
    return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": falls_to}


def _last_state(states: Path) -> str | None:
    """The newest complete state. The Trainer writes its own file last, so a state without it was cut short."""
    found = [folder for folder in states.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _is_whole(folder)]
    return str(max(found, key=lambda folder: int(folder.name.rpartition("-")[2]))) if found else None


def _is_whole(state: Path) -> bool:
    try:
        json.loads((state / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _spread(values: npt.NDArray[Any], cells: npt.NDArray[np.int64], shape: tuple[int, int], *, empty: int) -> Any:
    grid = np.full(shape, empty, dtype=values.dtype)
    grid.flat[cells] = values
    return grid


def _tensors(batch: Any) -> dict[str, torch.Tensor]:
    arrays = {name: getattr(batch, name) for name in ("input_ids", "attention_mask", "token_type_ids")}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
