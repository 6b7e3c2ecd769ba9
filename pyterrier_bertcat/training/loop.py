"""The training loop: `transformers.Trainer`, told how to score groups and how to evaluate a ranking.

The Trainer brings mixed precision, several devices, progress, saved states and resuming; this module adds the loss over
(queries, candidates) grids, the order of the groups, and a ranking measure on validation frames.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset, SequentialSampler
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from pyterrier_bertcat.devices import choose_device
from pyterrier_bertcat.errors import InputError
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


def train(model: torch.nn.Module, data: TrainingData, options: TrainingOptions, states: Path) -> None:
    """Trains a model in place, going on from the last state in ``states`` where there is one.

    Args:
        model: Takes ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, gives scores (pairs,).
        data: Groups, how to make tensors of them, and the validation.
        options: The run's options.
        states: Folder of the saved states.
    """
    trainer = _PairTrainer(
        model=model,
        args=_arguments(options, states, evaluate=data.validation is not None),
        train_dataset=GroupDataset(data.groups),
        eval_dataset=_NoExamples() if data.validation is not None else None,
        data_collator=data.collator,
        callbacks=_callbacks(options, evaluate=data.validation is not None),
        loss=options.chosen_loss,
        validation=data.validation,
    )
    last_state = _last_state(states)
    if last_state is not None:
        logger.info("going on from %s", last_state)
    trainer.train(resume_from_checkpoint=last_state)
    if data.validation is not None:
        logger.info("best validation %s: %s", options.measure, trainer.state.best_metric)


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


class _NoExamples(Dataset[int]):
    """The Trainer asks for a dataset before it evaluates; the validation frames take its place."""

    def __len__(self) -> int:
        return 0


def _arguments(options: TrainingOptions, states: Path, *, evaluate: bool) -> transformers.TrainingArguments:
    devices = max(1, torch.cuda.device_count()) if "WORLD_SIZE" not in os.environ else int(os.environ["WORLD_SIZE"])
    if options.queries_per_step % devices:
        raise InputError(f"queries_per_step={options.queries_per_step} can't be split over {devices} devices evenly")
    return transformers.TrainingArguments(
        output_dir=str(states),
        use_cpu=choose_device(None).type == "cpu",
        per_device_train_batch_size=options.queries_per_step // devices,
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
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )


def _last_state(states: Path) -> str | None:
    """The newest saved state that is whole: the Trainer writes its own file last, and a kill may come before that."""
    found = [folder for folder in states.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (folder / TRAINER_STATE_NAME).is_file()]
    return str(max(found, key=lambda folder: int(folder.name.rpartition("-")[2]))) if found else None


def _callbacks(options: TrainingOptions, *, evaluate: bool) -> list[transformers.TrainerCallback]:
    if options.patience is None or not evaluate:
        return []
    return [transformers.EarlyStoppingCallback(early_stopping_patience=options.patience)]
