"""What a trial and its job take: learned from what has run, probed, given in the study file, or assumed. Seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.planning.rung_forecast import climbs, seconds
from hpotune.schedule.rounds import look_s

Name = Literal["trial_s", "load_s", "baseline_s", "start_s", "queue_s", "turn_s", "step_s"]
MEANS: dict[Name, str] = {
    "trial_s": "a trial trains and scores",
    "load_s": "its process imports, loads model and data",
    "baseline_s": "the untouched model is scored, loading left out",
    "start_s": "from a job's start to its first trial",
    "queue_s": "a job waits in the queue",
    "turn_s": "from the end of a job to the start of the next one of its array",
    "step_s": "a follow-up job works until it has submitted",
}
ASSUMED: dict[Name, float] = {
    "trial_s": 600,
    "load_s": 60,
    "start_s": 10,
    "queue_s": 60,
    "turn_s": 2,
    "step_s": 4,
}
"""Where nobody knows better: a short fine-tuning of a small model on a quiet cluster."""
GIVEN: tuple[Name, ...] = ("trial_s", "load_s", "start_s", "queue_s")
"""Keys of `plan:` in a study file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Seconds seen in a study's folder, each as often as it was seen."""

    trials: Sequence[float] = ()
    """Finished ones from claim to end, loading included; the baseline left out."""
    baselines: Sequence[float] = ()
    loads: Sequence[float] = ()
    starts: Sequence[float] = ()
    queues: Sequence[float] = ()
    turns: Sequence[float] = ()
    steps: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A number of seconds and where it comes from."""

    value: float
    source: str
    sure: bool = True
    """False: assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """All that a plan stands on."""

    trial_s: Figure
    load_s: Figure
    baseline_s: Figure
    start_s: Figure
    queue_s: Figure
    turn_s: Figure
    step_s: Figure
    trials: tuple[float, ...] = ()
    """Of each, loading left out: their spread makes workers wait for each other. Of finished ones, else by `climbs`."""
    climbs: Sequence[Sequence[int]] = ()
    """The rungs that each trial is expected to be scored at; empty: it has none, or finished ones are known."""

    def named(self) -> dict[Name, Figure]:
        """Each by its name."""
        return {name: getattr(self, name) for name in MEANS}

    @property
    def pace(self) -> Pace:
        """The bare numbers."""
        return Pace(
            trials_s=self.trials or (self.trial_s.value,),
            **{name: figure.value for name, figure in self.named().items() if name != "trial_s"},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What a simulation is told, in seconds."""

    trials_s: Sequence[float]
    """Of trial 1, 2, …, loading left out; begins again where it ends."""
    baseline_s: float | None = None
    """None: as a trial."""
    load_s: float = 0.0
    start_s: float = 0.0
    queue_s: float = 0.0
    turn_s: float = 0.0
    step_s: float = 0.0

    @property
    def look_s(self) -> float:
        """How often a worker that waits for its round looks."""
        return look_s(self.load_s + mean(self.trials_s))


def figures(config: StudyConfig, learned: Measured, probed: Mapping[str, float]) -> Figures:
    """Every figure from its best source: learned, then probed, then the file's `plan:`, then assumed."""
    load = _load(config, learned, probed)
    trial = _trial(config, learned, probed, load_s=load.value)
    trials = tuple(max(0.0, took - load.value) for took in learned.trials)
    ladder, expected = config.search.ladder, list[list[int]]()
    if ladder is not None and not trials:
        expected = climbs(config, ladder)
        trials = tuple(seconds(ladder, rungs, trial_s=trial.value, load_s=load.value) for rungs in expected)
    return Figures(
        trial_s=trial,
        load_s=load,
        baseline_s=_baseline(learned, probed, trial=trial, load_s=load.value),
        start_s=_figure(config, "start_s", learned.starts, probed, of="jobs"),
        queue_s=_figure(config, "queue_s", learned.queues, probed, of="jobs"),
        turn_s=_figure(config, "turn_s", learned.turns, probed, of="jobs"),
        step_s=_figure(config, "step_s", learned.steps, probed, of="steps"),
        trials=trials,
        climbs=expected,
    )


def _load(config: StudyConfig, learned: Measured, probed: Mapping[str, float]) -> Figure:
    found = _figure(config, "load_s", learned.loads, probed, of="trials")
    if found.sure or config.model is not None:
        return found
    return Figure(value=0.0, source="within the trial: your program loads what it needs")


def _trial(config: StudyConfig, learned: Measured, probed: Mapping[str, float], *, load_s: float) -> Figure:
    if learned.trials:
        return Figure(
            value=max(0.0, mean(learned.trials) - load_s),
            source=f"learned from {_count(learned.trials, 'trials')}",
        )
    return _figure(config, "trial_s", (), probed, of="trials")


def _baseline(learned: Measured, probed: Mapping[str, float], *, trial: Figure, load_s: float) -> Figure:
    if learned.baselines:
        return Figure(value=max(0.0, mean(learned.baselines) - load_s), source="learned from the baseline")
    if "baseline_s" in probed:
        return Figure(value=probed["baseline_s"], source="probed")
    return Figure(value=trial.value, source="as a trial", sure=trial.sure)


def _figure(
    config: StudyConfig, name: Name, seen: Sequence[float], probed: Mapping[str, float], *, of: str
) -> Figure:
    if seen:
        return Figure(value=usual(name, seen), source=f"learned from {_count(seen, of)}")
    if name in probed:
        return Figure(value=probed[name], source="probed")
    if name in GIVEN and name in config.plan.model_fields_set and getattr(config.plan, name) is not None:
        return Figure(value=float(getattr(config.plan, name)), source="given")
    return Figure(value=ASSUMED[name], source="assumed", sure=False)


def usual(name: str, seen: Sequence[float]) -> float:
    """What to expect of the next ones: the mean, since they add up; of queues the median: one night says little."""
    return median(seen) if name == "queue_s" else mean(seen)


def _count(seen: Sequence[float], of: str) -> str:
    return f"{len(seen)} {of if len(seen) > 1 else of.removesuffix('s')}"


def missing(found: Figures) -> str:
    """What is only assumed and how to know it; empty where all that a file may give is known."""
    names = [name for name in GIVEN if not found.named()[name].sure]
    if not names:
        return ""
    told = ", ".join(f"{name} ({MEANS[name]}): {found.named()[name].value:g} s" for name in names)
    example = ", ".join(f"{name}: SECONDS" for name in names)
    return f"assumed, not known: {told}; measure by `hpotune plan --probe`, or write plan: {{{example}}}"


def as_numbers(found: Measured) -> dict[str, float]:
    """The figures that were seen, for a probe's file: names as in Figures, `trial_s` without loading."""
    load_s = mean(found.loads) if found.loads else 0.0
    numbers = {
        "trial_s": [seconds - load_s for seconds in found.trials],
        "baseline_s": [seconds - load_s for seconds in found.baselines],
        "load_s": found.loads,
        "start_s": found.starts,
        "queue_s": found.queues,
        "turn_s": found.turns,
        "step_s": found.steps,
    }
    return {name: round(max(0.0, usual(name, seen)), 2) for name, seen in numbers.items() if seen}
