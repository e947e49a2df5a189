"""The fields of a TrainingArguments or LoraConfig that differ from the defaults of their class, as study values.

The classes are not imported: the user's object brings its class. Fields that a trial does not support are an error,
or a remark where they do not change what is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from hpotune.config.library_keys import HONOURED, REFUSED, REFUSED_LORA, check_lora_key, check_train_key
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError, inner_reason
from hpotune.search.parameter_ranges import Searched, held_ranges

Section = Literal["train", "lora"]
CLASSES: Mapping[Section, str] = {"train": "TrainingArguments", "lora": "LoraConfig"}
ARGUMENTS: Mapping[Section, str] = {"train": "training_parameters", "lora": "lora_config"}
_QUIET = (
    "output_dir run_name project do_train do_eval do_predict local_rank save_on_each_node disable_tqdm log_level "
    "log_level_replica log_on_each_node report_to logging_dir skip_memory_metrics logging_strategy logging_first_step "
    "logging_nan_inf_filter debug save_strategy save_total_limit save_only_model save_safetensors eval_strategy "
    "evaluation_strategy eval_steps eval_delay eval_on_start eval_accumulation_steps prediction_loss_only "
    "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
    "dataloader_in_order remove_unused_columns fsdp fsdp_config ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers ddp_backend ddp_timeout use_cache torch_empty_cache_steps task_type peft_type "
    "base_model_name_or_path peft_version"
)
WITHOUT_EFFECT = frozenset(_QUIET.split())
"""Fields that a trial does not read and that do not change what it trains: a remark, not an error."""
TRANSLATED: Mapping[str, str] = {
    "bf16": "model.dtype", "fp16": "model.dtype", "warmup_ratio": "train.warmup_steps",
    "per_device_eval_batch_size": "score.batch_size", "use_cpu": "env.vars",
}  # fmt: skip
"""Fields of TrainingArguments -> the key of another section that they become (study_mapping.py)."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFields:
    """What an object says."""

    values: Mapping[str, Value]
    """Supported fields."""
    translated: Mapping[str, Value]
    """Fields of TRANSLATED."""
    ignored: Mapping[str, Value]
    """Fields of WITHOUT_EFFECT."""


def object_fields(given: object, *, section: Section) -> ObjectFields:
    """The fields that differ from the defaults of the object's class.

    Raises: StudyFileError for another kind of object, and with a line for each field that a trial does not support.
    """
    if given is None:
        return ObjectFields(values={}, translated={}, ignored={})
    names = {kind.__name__ for kind in type(given).__mro__}
    if CLASSES[section] not in names or not dataclasses.is_dataclass(given) or isinstance(given, type):
        raise StudyFileError(
            f"{ARGUMENTS[section]}: is a {type(given).__name__}; needs a {_library(section)}.{CLASSES[section]}"
        )
    changed = _without_twin(dict(_changed_fields(given)))
    supported = {name: value for name, value in changed.items() if _error(name, section=section) is None}
    rest = {name: value for name, value in changed.items() if name not in supported}
    wrong = [
        name
        for name in rest
        if name not in WITHOUT_EFFECT and not (section == "train" and name in TRANSLATED)
    ]
    if wrong:
        raise StudyFileError(*(_message(name, rest[name], section=section) for name in wrong))
    return ObjectFields(
        values={name: _as_value(value, f"{ARGUMENTS[section]}.{name}") for name, value in supported.items()},
        translated={name: _as_value(value, name) for name, value in rest.items() if name in TRANSLATED},
        ignored={name: _shown(value) for name, value in rest.items() if name in WITHOUT_EFFECT},
    )


def _library(section: Section) -> str:
    return "transformers" if section == "train" else "peft"


def _error(name: str, *, section: Section) -> str | None:
    return check_train_key(name) if section == "train" else check_lora_key(name)


def _message(name: str, value: object, *, section: Section) -> str:
    reasons = REFUSED if section == "train" else REFUSED_LORA
    reason = reasons.get(name) or "a trial does not read it"
    return (
        f"{ARGUMENTS[section]}.{name}={_shown(value)!r}: is not supported: {reason}; leave it at its default"
    )


def _changed_fields(given: Any) -> Iterable[tuple[str, object]]:  # noqa: ANN401 - any dataclass
    """Name and value of each field that is a range, or that differs from the default object of the class."""
    default, held = _default_object(type(given)), held_ranges(given)
    for one in dataclasses.fields(given):
        value = held.get(one.name, getattr(given, one.name, None))
        if isinstance(value, Searched) or not _equal(value, getattr(default, one.name, None)):
            yield one.name, value


def _without_twin(changed: dict[str, object]) -> dict[str, object]:
    """transformers 5.23 sets `activation_checkpointing` and `gradient_checkpointing` where one of them is given."""
    one, other = changed.get("gradient_checkpointing"), changed.get("activation_checkpointing")
    return {
        name: value
        for name, value in changed.items()
        if name != "activation_checkpointing" or one is None or one != other
    }


def _equal(one: object, other: object) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _default_object(kind: type) -> object:
    """An object of the class with every default; older versions of transformers need `output_dir`.

    Raises: StudyFileError where the class cannot be made without arguments.
    """
    try:
        return kind()
    except TypeError:
        try:
            return kind(output_dir="out")
        except (TypeError, ValueError) as error:
            raise StudyFileError(
                f"{kind.__name__}: cannot be made with its defaults ({inner_reason(error)}); use transformers' own "
                "class"
            ) from None


def _as_value(value: object, where: str) -> Value:
    """A field as a study file holds it.

    Raises: StudyFileError for an object that a file cannot hold.
    """
    if isinstance(value, Searched):
        spec: Value = value.study_value
        return spec
    if isinstance(value, Enum):
        return _as_value(value.value, where)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (set, frozenset)):
        return sorted((_as_value(one, where) for one in value), key=str)
    if isinstance(value, (list, tuple)):
        return [_as_value(one, where) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _as_value(one, where) for key, one in value.items()}
    raise StudyFileError(
        f"{where}: is a {type(value).__name__}, which a study file cannot hold; leave it at its default"
    )


def _shown(value: object) -> Value:
    """A value for a message."""
    try:
        return _as_value(value, "")
    except StudyFileError:
        return type(value).__name__


assert not WITHOUT_EFFECT & HONOURED, "a field that a trial reads has an effect"
