"""`hpotune.TrainerCallback`: reports, rungs and checkpoints for transformers' Trainer and the trainers of TRL.

This module imports transformers, and is itself imported only when the class is used. Outside hpotune the callback does
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import transformers
from transformers import TrainerControl as Control
from transformers import TrainerState as State
from transformers import TrainingArguments as Arguments

from hpotune.api.in_trial.trial_process import (
    COMPLETE,
    TrialProcess,
    checkpoint_dir,
    last_checkpoint,
    this_trial,
)
from hpotune.workspace.atomic_files import write_atomic


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Reports what the Trainer logs, saves into the trial's checkpoint folder, and ends training where the trial stops.

    At a rung the model is evaluated (unless `eval_strategy` is `no`) and saved; before the end of a job it is saved.
    Pass `resume_from_checkpoint=hpotune.last_checkpoint()` to `train`.
    """

    def __init__(self) -> None:
        self._restore: Callable[[], None] | None = None

    @property
    def _trial(self) -> TrialProcess:
        return this_trial()

    def on_init_end(self, args: Arguments, state: State, control: Control, **others: object) -> None:
        """Let checkpoints be written to the trial's own folder: trials that share one would continue each other's."""
        folder = checkpoint_dir()
        if folder is not None:
            args.output_dir = str(folder)

    def on_train_begin(self, args: Arguments, state: State, control: Control, **others: object) -> None:
        """Train nothing where the checkpoint is that of the rung: the attempt before was killed after it was saved."""
        folder = checkpoint_dir()
        if folder is None:
            return
        if self._trial.leads and last_checkpoint() is None:
            self._record_checkpoint(folder, None)
        self._trial.continue_from(state.global_step, steps=state.max_steps)
        self._trial.signal.take()
        if state.global_step > 0 and (self._trial.at_rung() or state.global_step >= state.max_steps):
            control.should_training_stop = True
            self._restore = _give_no_batches()

    def on_train_end(self, args: Arguments, state: State, control: Control, **others: object) -> None:
        """Let the next training have its batches."""
        if self._restore is not None:
            self._restore()
            self._restore = None

    def on_step_end(self, args: Arguments, state: State, control: Control, **others: object) -> None:
        """End training at the rung and before the end of the job, with a checkpoint."""
        if not self._trial.should_stop(step=state.global_step):
            return
        control.should_training_stop = control.should_save = True
        if self._trial.at_rung() and args.eval_strategy != "no":
            control.should_evaluate = True

    def on_log(
        self,
        args: Arguments,
        state: State,
        control: Control,
        logs: dict[str, object] | None = None,
        **others: object,
    ) -> None:
        """Report the losses of training and the metrics of an evaluation."""
        self._trial.report(logs or {}, step=state.global_step, steps=state.max_steps or None)

    def on_save(self, args: Arguments, state: State, control: Control, **others: object) -> None:
        """Record that the checkpoint was written to its end."""
        folder = checkpoint_dir()
        if folder is not None and self._trial.leads and Path(args.output_dir) == folder:
            self._record_checkpoint(folder, f"checkpoint-{state.global_step}")

    def _record_checkpoint(self, folder: Path, name: str | None) -> None:
        write_atomic(folder / COMPLETE, json.dumps({"checkpoint": name}))


def _give_no_batches() -> Callable[[], None]:
    """Let the Trainer find no batch, since no callback can end a training before its first step; returns the undoing.

    https://github.com/huggingface/transformers: `Trainer.get_batch_samples` is called once before each step.
    """
    usual = transformers.Trainer.get_batch_samples

    def no_batches(*arguments: object, **others: object) -> tuple[list[object], None]:
        return [], None

    transformers.Trainer.get_batch_samples = no_batches

    def restore() -> None:
        transformers.Trainer.get_batch_samples = usual

    return restore
