"""Model, data and trainer parameters as the sections `model`, `data`, `train` and `lora` of a study file.

Secrets are never part of the draft: where one is given, the environment must already hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hpotune.api.katib.object_fields import ARGUMENTS, TRANSLATED, object_fields
from hpotune.api.katib.parameter_classes import (
    HuggingFaceDatasetParams,
    HuggingFaceModelParams,
    HuggingFaceTrainerParams,
    S3DatasetParams,
)
from hpotune.api.katib.study_draft import StudyDraft
from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError, nearest

TASKS: Mapping[str, str] = {
    "AutoModelForCausalLM": "causal_lm",
    "AutoModelForSequenceClassification": "sequence_classification",
}
WHOLE = f"no {ARGUMENTS['lora']}: all weights, as Katib's trainer"
MODULES = f"{ARGUMENTS['lora']}.target_modules: peft's own for the architecture"
"""Sources of values that no argument gives."""
MODEL, DATA, TRAINER = "model_provider_parameters", "dataset_provider_parameters", "trainer_parameters"


def put_fine_tuning(
    draft: StudyDraft,
    *,
    model: object,
    data: object,
    trainer: object,
    env: Mapping[str, str],
    evaluates: bool,
) -> None:
    """Put the sections of a fine-tuning. `evaluates`: whether a metric needs rows that are held out of training.

    Raises: StudyFileError for a parameter of another class, one that a trial does not support, or a secret that the
    environment `env` does not hold.
    """
    if not isinstance(model, HuggingFaceModelParams):
        raise StudyFileError(f"{MODEL}: is a {type(model).__name__}; needs hpotune.HuggingFaceModelParams")
    if not isinstance(trainer, HuggingFaceTrainerParams):
        raise StudyFileError(
            f"{TRAINER}: is a {type(trainer).__name__}; needs hpotune.HuggingFaceTrainerParams"
        )
    _put_model(draft, model, env=env)
    if isinstance(data, HuggingFaceDatasetParams):
        _check_secret(data.access_token, "HF_TOKEN", f"{DATA}.access_token", env=env)
        draft.put("data.path", _path(data.repo_id), f"{DATA}.repo_id")
        if data.split is not None:
            draft.put("data.split", data.split, f"{DATA}.split")
    elif isinstance(data, S3DatasetParams):
        _put_s3(draft, data, env=env)
    else:
        raise StudyFileError(
            f"{DATA}: is a {type(data).__name__}; needs hpotune.HuggingFaceDatasetParams or S3DatasetParams"
        )
    draft.put("data.prompt", "text", "as Katib's trainer: the column text")
    if not evaluates:
        draft.put("data.validation", 0, "as Katib's trainer: every row is trained")
    _put_trainer(draft, trainer)


def _put_model(draft: StudyDraft, model: HuggingFaceModelParams, *, env: Mapping[str, str]) -> None:
    _check_secret(model.access_token, "HF_TOKEN", f"{MODEL}.access_token", env=env)
    draft.put("model.path", _path(model.model_uri), f"{MODEL}.model_uri")
    kind = (
        model.transformer_type if isinstance(model.transformer_type, str) else _name(model.transformer_type)
    )
    if kind not in TASKS:
        raise StudyFileError(f"{MODEL}.transformer_type: {kind} is not supported; {nearest(kind, TASKS)}")
    draft.put("model.task", TASKS[kind], f"{MODEL}.transformer_type")
    if model.num_labels is not None:
        draft.put("model.num_labels", model.num_labels, f"{MODEL}.num_labels")


def _name(kind: object) -> str:
    return str(getattr(kind, "__name__", kind))


def _path(uri: str) -> str:
    """A hub id or an absolute path, from `hf://NAMESPACE/NAME`, an id, or a path that exists here."""
    text = uri.removeprefix("hf://")
    local = Path(text).expanduser()
    return str(local.absolute()) if "://" not in text and local.exists() else text


def _put_s3(draft: StudyDraft, data: S3DatasetParams, *, env: Mapping[str, str]) -> None:
    """An object by its address; endpoint and region as the variables that S3's own libraries read."""
    _check_secret(data.access_key, "AWS_ACCESS_KEY_ID", f"{DATA}.access_key", env=env)
    _check_secret(data.secret_key, "AWS_SECRET_ACCESS_KEY", f"{DATA}.secret_key", env=env)
    key = data.file_key.lstrip("/")
    draft.put("data.path", f"s3://{data.bucket_name}/{key}", f"{DATA}.bucket_name and file_key")
    add_variables(draft, {"AWS_ENDPOINT_URL": data.endpoint_url}, f"{DATA}.endpoint_url")
    if data.region_name is not None:
        add_variables(draft, {"AWS_DEFAULT_REGION": data.region_name}, f"{DATA}.region_name")


