"""`train.method`: whether a trial trains an adapter (lora, the default) or all weights of the model (full)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import Mistake, Value

METHOD = "method"
LORA, FULL = "lora", "full"
METHODS = (LORA, FULL)
ADAPTER_FOLDER, MODEL_FOLDER = "adapter", "model"
"""In a trial's folder: the adapter that it trained, or the whole model."""
TRAINED_FOLDERS = (ADAPTER_FOLDER, MODEL_FOLDER, f"{MODEL_FOLDER}.unfinished")
"""All of them, with that of a model that was not written to its end."""
_OF_FOLDER = ((ADAPTER_FOLDER, "adapter_config.json"), (MODEL_FOLDER, "config.json"))
ONLY_LORA = ("loraplus_lr_ratio",)
"""Keys of `train` that a full fine-tuning does not read."""


def trains_whole(train: Mapping[str, Value]) -> bool:
    """Whether a point with this `train` section trains all weights."""
    return train.get(METHOD) == FULL


def trained_folder(trial: Path) -> Path | None:
    """The folder of what a trial trained, by the trial's folder; None where it was not kept."""
    return next((trial / name for name, file in _OF_FOLDER if (trial / name / file).is_file()), None)


def delete_folders(trial: Path, kind: str) -> None:
    """Delete a trial's folder of a kind: `checkpoint`, or `adapter`, which stands for all that it trained."""
    for name in TRAINED_FOLDERS if kind == ADAPTER_FOLDER else (kind,):
        shutil.rmtree(trial / name, ignore_errors=True)


def method_mistakes(values: Mapping[str, Value]) -> Iterator[Mistake]:
    """An error for each key that a full fine-tuning does not read, by the values of the file, ranges included."""
    train, lora, model = (_section(values, name) for name in ("train", "lora", "model"))
    methods = _methods(train)
    if FULL not in methods:
        return
    keys = [("lora", key) for key in lora] + [("train", key) for key in ONLY_LORA if key in train]
    for section, key in keys:
        given = (lora if section == "lora" else train)[key]
        if LORA not in methods:
            rule = "has no effect with train.method: full, which trains all weights; remove it"
            yield (section, key), f"{section}.{key}: {rule}"
        elif range_kind(given) not in (None, "expr") and not _only_with_lora(given):
            rule = "has no effect at train.method: full; add `when: {train.method: lora}`"
            yield (section, key), f"{section}.{key}: {rule}"
    if model.get("quantization") is not None:
        rule = "rounds weights to 4 bits, which cannot be trained (train.method: full); remove one of the two"
        yield ("model", "quantization"), f"model.quantization: {rule}"
    if model.get("dtype") == "float16":
        rule = "float16 cannot hold the gradients of a full fine-tuning (no loss scaling); write bfloat16 or float32"
        yield ("model", "dtype"), f"model.dtype: {rule}"


def _section(values: Mapping[str, Value], name: str) -> Mapping[str, Value]:
    section = values.get(name)
    return section if isinstance(section, dict) and range_kind(section) is None else {}


def _methods(train: Mapping[str, Value]) -> list[Value]:
    """The methods that points of the file may have."""
    given = train.get(METHOD, LORA)
    if isinstance(given, dict) and range_kind(given) is not None:
        listed = given.get("choice")
        return listed if isinstance(listed, list) else [*METHODS]
    return [given]


def _only_with_lora(given: Value) -> bool:
    """Whether a range exists only where an adapter is trained."""
    when = given.get("when") if isinstance(given, dict) else None
    wanted = when.get(f"train.{METHOD}") if isinstance(when, dict) else None
    return wanted in (LORA, [LORA])
