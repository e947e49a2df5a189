"""Hyperparameter tuning for LLM fine-tuning on Slurm clusters.

The names below are the Python interface; each is loaded when it is used first, and loads nothing of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hpotune import errors as errors
    from hpotune import search as search
    from hpotune.api.in_trial.trainer_callback import TrainerCallback as TrainerCallback
    from hpotune.api.in_trial.trial_process import checkpoint_dir as checkpoint_dir
    from hpotune.api.in_trial.trial_process import last_checkpoint as last_checkpoint
    from hpotune.api.in_trial.trial_process import params as params
    from hpotune.api.in_trial.trial_process import report as report
    from hpotune.api.in_trial.trial_process import should_stop as should_stop
    from hpotune.api.katib.clients import KatibClient as KatibClient
    from hpotune.api.katib.clients import TrainingClient as TrainingClient
    from hpotune.api.katib.experiments import delete_experiment as delete_experiment
    from hpotune.api.katib.experiments import edit_experiment_budget as edit_experiment_budget
    from hpotune.api.katib.experiments import get_experiment as get_experiment
    from hpotune.api.katib.experiments import get_job_logs as get_job_logs
    from hpotune.api.katib.experiments import get_optimal_hyperparameters as get_optimal_hyperparameters
    from hpotune.api.katib.experiments import get_success_trial_details as get_success_trial_details
    from hpotune.api.katib.experiments import get_trial_metrics as get_trial_metrics
    from hpotune.api.katib.experiments import get_trials as get_trials
    from hpotune.api.katib.experiments import list_experiments as list_experiments
    from hpotune.api.katib.experiments import report_metrics as report_metrics
    from hpotune.api.katib.experiments import wait_for_experiment_condition as wait_for_experiment_condition
    from hpotune.api.katib.parameter_classes import HuggingFaceDatasetParams as HuggingFaceDatasetParams
    from hpotune.api.katib.parameter_classes import HuggingFaceModelParams as HuggingFaceModelParams
    from hpotune.api.katib.parameter_classes import HuggingFaceTrainerParams as HuggingFaceTrainerParams
    from hpotune.api.katib.parameter_classes import S3DatasetParams as S3DatasetParams
    from hpotune.api.katib.parameter_classes import TrainerResources as TrainerResources
    from hpotune.api.katib.train import train as train
    from hpotune.api.katib.tune import tune as tune
    from hpotune.api.study import Study as Study
    from hpotune.reporting.json_output import as_json as as_json

_MODULES: dict[str, str] = {
    "Study": "hpotune.api.study",
    "TrainerCallback": "hpotune.api.in_trial.trainer_callback",
    "as_json": "hpotune.reporting.json_output",
    "checkpoint_dir": "hpotune.api.in_trial.trial_process",
    "errors": "hpotune.errors",
    "last_checkpoint": "hpotune.api.in_trial.trial_process",
    "params": "hpotune.api.in_trial.trial_process",
    "report": "hpotune.api.in_trial.trial_process",
    "search": "hpotune.search",
    "should_stop": "hpotune.api.in_trial.trial_process",
}
"""Name -> the module that holds it, or that is it."""

_KATIB: dict[str, str] = {
    "clients": "KatibClient TrainingClient",
    "experiments": (
        "delete_experiment edit_experiment_budget get_experiment get_job_logs get_optimal_hyperparameters "
        "get_success_trial_details get_trial_metrics get_trials list_experiments report_metrics "
        "wait_for_experiment_condition"
    ),
    "parameter_classes": (
        "HuggingFaceDatasetParams HuggingFaceModelParams HuggingFaceTrainerParams S3DatasetParams TrainerResources"
    ),
    "train": "train",
    "tune": "tune",
}
"""Module of hpotune.api.katib -> the names of Katib that it holds."""
_MODULES |= {
    name: f"hpotune.api.katib.{module}" for module, names in _KATIB.items() for name in names.split()
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'hpotune' has no attribute {name!r}")
    module = import_module(_MODULES[name])
    return module if module.__name__ == f"hpotune.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
