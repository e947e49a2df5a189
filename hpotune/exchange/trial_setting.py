"""The setting of one finished trial with every default written out: what scripts and other tools' configs say.

Its values are read by dotted name, and each reading is noted: what a tool's file does not express stays over, and is
reported instead of dropped. Pure, but for `trial_setting`, which validates the trial's point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpotune.config.load import Study
from hpotune.config.schema.study_config import DataConfig, ModelConfig, PointConfig
from hpotune.config.training_method import trains_whole
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialRow

DEFAULTS: dict[str, Value] = {
    "lora.r": 8,
    "lora.lora_alpha": 8,
    "lora.lora_dropout": 0.0,
    "lora.target_modules": "all-linear",
    "train.learning_rate": 5e-5,
    "train.num_train_epochs": 3.0,
    "train.lr_scheduler_type": "linear",
    "train.optim": "adamw_torch_fused",
    "train.weight_decay": 0.0,
    "train.max_grad_norm": 1.0,
    "train.gradient_checkpointing": False,
    "train.label_smoothing_factor": 0.0,
    "model.trust_remote_code": False,
}
"""What a trial trains with where the study file says nothing. Source: transformers 5, training_args.py; peft,
tuners/lora/config.py; hpotune's own `all-linear`. tests/exchange/test_trial_setting.py compares them."""
_BATCH = ("train.global_batch_size", "train.per_device_train_batch_size", "train.gradient_accumulation_steps")
_NO_EFFECT = (
    "train.packing",
    "train.chunked_loss",
    "train.torch_compile",
    "train.torch_compile_backend",
    "train.torch_compile_mode",
    "train.method",
    "train.logging_steps",
    "train.save_steps",
    "model.dtype",
    "model.path",
    "model.task",
)
"""Expressed by every file, or without an effect on what is trained."""


@dataclass(kw_only=True, slots=True)
class TrialSetting:
    """The values of one trial by dotted name, and which of them a file has expressed so far."""

    study: str
    number: int
    point: PointConfig
    scores: Mapping[str, float]
    """By the label of the objective."""
    data_root: str | None
    offline: bool
    prepared: str
    """The folder with the study's tokenized rows; it may be missing."""
    seed: int
    """Of the adapter, the order of the rows and the dropout."""
    dtype: str
    """Of the frozen weights: float32, bfloat16, float16 or float64."""
    steps: int
    """Optimizer steps of the whole run."""
    warmup: int
    """Steps of the learning rate's warm-up."""
    global_batch: int
    """Rows of an optimizer step, over all ranks."""
    ranks: int
    notes: list[str] = field(default_factory=list)
    """What a file cannot say; one line each, without the name of the tool."""
    _left: dict[str, Value] = field(default_factory=dict)

    @property
    def model(self) -> ModelConfig:
        """The model section."""
        assert self.point.model is not None, "only fine-tuning studies have a setting"
        return self.point.model

    @property
    def data(self) -> DataConfig:
        """The data section."""
        assert self.point.data is not None, "only fine-tuning studies have a setting"
        return self.point.data

    @property
    def micro_batch(self) -> int:
        """Rows of a forward pass on one rank."""
        given = self.point.train.get("per_device_train_batch_size", 8)
        assert isinstance(given, int), "validated with the study file"
        return min(given, math.ceil(self.global_batch / self.ranks))

    @property
    def accumulation(self) -> int:
        """Forward passes of an optimizer step on one device."""
        return math.ceil(self.global_batch / self.micro_batch)

    def given(self, name: str) -> bool:
        """Whether the study file sets the value."""
        return name in self._left

    def value(self, name: str) -> Value:
        """A value, which the file expresses: as in the study file, else the default, else None."""
        default = DEFAULTS.get(name)
        return self._left.pop(name, default)

    def number_of(self, name: str) -> float:
        """The value of a name that holds a number."""
        found = self.value(name)
        assert isinstance(found, (int, float)), f"{name} is a number in a valid study file"
        return found

    def batch(self) -> tuple[int, int]:
        """Rows of a forward pass, and passes of a step on one device; a step that they do not fill exactly is noted."""
        for name in _BATCH:
            self._left.pop(name, None)
        rows = self.micro_batch * self.accumulation
        if rows != self.global_batch:
            self.notes.append(
                f"train.global_batch_size={self.global_batch}: is no multiple of a forward pass of "
                f"{self.micro_batch} rows; a step has {rows} rows instead"
            )
        return self.micro_batch, self.accumulation

    def leave_out(self, tool: str) -> None:
        """Note every value of the study file that was not read."""
        for name, value in self._left.items():
            if name not in _NO_EFFECT and value is not None:
                self.notes.append(f"{name}={value!r}: {tool} has no key for it")
        self._left.clear()


