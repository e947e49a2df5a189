"""The arguments of tune() as data, and the study file that they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpotune.api.katib.fine_tuning import put_fine_tuning, settle_method
from hpotune.api.katib.metric_collection import put_metric_collection, strategy
from hpotune.api.katib.objective_program import objective_parameters, objective_program
from hpotune.api.katib.parameter_classes import TrainerResources
from hpotune.api.katib.search_and_budget import Goal, put_budget, put_early_stopping, put_goal, put_search
from hpotune.api.katib.study_draft import StudyDraft
from hpotune.api.katib.trial_environment import put_environment, put_packages
from hpotune.api.katib.trial_resources import put_trainer_resources, put_worker_resources
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError, nearest

STORAGE: Mapping[str, object] = {
    "size": "10Gi",
    "storage_class": None,
    "access_modes": ["ReadWriteOnce", "ReadOnlyMany"],
}
"""Katib's default of storage_config."""
PYPI = ("https://pypi.org/simple",)
STDOUT: Mapping[str, object] = {"kind": "StdOut"}
RESUME_POLICIES = ("LongRunning", "FromVolume", "Never")


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneCall:
    """The arguments of tune(), in Katib's order; docs/katib.md says what each does."""

    name: str
    model_provider_parameters: Any = None
    dataset_provider_parameters: Any = None
    trainer_parameters: Any = None
    storage_config: Mapping[str, object] | None = field(default_factory=lambda: STORAGE)
    objective: Any = None
    base_image: str | None = None
    parameters: Mapping[str, Any] | None = None
    env_per_trial: Any = None
    algorithm_name: str = "random"
    algorithm_settings: Any = None
    objective_metric_name: str | None = None
    additional_metric_names: Sequence[str] = ()
    objective_type: str = "maximize"
    objective_goal: float | None = None
    max_trial_count: int | None = None
    parallel_trial_count: int | None = None
    max_failed_trial_count: int | None = None
    resources_per_trial: Any = None
    retain_trials: bool = False
    packages_to_install: Sequence[str] | None = None
    pip_index_urls: Sequence[str] | None = PYPI
    metrics_collector_config: Mapping[str, Any] = field(default_factory=lambda: STDOUT)
    trial_active_deadline_seconds: int | None = None
    early_stopping: Any = None
    resume_policy: str = "LongRunning"
    metric_strategies: Mapping[str, str] | None = None
    study: Mapping[str, Value] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafted:
    """What a call becomes."""

    draft: StudyDraft
    program: str | None = None
    """The text of the objective's file; None: a fine-tuning."""


def drafted(call: TuneCall, *, env: Mapping[str, str], program_file: str) -> Drafted:
    """The study file of a call, and the objective's program, which will be `program_file` beside it.

    Raises: StudyFileError for an argument that is wrong, or has no equivalent here.
    """
    fine_tunes = _is_fine_tuning(call)
    draft = StudyDraft()
    draft.put("name", call.name, "name")
    goal = Goal(
        metric=call.objective_metric_name, additional=_names(call.additional_metric_names),
        direction=call.objective_type, goal=call.objective_goal,
    )  # fmt: skip
    program = None
    if fine_tunes:
        _put_fine_tuning(draft, call, goal, env=env)
    else:
        program = _put_objective(draft, call, goal, file=program_file)
    put_budget(
        draft, trials=call.max_trial_count, parallel=call.parallel_trial_count, failed=call.max_failed_trial_count,
        baseline=fine_tunes,
    )  # fmt: skip
    if call.early_stopping is not None and not fine_tunes:
        raise StudyFileError(
            "early_stopping: needs an objective that ends at the rungs of its run and continues (docs/own_code.md: "
            "hpotune.should_stop); for such a one write study={'search': {'pruner': 'median'}}"
        )
    put_early_stopping(draft, call.early_stopping)
    put_environment(draft, image=call.base_image, variables=call.env_per_trial)
    put_packages(draft, call.packages_to_install, urls=call.pip_index_urls, image=call.base_image)
    _put_time_limit(draft, call.trial_active_deadline_seconds)
    _put_rest(draft, call, fine_tunes=fine_tunes)
    if call.study is not None:
        draft.merge(call.study, "study")
        settle_method(draft)
    return Drafted(draft=draft, program=program)


def _is_fine_tuning(call: TuneCall) -> bool:
    """Raises: StudyFileError where the call is neither a fine-tuning nor a function of the user, or both."""
    if not isinstance(call.name, str) or not call.name:
        raise StudyFileError("name: is missing; needs the name of the study")
    of_model = ("model_provider_parameters", "dataset_provider_parameters", "trainer_parameters")
    given = [name for name in of_model if getattr(call, name) is not None]
    own = [name for name in ("objective", "parameters") if getattr(call, name) is not None]
    if bool(given) == bool(own):
        raise StudyFileError(
            "tune: needs model_provider_parameters, dataset_provider_parameters and trainer_parameters, or else "
            f"objective and parameters; given: {', '.join([*given, *own]) or 'none of them'}"
        )
    missing = [
        name for name in (of_model if given else ("objective", "parameters")) if name not in [*given, *own]
    ]
    if missing:
        raise StudyFileError(f"{missing[0]}: is missing beside {', '.join([*given, *own])}")
    return bool(given)


