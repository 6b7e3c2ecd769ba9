"""What a training run says: a progress bar, a line for each saved state, and a summary at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyterrier as pt
import transformers

from pyterrier_bertcat.training.history import HISTORY_FILE, LOGGED_MEASURE, history_bytes, history_frame
from pyterrier_bertcat.training.run_folder import write_whole

logger = logging.getLogger(__name__)

# Seconds per step even if a second has several: tqdm would turn the figure around.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_inv_fmt}{postfix}]"


class TrainingReport(transformers.TrainerCallback):
    """Follows a training run, and keeps its history.

    Args:
        output: The run's folder, where the history is written whenever a state is saved.
        measure: The validation measure's name. None: there are no validation frames.
        evaluate: Measures the model as it is. It is called before the first step, if there are validation frames.
        verbose: Shows the bar and the lines. Otherwise the lines go to the log.

    Attributes:
        history: The frame that `history_frame` describes, up to the last saved state or the end.
        summary: The outcome, at the end, in two lines: the best measure or the last loss; steps and time.
    """

    def __init__(self, output: Path, *, measure: str | None, evaluate: Callable[[], float], verbose: bool) -> None:
        self.output = output
        self.measure = measure
        self.history = history_frame([], measure)
        self.summary = ""
        self._evaluate = evaluate
        self._verbose = verbose
        self._bar: Any = None
        self._began_at, self._began_with, self._earlier_s = 0.0, 0, 0.0  # time, step, and seconds before this process
        self._first_step_at = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Says where the run begins, and measures the start."""
        self._verbose &= state.is_world_process_zero
        self._began_with = state.global_step
        self._earlier_s = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
        self._began_at = time.monotonic()
        if state.global_step >= state.max_steps:
            self.say(f"the run in {self.output} is finished: step {state.global_step:,} of {state.max_steps:,}")
            return
        if state.global_step:
            self.say(f"continuing from step {state.global_step:,} of {state.max_steps:,} in {self.output}")
        if self._verbose:  # without smoothing, the time left counts the validations and saved states that are to come
            self._bar = pt.tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                unit="step",
                smoothing=0,
                bar_format=_BAR,
            )
        if not state.global_step and self.measure is not None:
            self._describe("validating")
            before = self._evaluate()
            state.log_history.append({LOGGED_MEASURE: before, "step": 0, "seconds": self._seconds})
            self.say(f"before training: {self.measure} {before:.4f}")
            if self._bar is not None:
                self._bar.unpause()
        self._first_step_at = time.monotonic()
        self._describe("training")

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Notes the time, and shows the loss beside the bar."""
        state.log_history[-1]["seconds"] = self._seconds
        if self._bar is not None and "loss" in more["logs"]:
            self._bar.set_postfix_str(f"loss {more['logs']['loss']:.4f}", refresh=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Moves the bar, and has the loss logged with each saved state, so that a resumed run logs the same means."""
        control.should_log |= control.should_save
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
        if control.should_evaluate:
            self._describe("validating")

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Says that the training continues."""
        self._describe("training")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the history, and says how the training goes."""
        self._keep_history(state)
        self.say(
            f"step {state.global_step:,} of {state.max_steps:,}: {self._figures(self.history)}, {self._pace(state)}"
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the bar, and keeps the whole history."""
        self._keep_history(state)
        self.summary = self._summary(state)
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, line: str) -> None:
        """Shows a line above the bar, or logs it."""
        if self._verbose:
            pt.tqdm.write(line)
        else:
            logger.info(line)

    def _describe(self, activity: str) -> None:
        if self._bar is not None:
            self._bar.set_description(activity)

    def _summary(self, state: Any) -> str:
        stopped = f" of {state.max_steps:,}" if state.global_step < state.max_steps else ""
        ran = f"{state.global_step:,}{stopped} steps in {pt.tqdm.format_interval(self._seconds)}"
        if per_step := self._seconds_per_step(state.global_step):
            ran += f" ({per_step:.2f} s/step)"
        if self.measure is None:
            return f"{self._figures(self.history)}\n{ran}"
        measured = self.history.dropna(subset=[self.measure]).set_index("step")[self.measure]
        start, trained = measured.get(0), measured.drop(0, errors="ignore")
        if trained.empty:
            return ran
        best = f"{self.measure} {trained.max():.4f} at step {trained.idxmax():,}"
        if start is not None:
            best += f" (before training {start:.4f}{'' if trained.max() > start else ': no state is better'})"
        return f"{best}\n{ran}"

    def _figures(self, history: pd.DataFrame) -> str:
        """The last measure and loss."""
        names = [name for name in (self.measure, "loss") if name is not None and history[name].notna().any()]
        return ", ".join(f"{name} {history[name].dropna().iloc[-1]:.4f}" for name in names) or "no figures yet"

    def _pace(self, state: Any) -> str:
        per_step = self._seconds_per_step(state.global_step) or 0.0
        left = pt.tqdm.format_interval(per_step * (state.max_steps - state.global_step))
        return f"{per_step:.2f} s/step, {left} left"

    def _seconds_per_step(self, step: int) -> float | None:
        """Counts validation and saving after the first step; None if this process has made no step."""
        made = step - self._began_with
        return (time.monotonic() - self._first_step_at) / made if made else None

    @property
    def _seconds(self) -> float:
        """Of the run so far, without the pauses between processes that continued it."""
        return round(self._earlier_s + time.monotonic() - self._began_at, 3)

    def _keep_history(self, state: Any) -> None:
        self.history = history_frame(state.log_history, self.measure)
        write_whole(self.output / HISTORY_FILE, history_bytes(self.history))
