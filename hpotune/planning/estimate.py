"""Estimated times of trials and jobs, in seconds: learned from this study, probed, given in its file, or assumed.

Reads no files: measured_times.py and study_plan.py do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, mean, median
from typing import Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.planning.rung_forecast import rung_forecast, trial_seconds
from hpotune.schedule.rounds import look_s

TimeName = Literal["trial_s", "load_s", "baseline_s", "start_s", "queue_s", "gap_s", "follow_up_s"]
MEANINGS: dict[TimeName, str] = {
    "trial_s": "a trial trains and is scored",
    "load_s": "its process imports libraries, loads model and data",
    "baseline_s": "the base model is scored, without loading",
    "start_s": "from a job's start to its first trial",
    "queue_s": "a job waits in the queue",
    "gap_s": "from the end of a job to the start of the next one of its array",
    "follow_up_s": "a follow-up job runs until it has submitted",
}
DEFAULTS: dict[TimeName, float] = {
    "trial_s": 600,
    "load_s": 60,
    "start_s": 10,
    "queue_s": 60,
    "gap_s": 2,
    "follow_up_s": 4,
}
"""Assumed where nothing is known: a short fine-tuning of a small model on a quiet cluster."""
PLAN_KEYS: tuple[TimeName, ...] = ("trial_s", "load_s", "start_s", "queue_s")
"""Keys of `plan` in a study file."""
STORED_KEYS: Mapping[str, TimeName] = {"turn_s": "gap_s", "step_s": "follow_up_s"}  # words: ignore
"""Stored key -> name, where they differ: the keys of probe.json and plan.json never change."""
_STORED_NAMES: Mapping[str, str] = {name: key for key, name in STORED_KEYS.items()}


def stored_name(name: str) -> str:
    """The key that probe.json and plan.json hold an estimate under."""
    return _STORED_NAMES.get(name, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredTimes:
    """Seconds that were measured in a study's folder, one value per occurrence."""

    trials: Sequence[float] = ()
    """Finished trials from claim to end, with loading; without the baseline."""
    baselines: Sequence[float] = ()
    loads: Sequence[float] = ()
    starts: Sequence[float] = ()
    queues: Sequence[float] = ()
    gaps: Sequence[float] = ()
    """From the end of an array element to the start of the next."""
    follow_ups: Sequence[float] = ()
    impossible: int = 0
    """How many times were left out: the clocks of the nodes differ, or were set meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number of seconds and its source."""

    value: float
    source: str
    is_known: bool = True
    """False: assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """The times that a plan is based on."""

    trial_s: Estimate
    load_s: Estimate
    baseline_s: Estimate
    start_s: Estimate
    queue_s: Estimate
    gap_s: Estimate
    follow_up_s: Estimate
    trials: tuple[float, ...] = ()
    """Of each trial, without loading; their spread makes workers wait. Measured, else by `rungs_per_trial`."""
    rungs_per_trial: Sequence[Sequence[int]] = ()
    """The rungs that each trial is expected to be scored at; empty: no rungs, or trials were measured."""
    impossible: int = 0
    """As MeasuredTimes.impossible."""

    def by_name(self) -> dict[TimeName, Estimate]:
        """The estimates by name."""
        return {name: getattr(self, name) for name in MEANINGS}

    @property
    def simulation_times(self) -> SimulationTimes:
        """The numbers for a simulation."""
        return SimulationTimes(
            trials_s=self.trials or (self.trial_s.value,),
            **{name: estimate.value for name, estimate in self.by_name().items() if name != "trial_s"},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationTimes:
    """Input of a simulation, in seconds."""

    trials_s: Sequence[float]
    """Of trial 1, 2, …, without loading; repeated for further trials."""
    baseline_s: float | None = None
    """None: the same as a trial."""
    load_s: float = 0.0
    start_s: float = 0.0
    queue_s: float = 0.0
    gap_s: float = 0.0
    follow_up_s: float = 0.0

    @property
    def look_s(self) -> float:
        """How often a worker that waits for its round reads the store."""
        return look_s(self.load_s + fmean(self.trials_s))


def estimates(config: StudyConfig, learned: MeasuredTimes, probed: Mapping[str, float]) -> Estimates:
    """Each estimate from its best source: learned, then probed, then `plan` of the study file, then assumed."""
    load = _load(config, learned, probed)
    trial = _trial(config, learned, probed, load_s=load.value)
    trials = tuple(max(0.0, took - load.value) for took in learned.trials)
    ladder, expected = config.search.ladder, list[list[int]]()
    if ladder is not None and not trials:
        expected = rung_forecast(config, ladder)
        trials = tuple(
            trial_seconds(ladder, rungs, trial_s=trial.value, load_s=load.value) for rungs in expected
        )
    return Estimates(
        trial_s=trial,
        load_s=load,
        baseline_s=_baseline(learned, probed, trial=trial, load_s=load.value),
        start_s=_estimate(config, "start_s", learned.starts, probed, of="jobs"),
        queue_s=_estimate(config, "queue_s", learned.queues, probed, of="jobs"),
        gap_s=_estimate(config, "gap_s", learned.gaps, probed, of="jobs"),
        follow_up_s=_estimate(config, "follow_up_s", learned.follow_ups, probed, of="follow-up jobs"),
        trials=trials,
        rungs_per_trial=expected,
        impossible=learned.impossible,
    )


def _load(config: StudyConfig, learned: MeasuredTimes, probed: Mapping[str, float]) -> Estimate:
    found = _estimate(config, "load_s", learned.loads, probed, of="trials")
    if found.is_known or config.model is not None:
        return found
    return Estimate(value=0.0, source="part of the trial: your program loads what it needs")


def _trial(
    config: StudyConfig, learned: MeasuredTimes, probed: Mapping[str, float], *, load_s: float
) -> Estimate:
    if learned.trials:
        return Estimate(
            value=max(0.0, mean(learned.trials) - load_s),
            source=f"learned from {_count(learned.trials, 'trials')}",
        )
    return _estimate(config, "trial_s", (), probed, of="trials")


def _baseline(
    learned: MeasuredTimes, probed: Mapping[str, float], *, trial: Estimate, load_s: float
) -> Estimate:
    if learned.baselines:
        return Estimate(value=max(0.0, mean(learned.baselines) - load_s), source="learned from the baseline")
    if "baseline_s" in probed:
        return Estimate(value=probed["baseline_s"], source="probed")
    return Estimate(value=trial.value, source="the same as a trial", is_known=trial.is_known)


def _estimate(
    config: StudyConfig, name: TimeName, seen: Sequence[float], probed: Mapping[str, float], *, of: str
) -> Estimate:
    if seen:
        return Estimate(value=typical_value(name, seen), source=f"learned from {_count(seen, of)}")
    if name in probed:
        return Estimate(value=probed[name], source="probed")
    if name in PLAN_KEYS and name in config.plan.model_fields_set and getattr(config.plan, name) is not None:
        return Estimate(value=float(getattr(config.plan, name)), source="given")
    return Estimate(value=DEFAULTS[name], source="assumed", is_known=False)


def typical_value(name: str, seen: Sequence[float]) -> float:
    """The expected value: the mean, since times add up; the median for queues, which have outliers."""
    return median(seen) if name == "queue_s" else mean(seen)


def _count(seen: Sequence[float], of: str) -> str:
    return f"{len(seen)} {of if len(seen) > 1 else of.removesuffix('s')}"


def assumptions(found: Estimates) -> str:
    """A note on what is only assumed and how to measure it; empty where all keys of `plan` are known."""
    names = [name for name in PLAN_KEYS if not found.by_name()[name].is_known]
    if not names:
        return ""
    listed = ", ".join(f"{name} ({MEANINGS[name]}): {found.by_name()[name].value:g} s" for name in names)
    example = ", ".join(f"{name}: SECONDS" for name in names)
    return (
        f"assumed, not known: {listed}; measure them with `hpotune plan --probe`, or write into the study file "
        f"plan: {{{example}}}"
    )


def probe_values(found: MeasuredTimes) -> dict[str, float]:
    """The measured values for a probe's file, by the names of Estimates; `trial_s` without loading."""
    load_s = mean(found.loads) if found.loads else 0.0
    numbers = {
        "trial_s": [trial_seconds - load_s for trial_seconds in found.trials],
        "baseline_s": [trial_seconds - load_s for trial_seconds in found.baselines],
        "load_s": found.loads,
        "start_s": found.starts,
        "queue_s": found.queues,
        "gap_s": found.gaps,
        "follow_up_s": found.follow_ups,
    }
    return {name: round(max(0.0, typical_value(name, seen)), 2) for name, seen in numbers.items() if seen}