def settle_method(draft: StudyDraft) -> None:
    """Train an adapter where the argument `study` has `lora`, though there is no lora_config."""
    if draft.section("lora") and draft.sources.get("train.method") == WHOLE:
        del draft.section("train")["method"], draft.sources["train.method"]
        if "target_modules" not in draft.section("lora"):
            draft.put("lora.target_modules", None, MODULES)


def add_variables(draft: StudyDraft, more: Mapping[str, Value], source: str) -> None:
    """Add environment variables of the trials."""
    before, said = draft.section("env").get("vars"), draft.sources.get("env.vars")
    known = before if isinstance(before, dict) else {}
    draft.put("env.vars", {**known, **more}, f"{said}, {source}" if said else source)


def _check_secret(value: str | None, variable: str, source: str, *, env: Mapping[str, str]) -> None:
    """Check that a secret need not be written anywhere.

    Raises: StudyFileError where the environment does not hold it; the message does not repeat it.
    """
    if value is not None and env.get(variable) != value:
        state = "has another value" if variable in env else "is not set"
        raise StudyFileError(
            f"{source}: is written to no file, and the variable {variable} {state}; export {variable} before you start "
            "this program, and leave the argument out"
        )


def _put_trainer(draft: StudyDraft, trainer: HuggingFaceTrainerParams) -> None:
    train = object_fields(trainer.training_parameters, section="train")
    lora = object_fields(trainer.lora_config, section="lora")
    if trainer.lora_config is None:
        draft.put("train.method", "full", WHOLE)
    for name, value in train.values.items():
        draft.put(f"train.{name}", value, f"{ARGUMENTS['train']}.{name}")
    for name, value in train.translated.items():
        _put_translated(draft, name, value)
    if trainer.lora_config is not None and "target_modules" not in lora.values:
        draft.put("lora.target_modules", None, MODULES)
    for name, value in lora.values.items():
        draft.put(f"lora.{name}", value, f"{ARGUMENTS['lora']}.{name}")
    for argument, fields in ((ARGUMENTS["train"], train), (ARGUMENTS["lora"], lora)):
        for name, value in fields.ignored.items():
            draft.remarks.append(
                f"{argument}.{name}={value!r}: has no effect; a trial trains the same without it"
            )


def _put_translated(draft: StudyDraft, name: str, value: Value) -> None:
    """A field of TrainingArguments that stands in another section here.

    Raises: StudyFileError for a range.
    """
    source = f"{ARGUMENTS['train']}.{name}"
    if range_kind(value) is not None:
        raise StudyFileError(f"{source}: cannot be a range; it becomes {TRANSLATED[name]}")
    if name in ("bf16", "fp16"):
        draft.put("model.dtype", "bfloat16" if name == "bf16" else "float16", source)
    elif name == "warmup_ratio":
        draft.put("train.warmup_steps", value, source)
    elif name == "per_device_eval_batch_size":
        draft.put("score.batch_size", value, source)
    else:
        add_variables(draft, {"CUDA_VISIBLE_DEVICES": ""}, source)
