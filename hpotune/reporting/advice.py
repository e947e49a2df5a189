"""What to do about a failed trial, and about a study that has stopped: one sentence a cause or kind of stop reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.stop_reason import StopKind, StopReason
from hpotune.records.trial import Attempt, TrialRow
from hpotune.reporting.format import number

_MEMORY_KEYS = ("train.per_device_train_batch_size", "data.max_length", "lora.r")
"""Keys that a fine-tuning's memory depends on most."""
_OF_A_FAILURE: Mapping[Cause, str] = {
    "node": "the node {host} is at fault, not the trial: report it to the cluster's staff, and add it to "
    "resources.exclude to avoid it; `hpotune retry` repeats the trial on another node",
    "timeout": "raise resources.time (now {time}), or write checkpoints more often, so that each attempt "
    "gets further than the last",
    "preempted": "nothing to do: its job was preempted, and the trial continues from its checkpoint; a partition or "
    "QOS without preemption avoids the wait",
    "killed": "its process was killed: look for the kernel's out-of-memory killer (raise resources.mem), for scancel, "
    "and for a reboot of {host}",
    "store": "the store or the disk was not available: `hpotune doctor` checks both, then `hpotune retry`",
    "truth": "a sanity check failed, so the trial's score would be wrong: read the check's message above; `checks` "
    "in the study file says what is checked",
    "data": "the rows do not match the study file: fix the rows that the message names, then `hpotune retry`; a wrong "
    "key of `data` needs a copy of the study file with another name",
    "user": "your program fails at this point: fix what the lines below show, then `hpotune retry`",
    "library": "an installed library fails with these settings, or is missing: search its issues for the message; "
    "install another version and `hpotune retry`, or change the setting in a copy of the study file",
    "unknown": "the cause is not known, perhaps it is an error in hpotune: `hpotune logs STUDY {trial} -n 0` prints "
    "the whole log, to be reported with the message",
}
_OF_FINE_TUNING = (
    "change the key that the message names in a copy of the study file with another name; or, if it is your own code "
    "(of a task or of the model's repository) that fails, fix it, then `hpotune retry`"
)
"""What to do about the cause `user` where there is no function or command."""
_NOT_FINITE = (
    "{what} a value that is NaN or infinite: look for a division by zero, a logarithm of 0 or an overflow at this "
    "point (`hpotune logs STUDY {trial}`); if the point has no value, nothing is to be done: the search learns from "
    "it, and such trials do not count against budget.max_failed"
)
"""What to do about the cause `nan` of a function or a command, which need not train anything."""
_OF_A_STOP: Mapping[StopKind, str] = {
    "budget_used": "hpotune extend {folder} --trials +10",
    "goal_reached": "nothing to do: the goal is reached; for a better score copy {folder}/study.yaml, change "
    "name and goal",
    "plateau": "stop here: the search expects no better point; or copy {folder}/study.yaml, change name, and lower or "
    "remove budget.plateau",
    "max_failed": "fix the cause, then hpotune retry {folder}; or hpotune extend {folder} --max-failed +5",
    "max_diverged": "copy {folder}/study.yaml, change name, and narrow the ranges that diverge; or hpotune extend "
    "{folder} --max-failed +5",
    "equal_failures": "fix the cause, then hpotune retry {folder}",
    "gpu_hours": "hpotune extend {folder} --gpu-hours +10",
    "wall_time": "hpotune extend {folder} --wall-time +12:00:00",
    "until": "hpotune extend {folder} --until YYYY-MM-DD",
    "job_too_short": "raise resources.time",
    "list_done": "hpotune retry {folder}, once the cause of the failed trials is fixed",
}


def stop_advice(reason: StopReason, folder: Path) -> str:
    """What to do about a study that has stopped, by the kind of its stop reason: one line."""
    return _OF_A_STOP[reason.kind].format(folder=quote(str(folder)))


def failure_advice(config: StudyConfig, row: TrialRow, attempts: Sequence[Attempt], cause: Cause) -> str:
    """What to do about a failed or interrupted trial, by its cause: one line."""
    if cause == "oom":
        return _oom(config, row, attempts)
    if cause == "nan":
        return _nan(config, row)
    if cause == "user" and config.model is not None:
        return _OF_FINE_TUNING
    host = attempts[-1].worker.host if attempts else "its node"
    return _OF_A_FAILURE[cause].format(host=host, time=config.resources.time, trial=row.number)


def _oom(config: StudyConfig, row: TrialRow, attempts: Sequence[Attempt]) -> str:
    if attempts and attempts[-1].ended_by_other:  # Slurm killed the job: its main memory, not the GPU's
        mem = config.resources.mem or config.resources.mem_per_gpu or config.resources.mem_per_cpu
        return f"the job used more main memory than it has: raise resources.mem (now {mem or 'the cluster default'})"
    peak = row.metrics.get("peak_memory_gb")
    used = f"it used {number(peak)} GB at its peak: " if isinstance(peak, (int, float)) else ""
    if config.model is None:
        return f"{used}reduce your program's memory, or request a larger GPU or more resources.mem"
    if not config.trains:
        return (
            f"{used}lower score.batch_size, score.generation.num_beams or max_gen_toks, or shard the model over more "
            "resources.gpus"
        )
    drawn = [f"{key} (here {number(row.params[key])})" for key in _MEMORY_KEYS if key in row.params]
    keys = drawn + [key for key in _MEMORY_KEYS if key not in row.params]
    return (
        f"{used}lower {', '.join(keys[:-1])} or {keys[-1]}, set train.gradient_checkpointing: true, or shard the model "
        "over more resources.gpus"
    )


def _nan(config: StudyConfig, row: TrialRow) -> str:
    if config.model is None:
        what = "your function returned" if config.python is not None else "your command printed"
        return _NOT_FINITE.format(what=what, trial=row.number)
    rate = row.params.get("train.learning_rate")
    if rate is not None:
        return (
            f"it diverged at train.learning_rate={number(rate)}: the search learns from it; if many trials do, lower "
            "the upper end of the range"
        )
    return "it diverged: lower train.learning_rate, or clip gradients more strongly (train.max_grad_norm)"
