"""What Katib's client returns: experiments, trials and their metrics, by the names of its classes. Pure.

Values are text, as in Katib; printed, an object shows its fields. Source: kubeflow/katib, sdk/python, models/.
"""

from __future__ import annotations

import dataclasses
import pprint
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpotune.reporting.views.status import StudyStatus
    from hpotune.reporting.views.trial_view import TrialView

CREATED, RUNNING, RESTARTING, SUCCEEDED, FAILED = "Created", "Running", "Restarting", "Succeeded", "Failed"
CONDITIONS = (CREATED, RUNNING, RESTARTING, SUCCEEDED, FAILED)
SECTIONS = ("train", "lora", "params")


class Shown:
    """Printed as its fields."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        assert dataclasses.is_dataclass(self)
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        """As Katib's classes print themselves."""
        return pprint.pformat(self.to_dict(), sort_dicts=False)


@dataclass(frozen=True, kw_only=True, repr=False)
class ParameterAssignment(Shown):
    """A parameter of a trial."""

    name: str
    """As in the program: `learning_rate` is `train.learning_rate` in the study file."""
    value: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Metric(Shown):
    """A metric of a trial; a study keeps one value of it, which is all three."""

    name: str
    latest: str
    min: str
    max: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Observation(Shown):
    """The metrics of a trial, the objective's first."""

    metrics: Sequence[Metric]


@dataclass(frozen=True, kw_only=True, repr=False)
class OptimalTrial(Shown):
    """The best trial."""

    best_trial_name: str
    """NAME-NUMBER."""
    parameter_assignments: Sequence[ParameterAssignment]
    observation: Observation


@dataclass(frozen=True, kw_only=True, repr=False)
class Condition(Shown):
    """Something that holds for an experiment."""

    type: str
    status: str = "True"
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class ExperimentStatus(Shown):
    """Counts of trials, the best one, and the conditions."""

    conditions: Sequence[Condition]
    current_optimal_trial: OptimalTrial | None
    trials: int
    """That have started."""
    trials_running: int
    trials_pending: int
    trials_succeeded: int
    trials_failed: int
    trials_early_stopped: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Experiment(Shown):
    """A study, as Katib's experiment."""

    name: str
    namespace: str | None
    status: ExperimentStatus
    folder: str
    """The study's folder."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The study file's values."""


def trial_name(experiment: str, number: int) -> str:
    """The name of a trial."""
    return f"{experiment}-{number}"


def assignments(trial: TrialView) -> list[ParameterAssignment]:
    """The parameters of a trial by the names in the program; both names where two sections have the same."""
    short = [name.partition(".")[2] if name.partition(".")[0] in SECTIONS else name for name in trial.params]
    names = [one if short.count(one) == 1 else name for one, name in zip(short, trial.params, strict=True)]
    return [
        ParameterAssignment(name=name, value=str(value))
        for name, value in zip(names, trial.params.values(), strict=True)
    ]


def metrics_of(trial: TrialView) -> list[Metric]:
    """The numbers of a trial: its objectives first."""
    numbers = {**trial.values, **{k: v for k, v in trial.metrics.items() if isinstance(v, (int, float))}}
    return [
        Metric(name=name, latest=text, min=text, max=text)
        for name, value in numbers.items()
        if not isinstance(value, bool) and (text := repr(value))
    ]


def optimal_trial(experiment: str, best: TrialView | None) -> OptimalTrial | None:
    """The best trial; None where none has finished."""
    if best is None:
        return None
    return OptimalTrial(
        best_trial_name=trial_name(experiment, best.number),
        parameter_assignments=assignments(best),
        observation=Observation(metrics=metrics_of(best)),
    )


def conditions(status: StudyStatus) -> list[Condition]:
    """What holds for a study, as Katib's conditions."""
    found = [Condition(type=CREATED, reason="ExperimentCreated", message=f"the study is in {status.folder}")]
    reason = status.stop.text if status.stop is not None else ""
    if status.state == "cancelled" or (status.stop is not None and status.stop.is_failure):
        found.append(Condition(type=FAILED, reason="ExperimentFailed", message=reason or "it was cancelled"))
    elif status.state in ("done", "stopped"):
        found.append(Condition(type=SUCCEEDED, reason="ExperimentSucceeded", message=reason))
    else:
        found.append(
            Condition(type=RUNNING, reason="ExperimentRunning", message=f"the study is {status.state}")
        )
    return found


def experiment_status(status: StudyStatus, best: OptimalTrial | None) -> ExperimentStatus:
    """The counts and conditions of a study."""
    counts = status.trials
    return ExperimentStatus(
        conditions=conditions(status),
        current_optimal_trial=best,
        trials=counts.finished + counts.running + counts.stopped + counts.failed + counts.paused,
        trials_running=counts.running,
        trials_pending=counts.waiting + counts.paused,
        trials_succeeded=counts.finished,
        trials_failed=counts.failed,
        trials_early_stopped=counts.stopped,
    )
