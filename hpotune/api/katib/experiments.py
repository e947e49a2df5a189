"""Katib's calls on an experiment that exists: wait, best parameters, trials, budget, end. A name stands for a study.

`namespace` and `folder` are those of the tune() that wrote it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpotune.api.katib.experiment_views import (
    CONDITIONS,
    FAILED,
    SUCCEEDED,
    Condition,
    Experiment,
    Metric,
    OptimalTrial,
    assignments,
    conditions,
    experiment_status,
    metrics_of,
    optimal_trial,
    trial_name,
)
from hpotune.api.katib.tune_call import NEVER
from hpotune.api.katib.written_study import study_file
from hpotune.api.study import Study
from hpotune.config.yaml_source import read_source
from hpotune.errors import HpotuneError, StudyFileError, WaitTimeout, nearest
from hpotune.exchange.imports.katib_settings import max_failed

if TYPE_CHECKING:
    from hpotune.reporting.views.trial_view import TrialView

Folder = str | Path | None


def study_of(name: str, *, namespace: str | None = None, folder: Folder = None) -> Study:
    """The study of a name.

    Raises: StudyFileError where tune() has written none.
    """
    file = study_file(name, namespace=namespace, folder=folder)
    if not file.is_file():
        raise StudyFileError(
            f"{name}: no study of this name here ({file}); give the namespace and the folder of its tune()"
        )
    return Study.load(file)


def get_experiment(
    name: str, namespace: str | None = None, timeout: int = 120, *, folder: Folder = None
) -> Experiment:
    """The study with its counts, its conditions and its best trial. `timeout`: has no effect."""
    study = study_of(name, namespace=namespace, folder=folder)
    status = study.status
    best = optimal_trial(name, _best(study))
    return Experiment(
        name=name, namespace=namespace, folder=str(status.folder),
        status=experiment_status(status, best), spec=read_source(study.path).values,
    )  # fmt: skip


def list_experiments(
    namespace: str | None = None, timeout: int = 120, *, folder: Folder = None
) -> list[Experiment]:
    """The studies of a namespace that have started, by name."""
    home = study_file("x", namespace=namespace, folder=folder).parent
    names = sorted(file.stem for file in home.glob("*.yaml") if file.with_suffix("").is_dir())
    return [get_experiment(name, namespace, folder=folder) for name in names]


def get_experiment_conditions(
    name: str, namespace: str | None = None, *, folder: Folder = None
) -> list[Condition]:
    """What holds for the study now."""
    return conditions(study_of(name, namespace=namespace, folder=folder).status)


def wait_for_experiment_condition(
    name: str,
    namespace: str | None = None,
    expected_condition: str = SUCCEEDED,
    timeout: float | None = None,
    polling_interval: float = 15,
    apiserver_timeout: int = 120,
    *,
    folder: Folder = None,
) -> Experiment:
    """Return once the condition holds. `timeout`: seconds; None, unlike Katib's 600: as long as the queue takes.

    Raises: WaitTimeout, a TimeoutError; HpotuneError where the study failed or nothing continues it.
    """
    if expected_condition not in CONDITIONS:
        raise StudyFileError(
            f"expected_condition: {expected_condition!r} is unknown; {nearest(str(expected_condition), CONDITIONS)}"
        )
    study = study_of(name, namespace=namespace, folder=folder)
    until = None if timeout is None else time.monotonic() + timeout
    if expected_condition in (SUCCEEDED, FAILED):
        _wait_for_end(study, name, expected_condition, timeout=timeout, every=polling_interval)
    while expected_condition not in {one.type for one in conditions(study.status)}:
        if until is not None and time.monotonic() >= until:
            raise WaitTimeout(f"{name}: is not {expected_condition} after {timeout:g} s; wait again")
        time.sleep(max(1, polling_interval))
    return get_experiment(name, namespace, folder=folder)


def _wait_for_end(study: Study, name: str, expected: str, *, timeout: float | None, every: float) -> None:
    """Raises: HpotuneError where the study has ended otherwise."""
    from hpotune.api.stop_study import outcome

    status = study.wait(timeout, every=every)
    held = {one.type for one in conditions(status)}
    if expected not in held:
        raise HpotuneError(
            outcome(status) or f"{name}: has ended and is not {expected}; see `hpotune status`"
        )


def get_optimal_hyperparameters(
    name: str, namespace: str | None = None, timeout: int = 120, *, folder: Folder = None
) -> OptimalTrial | None:
    """The best trial so far; None where none has finished. `timeout`: has no effect."""
    return optimal_trial(name, _best(study_of(name, namespace=namespace, folder=folder)))


def _best(study: Study) -> TrialView | None:
    """The best trial that was trained: of a study whose base model is better than every trial, the best of these."""
    best = study.best
    if best.best is None or best.best.kind != "baseline":
        return best.best
    objective = best.ranked_by
    sign = 1 if objective.direction == "minimize" else -1
    trained = [one for one in study.trials if one.kind == "trial" and one.state == "finished" and one.values]
    return min(trained, key=lambda one: sign * next(iter(one.values.values())), default=None)


def get_trials(name: str, namespace: str | None = None, *, folder: Folder = None) -> tuple[TrialView, ...]:
    """Every trial that has started, the base model's included, as `Study.trials`."""
    return study_of(name, namespace=namespace, folder=folder).trials


