"""`hpotune.tune`: Katib's call for hyperparameter tuning. It writes a study file and submits or runs the study."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpotune.api.katib.parameter_classes import (
    HuggingFaceDatasetParams,
    HuggingFaceModelParams,
    HuggingFaceTrainerParams,
    S3DatasetParams,
    TrainerResources,
)
from hpotune.api.katib.tune_call import PYPI, STDOUT, STORAGE, TuneCall, drafted
from hpotune.api.katib.written_study import program_name, start, study_file, warn_of_remarks, write_study
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError

if TYPE_CHECKING:
    from hpotune.api.study import Study

Where = Literal["slurm", "local"]


def tune(
    name: str,
    model_provider_parameters: HuggingFaceModelParams | None = None,
    dataset_provider_parameters: HuggingFaceDatasetParams | S3DatasetParams | None = None,
    trainer_parameters: HuggingFaceTrainerParams | None = None,
    storage_config: Mapping[str, object] | None = STORAGE,
    objective: Callable[[dict[str, Any]], object] | None = None,
    base_image: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    namespace: str | None = None,
    env_per_trial: Mapping[str, str] | Sequence[Any] | None = None,
    algorithm_name: str = "random",
    algorithm_settings: Mapping[str, Any] | Sequence[Any] | None = None,
    objective_metric_name: str | None = None,
    additional_metric_names: Sequence[str] = (),
    objective_type: str = "maximize",
    objective_goal: float | None = None,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
    max_failed_trial_count: int | None = None,
    resources_per_trial: Mapping[str, Any] | TrainerResources | None = None,
    retain_trials: bool = False,
    packages_to_install: Sequence[str] | None = None,
    pip_index_urls: Sequence[str] | None = PYPI,
    metrics_collector_config: Mapping[str, Any] = STDOUT,
    trial_active_deadline_seconds: int | None = None,
    *,
    pip_index_url: str | None = None,
    early_stopping: Mapping[str, Any] | str | None = None,
    resume_policy: str = "LongRunning",
    metric_strategies: Mapping[str, str] | None = None,
    study: Mapping[str, Value] | None = None,
    where: Where | None = "slurm",
    folder: str | Path | None = None,
) -> Study:
    """Write the study file that the arguments stand for, and start the study; docs/katib.md has every argument.

    Up to `trial_active_deadline_seconds` they are Katib's, in its order. `pip_index_url`: as `pip_index_urls` with one.
    `early_stopping`, `resume_policy`, `metric_strategies`: of Katib's Experiment. `study`: keys of a study file that
    are added to the generated ones, or replace them. `where`: `slurm` submits and returns, `local` runs the study here
    and returns at its end, None only writes the file. `folder`: where the file is written; None: here.
    Raises: HpotuneError.
    """
    given = locals()
    call = TuneCall(**{key: given[key] for key in TuneCall.__dataclass_fields__ if key != "pip_index_urls"},
                    pip_index_urls=_urls(pip_index_urls, pip_index_url))  # fmt: skip
    _check_where(where, call)
    file = study_file(name, namespace=namespace, folder=folder)
    made = drafted(call, env=os.environ, program_file=program_name(file))
    write_study(
        file,
        made.draft,
        program=made.program,
        title=f"The study of hpotune.tune(name={name!r}, ...), by its arguments:",
    )
    warn_of_remarks(made.draft)
    return start(file, where=where)


def _urls(urls: Sequence[str] | None, url: str | None) -> Sequence[str] | None:
    """Raises: StudyFileError for both at once."""
    if url is None:
        return urls
    if urls not in (None, PYPI):
        raise StudyFileError("pip_index_url: is the first of pip_index_urls; give one of the two")
    return (url,)


def _check_where(where: object, call: TuneCall) -> None:
    if where not in ("slurm", "local", None):
        raise StudyFileError(f"where: {where!r} needs slurm, local or None")
    if where == "local" and call.trial_active_deadline_seconds is not None:
        raise StudyFileError(
            "trial_active_deadline_seconds: is the time limit of a Slurm job; where='local' has none"
        )
