"""`KatibClient` and `TrainingClient`: the module functions with a namespace, so that programs change imports only."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from hpotune.api.katib import experiments
from hpotune.api.katib.experiment_views import (
    CREATED,
    FAILED,
    RESTARTING,
    RUNNING,
    SUCCEEDED,
    Condition,
    Experiment,
)
from hpotune.api.katib.train import train
from hpotune.api.katib.tune import Where, tune
from hpotune.errors import HpotuneWarning

_T = TypeVar("_T")


def _of_client(function: Callable[..., _T]) -> Callable[..., _T]:
    """A method that calls the function with the client's namespace, folder and `where`, where the caller gives none."""
    names = function.__code__.co_varnames

    @functools.wraps(function)
    def method(self: _Client, *args: object, **more: object) -> _T:
        given = dict(zip(names, args, strict=False)) | more
        own = {"folder": self.folder} | ({"where": self.where} if "where" in names else {})
        if given.get("namespace") is None:
            given["namespace"] = self.namespace
        return function(**(own | given))

    return method


class _Client:
    """What both clients have."""

    def __init__(
        self,
        config_file: str | None = None,
        context: str | None = None,
        client_configuration: object = None,
        namespace: str | None = None,
        *,
        folder: str | Path | None = None,
        where: Where | None = "slurm",
    ) -> None:
        """`namespace`: a subfolder for studies; `folder`: in which it is [default: the current one].

        `where`: as of tune(). The first three are Kubernetes' and have no effect.
        """
        given = {"config_file": config_file, "context": context, "client_configuration": client_configuration}
        for name, value in given.items():
            if value is not None:
                warnings.warn(
                    f"{name}: has no effect: there is no Kubernetes here", HpotuneWarning, stacklevel=2
                )
        self.namespace, self.folder, self.where = namespace, folder, where


class KatibClient(_Client):
    """Katib's client: each method is the function of that name, with this client's namespace and folder."""

    tune = _of_client(tune)
    get_experiment = _of_client(experiments.get_experiment)
    list_experiments = _of_client(experiments.list_experiments)
    get_experiment_conditions = _of_client(experiments.get_experiment_conditions)
    wait_for_experiment_condition = _of_client(experiments.wait_for_experiment_condition)
    get_optimal_hyperparameters = _of_client(experiments.get_optimal_hyperparameters)
    get_trials = _of_client(experiments.get_trials)
    get_success_trial_details = _of_client(experiments.get_success_trial_details)
    get_trial_metrics = _of_client(experiments.get_trial_metrics)
    get_job_logs = _of_client(experiments.get_job_logs)
    edit_experiment_budget = _of_client(experiments.edit_experiment_budget)
    delete_experiment = _of_client(experiments.delete_experiment)

    def _is(self, condition: str, name: str, namespace: str | None) -> bool:
        found = experiments.get_experiment_conditions(name, namespace or self.namespace, folder=self.folder)
        return condition in {one.type for one in found}

    def is_experiment_created(self, name: str, namespace: str | None = None) -> bool:
        """Whether the study exists."""
        return self._is(CREATED, name, namespace)

    def is_experiment_running(self, name: str, namespace: str | None = None) -> bool:
        """Whether the study is under way."""
        return self._is(RUNNING, name, namespace)

    def is_experiment_restarting(self, name: str, namespace: str | None = None) -> bool:
        """Never: a study that continues is running."""
        return self._is(RESTARTING, name, namespace)

    def is_experiment_succeeded(self, name: str, namespace: str | None = None) -> bool:
        """Whether the study has reached its end."""
        return self._is(SUCCEEDED, name, namespace)

    def is_experiment_failed(self, name: str, namespace: str | None = None) -> bool:
        """Whether failures ended the study, or it was cancelled."""
        return self._is(FAILED, name, namespace)


class TrainingClient(_Client):
    """The training operator's client, as far as its fine-tune API goes: a job is a study of one trial."""

    train = _of_client(train)
    get_job = _of_client(experiments.get_experiment)
    list_jobs = _of_client(experiments.list_experiments)
    delete_job = _of_client(experiments.delete_experiment)

    def get_job_conditions(self, name: str, namespace: str | None = None) -> list[Condition]:
        """What holds for the training now."""
        return experiments.get_experiment_conditions(name, namespace or self.namespace, folder=self.folder)

    def wait_for_job_conditions(
        self,
        name: str,
        namespace: str | None = None,
        job_kind: str | None = None,
        expected_conditions: Iterable[str] = frozenset({SUCCEEDED}),
        wait_timeout: float | None = None,
        polling_interval: float = 15,
    ) -> Experiment:
        """Return once the training has ended with one of these conditions. `job_kind`: has no effect.

        Raises: WaitTimeout; HpotuneError where it ends otherwise.
        """
        wanted = set(expected_conditions)
        first = SUCCEEDED if SUCCEEDED in wanted else next(iter(sorted(wanted)), SUCCEEDED)
        return experiments.wait_for_experiment_condition(
            name, namespace or self.namespace, first, wait_timeout, polling_interval, folder=self.folder
        )

    def get_job_logs(
        self, name: str, namespace: str | None = None
    ) -> tuple[dict[str, str], dict[str, list[str]]]:
        """The log of the training by the name of its trial; the second part is Kubernetes' events, and empty."""
        trial = f"{name}-0"
        lines = experiments.get_job_logs(
            name, trial, namespace=namespace or self.namespace, folder=self.folder
        )
        return {trial: "\n".join(lines)}, {}
