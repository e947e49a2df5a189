"""GPU-hours of a study: used so far, and what running and further trials are expected to use. Pure functions.

They count what trials used; what jobs held is in planning/measured_times.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.schedule.job_fit import expected_s


def gpus_per_job(config: StudyConfig) -> int:
    """GPUs of one job, over all its nodes."""
    return config.resources.nodes * config.resources.gpus_per_node


def gpu_hours_used(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> float:
    """GPU-hours of all attempts; those of running ones are counted up to `now`."""
    running_s = sum(
        max(0.0, now.timestamp() - row.start) for row in rows if row.state == "running" and row.start
    )
    return sum(row.gpu_hours for row in rows) + running_s * gpus_per_job(config) / 3600


def gpu_hours_per_trial(config: StudyConfig, rows: Sequence[TrialRow]) -> float:
    """Expected GPU-hours of one trial; 0 where nothing is known yet."""
    return (expected_s(config, rows) or 0.0) / 3600 * gpus_per_job(config)


def gpu_hours_of_running(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> float:
    """GPU-hours that the running trials are expected to use from now to their ends."""
    gpus, per_trial = gpus_per_job(config), gpu_hours_per_trial(config, rows)
    return sum(
        max(
            0.0, per_trial - max(0.0, now.timestamp() - row.start) / 3600 * gpus
        )  # a node's clock may be ahead
        for row in rows
        if row.state == "running" and row.start
    )