def trial_setting(study: Study, row: TrialRow, *, prepared: str) -> TrialSetting:
    """The setting of a finished trial.

    Raises: StudyFileError for a study without a model, a classification, or a trial that continues from another one.
    """
    point = _without_auto(study.point(row.params), row)
    if point.model is not None and point.data is None:
        raise StudyFileError(
            f"--as: {study.config.name} trained nothing, so that there is no fine-tuning to describe; use --as study, "
            "or export without --as, which writes generation_config.json"
        )
    if point.model is None or point.data is None:
        own = "python" if study.config.python else "command"
        raise StudyFileError(
            f"--as: {study.config.name} has {own}: instead of a model, so that there is no fine-tuning to describe; "
            "use --as study"
        )
    if point.model.task != "causal_lm":
        raise StudyFileError(
            f"--as: model.task is {point.model.task}, and scripts and other tools' configs are written for causal_lm "
            "only; use --as study, or export the adapter"
        )
    if trains_whole(point.train):
        raise StudyFileError(
            f"--as: trial {row.number} has train.method: full, and scripts and other tools' configs are written for "
            "LoRA only; use --as study, or export the model"
        )
    if row.lineage is not None and row.lineage.parent is not None:
        raise StudyFileError(
            f"--trial {row.number}: continues from trial {row.lineage.parent}'s checkpoint, which no setting "
            "describes; export the adapter instead"
        )
    attempt = row.attempts[-1] if row.attempts else None
    gpus = attempt.gpus if attempt is not None else 0
    steps, batch = _whole(row, "steps"), _whole(row, "global_batch_size")
    per_device = point.train.get("per_device_train_batch_size", 8)
    accumulated = point.train.get("gradient_accumulation_steps", 1)
    assert isinstance(per_device, int), "validated with the study file"
    assert isinstance(accumulated, int), "validated with the study file"
    ranks = (
        max(gpus, 1) if "global_batch_size" in point.train else max(1, batch // (per_device * accumulated))
    )
    labels = [objective.label for objective in study.config.score.objective]
    setting = TrialSetting(
        study=study.config.name,
        number=row.number,
        point=point,
        scores=dict(zip(labels, row.values, strict=False)),
        data_root=study.config.data_root,
        offline=study.config.env.offline,
        prepared=prepared,
        seed=_seed(study, point),
        dtype=point.model.dtype if point.model.dtype != "auto" else ("bfloat16" if gpus else "float32"),
        steps=steps,
        warmup=_warmup(point.train.get("warmup_steps", 0), steps),
        global_batch=batch,
        ranks=ranks,
    )
    for section in ("model", "lora", "train"):
        values = (
            point.model.model_dump(exclude_defaults=True) if section == "model" else getattr(point, section)
        )
        setting._left.update({f"{section}.{key}": value for key, value in values.items()})
    for name in ("train.seed", "train.warmup_steps"):
        setting._left.pop(name, None)
    return setting


def _without_auto(point: PointConfig, row: TrialRow) -> PointConfig:
    """The point with the values that the trial chose by its memory instead of auto."""
    train = dict(point.train)
    if train.get("per_device_train_batch_size") == "auto":
        train["per_device_train_batch_size"] = _whole(row, "micro_batch")
    if train.get("activation_checkpointing") == "auto":
        del train["activation_checkpointing"]
        train["gradient_checkpointing"] = bool(row.metrics.get("activation_checkpointing"))
    return point.model_copy(update={"train": train})


def _whole(row: TrialRow, metric: str) -> int:
    found = row.metrics.get(metric)
    if not isinstance(found, (int, float)):
        raise StudyFileError(
            f"--trial {row.number}: its result has no {metric}, so that its setting is not known; choose another trial"
        )
    return int(found)


def _seed(study: Study, point: PointConfig) -> int:
    given = point.train.get("seed", study.config.search.seed)
    assert isinstance(given, int), "validated with the study file"
    return given


def _warmup(given: Value, steps: int) -> int:
    """Steps of the warm-up; a value below 1 is a share of all steps. Source: TrainingArguments.get_warmup_steps."""
    assert isinstance(given, (int, float)), "validated with the study file"
    return int(given) if given >= 1 else math.ceil(steps * given)
