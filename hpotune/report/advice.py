"""What to do about a failure: one sentence a cause, with the values of the trial that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpotune.config.schema.execution import Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Attempt, TrialRow
from hpotune.report.format import number

_MEMORY_KEYS = ("train.per_device_train_batch_size", "data.max_length", "lora.r")
"""What a fine-tuning's memory grows with."""


def advice(config: StudyConfig, row: TrialRow, attempts: Sequence[Attempt], cause: Cause) -> str:
    """One sentence: what to change, or that nothing is to be done."""
    if cause == "oom":
        return _oom(config, row)
    if cause == "nan":
        return _nan(config, row)
    host = attempts[-1].worker.host if attempts else "its node"
    return _SENTENCES[cause].format(host=host, time=config.resources.time, trial=row.number)


_SENTENCES: Mapping[Cause, str] = {
    "node": "node {host} is at fault, not the trial: tell the cluster's staff, and name it in resources.exclude to "
    "keep away for good; `hpotune retry` tries the trial elsewhere",
    "timeout": "raise resources.time (now {time}), or let the trial checkpoint more often, so that an attempt gets "
    "further than the one before",
    "preempted": "nothing to do: its job made room for another, and the trial goes on from its checkpoint; a partition "
    "or QOS that is not preempted would spare the wait",
    "killed": "somebody or something killed it: look for the kernel's out-of-memory killer (raise resources.mem), for "
    "scancel, and for a reboot of {host}",
    "store": "the store or the disk was away: `hpotune doctor` looks at both, then `hpotune retry`",
    "truth": "a truth check failed, so its number would have been a lie: read the check's words above; checks: in the "
    "study file says what is checked",
    "data": "the data is not what the study file says: mend data: (path, split, prompt, columns), then `hpotune retry`",
    "user": "your program or this point is at fault: mend what the lines below show, then `hpotune retry`",
    "unknown": "nothing is known but what the lines below show; `hpotune logs STUDY {trial} -n 0` prints the whole log",
}


def _oom(config: StudyConfig, row: TrialRow) -> str:
    if row.failure and "OUT_OF_MEMORY" in row.failure.message:
        asked = config.resources.mem or config.resources.mem_per_gpu or config.resources.mem_per_cpu
        return f"the job's main memory was too small: raise resources.mem (now {asked or 'the default of the cluster'})"
    peak = row.metrics.get("peak_memory_gb")
    seen = f"it held {number(peak)} GB at its peak: " if isinstance(peak, (int, float)) else ""
    if config.model is None:
        return f"{seen}let your program use less memory, or ask for a larger GPU or more resources.mem"
    drawn = [f"{key} (here {number(row.params[key])})" for key in _MEMORY_KEYS if key in row.params]
    keys = drawn + [key for key in _MEMORY_KEYS if key not in row.params]
    return (
        f"{seen}lower {', '.join(keys[:-1])} or {keys[-1]}, set train.gradient_checkpointing: true, or shard the model "
        "over more resources.gpus"
    )


def _nan(config: StudyConfig, row: TrialRow) -> str:
    rates = {
        name: value for name, value in row.params.items() if "learning_rate" in name or name.endswith("lr")
    }
    if rates:
        drawn = ", ".join(f"{name}={number(value)}" for name, value in rates.items())
        return f"it diverged with {drawn}: the search learns from that; if many do, lower the upper end of its range"
    lower = "lower train.learning_rate" if config.model is not None else "lower the step size"
    return f"it diverged: {lower}, or clip gradients harder"
