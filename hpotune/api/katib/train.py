"""`hpotune.train`: the fine-tune API of Kubeflow's training operator, as a study of one trial."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpotune.api.katib.fine_tuning import put_fine_tuning, settle_method
from hpotune.api.katib.parameter_classes import (
    HuggingFaceDatasetParams,
    HuggingFaceModelParams,
    HuggingFaceTrainerParams,
    S3DatasetParams,
    TrainerResources,
)
from hpotune.api.katib.search_and_budget import Goal, put_goal
from hpotune.api.katib.study_draft import StudyDraft
from hpotune.api.katib.trial_environment import put_environment
from hpotune.api.katib.trial_resources import put_trainer_resources
from hpotune.api.katib.tune import Where
from hpotune.api.katib.tune_call import STORAGE
from hpotune.api.katib.written_study import start, study_file, warn_of_remarks, write_study
from hpotune.config.space.range_parsing import mappings, range_kind
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError

if TYPE_CHECKING:
    from hpotune.api.study import Study


def train(
    name: str,
    namespace: str | None = None,
    num_workers: int = 1,
    num_procs_per_worker: int = 1,
    resources_per_worker: Mapping[str, Any] | None = None,
    model_provider_parameters: HuggingFaceModelParams | None = None,
    dataset_provider_parameters: HuggingFaceDatasetParams | S3DatasetParams | None = None,
    trainer_parameters: HuggingFaceTrainerParams | None = None,
    init_env_vars: Mapping[str, str] | Sequence[Any] | None = None,
    env_vars: Mapping[str, str] | Sequence[Any] | None = None,
    storage_config: Mapping[str, object] | None = STORAGE,
    *,
    study: Mapping[str, Value] | None = None,
    where: Where | None = "slurm",
    folder: str | Path | None = None,
) -> Study:
    """Write the study file of one training, and start it; docs/katib.md has every argument.

    Up to `storage_config` they are those of TrainingClient.train, in its order; the others are as of `tune`.
    Raises: HpotuneError.
    """
    if where not in ("slurm", "local", None):
        raise StudyFileError(f"where: {where!r} needs slurm, local or None")
    draft = StudyDraft()
    draft.put("name", name, "name")
    put_fine_tuning(
        draft, model=model_provider_parameters, data=dataset_provider_parameters, trainer=trainer_parameters,
        env=os.environ, evaluates=False,
    )  # fmt: skip
    put_goal(draft, Goal(metric="train_loss", direction="minimize"), tasks=True)
    draft.sources["score.objective"] = "as Katib's trainer, which reports train_loss"
    draft.put("budget.trials", 1, "one training")
    draft.put("checks.baseline", False, "one training: the base model is not scored")
    resources = TrainerResources(num_workers, num_procs_per_worker, resources_per_worker)
    put_trainer_resources(draft, resources, source="")
    put_environment(draft, image=None, variables=env_vars)
    if init_env_vars:
        draft.remarks.append(
            "init_env_vars: has no effect: no container downloads model and data before the training"
        )
    if storage_config is not None and dict(storage_config) != dict(STORAGE):
        draft.remarks.append(
            "storage_config: has no effect: model and data are read from the hub's cache or files"
        )
    if study is not None:
        draft.merge(study, "study")
        settle_method(draft)
    _check_fixed(draft)
    file = study_file(name, namespace=namespace, folder=folder)
    write_study(
        file, draft, program=None, title=f"The study of hpotune.train(name={name!r}, ...), by its arguments:"
    )
    warn_of_remarks(draft)
    return start(file, where=where)


def _check_fixed(draft: StudyDraft) -> None:
    """Raises: StudyFileError for a range: one training has no search."""
    for key, value in mappings(draft.values):
        if range_kind(value) not in (None, "expr") and key[0] in ("model", "data", "train", "lora"):
            name = ".".join(map(str, key))
            raise StudyFileError(f"train: {name} is a range; give one value, or use hpotune.tune")