def get_success_trial_details(
    experiment_name: str, namespace: str | None = None, timeout: int = 120, *, folder: Folder = None
) -> list[dict[str, Any]]:
    """`name`, `parameter_assignments` and `metrics` of each trained trial that has finished. `timeout`: no effect."""
    return [
        {
            "name": trial_name(experiment_name, one.number),
            "parameter_assignments": assignments(one),
            "metrics": metrics_of(one),
        }
        for one in get_trials(experiment_name, namespace, folder=folder)
        if one.kind == "trial" and one.state == "finished"
    ]


def get_trial_metrics(name: str, namespace: str | None = None, *, folder: Folder = None) -> list[Metric]:
    """The metrics of a trial, by its name NAME-NUMBER."""
    return metrics_of(_trial(name, namespace=namespace, folder=folder)[1])


def get_job_logs(
    name: str, trial_name: str, follow: bool = False, namespace: str | None = None, *, folder: Folder = None
) -> Iterator[str]:
    """The lines of a trial's log. `name`: of the experiment.

    Raises: StudyFileError for an unknown trial, and for `follow`.
    """
    if follow:
        raise StudyFileError("follow: is not supported here; use `hpotune logs --follow`")
    study, trial = _trial(trial_name, namespace=namespace, folder=folder)
    file = study.folder / "trials" / str(trial.number) / "log.txt"
    return iter(file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else [])


def _trial(name: str, *, namespace: str | None, folder: Folder) -> tuple[Study, TrialView]:
    experiment, _, number = name.rpartition("-")
    study = study_of(experiment or name, namespace=namespace, folder=folder)
    found = next((one for one in study.trials if str(one.number) == number), None)
    if found is None:
        raise StudyFileError(
            f"{name}: no such trial; needs the study's name and a number, such as {experiment}-1"
        )
    return study, found


def edit_experiment_budget(
    name: str,
    namespace: str | None = None,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
    max_failed_trial_count: int | None = None,
    timeout: int = 120,
    *,
    folder: Folder = None,
) -> None:
    """Set new limits, in total as in Katib, and continue the study. `timeout`: has no effect.

    Raises: StudyFileError where no limit is given, a new one is no valid one, or the study's resume policy is Never.
    """
    study = study_of(name, namespace=namespace, folder=folder)
    if max_trial_count is None and parallel_trial_count is None and max_failed_trial_count is None:
        raise StudyFileError("needs max_trial_count, parallel_trial_count or max_failed_trial_count")
    status = study.status
    if NEVER in study.path.read_text(encoding="utf-8") and status.state in ("done", "stopped"):
        raise StudyFileError(f"{study.path}: {NEVER}; remove that line to allow it")
    baseline = any(one.kind == "baseline" for one in study.trials)
    study.extend(
        trials=None if max_trial_count is None else str(max_trial_count + baseline),
        parallel=None if parallel_trial_count is None else str(parallel_trial_count),
        max_failed=None if max_failed_trial_count is None else str(max_failed(max_failed_trial_count)),
    )
    if status.jobs or status.state not in ("running", "queued"):
        study.resume(show=False)


def delete_experiment(
    name: str, namespace: str | None = None, delete_options: object = None, *, folder: Folder = None
) -> tuple[str, ...]:
    """Stop the study's jobs and workers; its file and its results stay. `delete_options`: has no effect."""
    return study_of(name, namespace=namespace, folder=folder).cancel()


def report_metrics(
    metrics: Mapping[str, object], db_manager_address: str | None = None, timeout: int = 120
) -> None:
    """Katib's push of metrics from an objective, as `hpotune.report`. The last two arguments have no effect.

    Raises: StudyFileError, a ValueError as in Katib, for a value that is no number.
    """
    from hpotune.api.in_trial.trial_process import report

    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise StudyFileError(f"report_metrics: {name}={value!r} is no number; give one") from None
    report(numbers)