def _names(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if (
        isinstance(given, str)
        or not isinstance(given, Sequence)
        or not all(isinstance(one, str) for one in given)
    ):
        raise StudyFileError(f"additional_metric_names: {given!r} needs a list of names")
    return tuple(given)


def _put_fine_tuning(draft: StudyDraft, call: TuneCall, goal: Goal, *, env: Mapping[str, str]) -> None:
    put_fine_tuning(
        draft, model=call.model_provider_parameters, data=call.dataset_provider_parameters,
        trainer=call.trainer_parameters, env=env, evaluates=goal.evaluates,
    )  # fmt: skip
    put_goal(draft, goal, tasks=True)
    put_search(draft, algorithm=call.algorithm_name, settings=call.algorithm_settings, ranges="train")
    if not isinstance(call.resources_per_trial, TrainerResources):
        kind = type(call.resources_per_trial).__name__
        raise StudyFileError(f"resources_per_trial: is a {kind}; fine-tuning needs hpotune.TrainerResources")
    put_trainer_resources(draft, call.resources_per_trial, source="resources_per_trial")


def _put_objective(draft: StudyDraft, call: TuneCall, goal: Goal, *, file: str) -> str:
    """Put command, params, score and resources; returns the program."""
    for name, value in objective_parameters(call.parameters).items():
        draft.put(f"params.{name}", value, f"parameters[{name!r}]")
    take = strategy(call.metric_strategies, metric=goal.metric, direction=goal.direction)
    put_goal(draft, replace(goal, settings={"take": take}), tasks=False)
    collected = put_metric_collection(draft, call.metrics_collector_config)
    search = put_search(
        draft, algorithm=call.algorithm_name, settings=call.algorithm_settings, ranges="params"
    )
    start = "python"
    if isinstance(call.resources_per_trial, TrainerResources):
        start = _distributed_start(call.resources_per_trial)
        put_trainer_resources(draft, call.resources_per_trial, source="resources_per_trial")
    else:
        put_worker_resources(draft, call.resources_per_trial, source="resources_per_trial")
    draft.put("command", f"{start} {file}", "objective, in a file of its own")
    resource = search.resource[0] if search.resource else None
    return objective_program(
        call.objective,
        study=call.name,
        metric=str(goal.metric),
        printed=collected == "stdout",
        resource=resource,
    )


def _distributed_start(given: TrainerResources) -> str:
    """How the objective is started on several ranks.

    Raises: StudyFileError for several nodes.
    """
    if given.num_workers != 1:
        raise StudyFileError(
            f"resources_per_trial.num_workers={given.num_workers}: an objective of your own runs on one node; write 1, "
            "or a study file whose command starts the nodes (docs/own_code.md)"
        )
    if given.num_procs_per_worker == 1:
        return "python"
    return f"torchrun --standalone --nproc-per-node {given.num_procs_per_worker}"


def _put_time_limit(draft: StudyDraft, seconds: object) -> None:
    """A job for each trial, whose time limit ends it for good."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
        raise StudyFileError(f"trial_active_deadline_seconds: {seconds!r} needs a whole number of seconds")
    source = "trial_active_deadline_seconds"
    draft.put("execution.trials_per_job", 1, source)
    draft.put("resources.time", str(math.ceil(seconds / 60)), f"{source}, in minutes: the whole job's")
    draft.put("resources.signal_delay_s", 0, source)
    draft.put("retry.timeout", 0, f"{source}: a trial that reaches it has failed")


def _put_rest(draft: StudyDraft, call: TuneCall, *, fine_tunes: bool) -> None:
    """What is kept, and the arguments that change nothing here."""
    if call.retain_trials and fine_tunes:
        draft.put("keep.best", "all", "retain_trials")
    elif call.retain_trials:
        draft.remarks.append("retain_trials: has no effect: the folder of every trial is kept")
    if call.storage_config is not None and dict(call.storage_config) != dict(STORAGE):
        draft.remarks.append(
            "storage_config: has no effect: models and data are read from the hub's cache and from files"
        )
    if call.resume_policy not in RESUME_POLICIES:
        hint = nearest(str(call.resume_policy), RESUME_POLICIES)
        hint = nearest(str(call.resume_policy), RESUME_POLICIES)
        raise StudyFileError(f"resume_policy: {call.resume_policy!r} is unknown; {hint}")
    if call.resume_policy == "Never":
        draft.remarks.append(NEVER)
    if fine_tunes and call.metric_strategies:
        raise StudyFileError("metric_strategies: a fine-tuning trial has one value of each metric; remove it")
    if fine_tunes and dict(call.metrics_collector_config) != dict(STDOUT):
        draft.remarks.append(
            "metrics_collector_config: has no effect: hpotune's own trainer writes its metrics itself"
        )


NEVER = "resume_policy: Never: edit_experiment_budget refuses this study once it has ended"
