"""Puts the ranges of a preset (`space: NAME`) into the values of a study file, never over what the file says.

A study that exists keeps the ranges that its folder holds, whatever the table of presets says by then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from hpotune.config.dependent_keys import dependent_key_mistakes
from hpotune.config.space.presets import PRESETS, PresetRange, flow
from hpotune.config.space.range_parsing import range_kind
from hpotune.config.training_method import METHOD
from hpotune.config.yaml_source import KeyPath, Value
from hpotune.errors import nearest

_SECTIONS = ("lora", "train")
_BATCH = ("train.global_batch_size", "gradient_accumulation_steps")
"""A range of the preset, and the key of `train` that says the same in another form."""


def preset_ranges(values: Mapping[str, Value]) -> tuple[PresetRange, ...]:
    """What the preset of a study file fills in; nothing for an unknown one, and for a study that it is not for.

    Left out: keys that the file gives, and keys of `train` that its optimizer or schedule does not read.
    """
    preset = PRESETS.get(str(values.get("space")))
    if preset is None or preset_mistake(values) is not None:
        return ()
    train = _section(values, "train")
    same = {_BATCH[0]} if _BATCH[1] in train else set()
    found = [one for one in preset.ranges if one.key not in same and _is_free(values, one.where)]
    unread = {key for key, _ in dependent_key_mistakes(_filled(train, found))}
    unread -= {key for key, _ in dependent_key_mistakes(train)}
    return tuple(one for one in found if one.where not in unread)


def with_preset(values: dict[str, Value]) -> dict[str, Value]:
    """The values of a study file with the ranges of its preset."""
    found = preset_ranges(values)
    sections = {str(one.where[0]) for one in found}
    more = {
        name: {
            **_section(values, name),
            **{str(one.where[1]): one.value for one in found if one.where[0] == name},
        }
        for name in sorted(sections)
    }
    return {**values, **json.loads(json.dumps(more))}


def preset_mistake(values: Mapping[str, Value]) -> str | None:
    """Why the preset of a study file cannot be used with it; None where it can, or where none is given."""
    name = values.get("space")
    preset = PRESETS.get(str(name))
    if preset is None:
        unknown = isinstance(name, str)  # another type is an error of the schema
        return f"is no known preset; {nearest(str(name), PRESETS)}" if unknown else None
    own = next((key for key in ("python", "command") if values.get(key) is not None), None)
    if own is not None:
        return f"gives ranges of lora and train, which {own} does not have; remove it, and write ranges under params"
    if values.get("model") is None or values.get("data") is None:
        return (
            "gives ranges of a fine-tuning, and the study trains nothing; remove it, or write model and data"
        )
    given = _section(values, "train").get(METHOD, preset.method)
    if given != preset.method:
        other = next((one.name for one in PRESETS.values() if one.method == given), None)
        step = f"write space: {other}" if other else "write the ranges, each with `when`"
        return f"is for train.method: {preset.method}, and the file says {flow(given)}; {step}"
    return None


def _section(values: Mapping[str, Value], name: str) -> dict[str, Value]:
    section = values.get(name)
    return section if isinstance(section, dict) and range_kind(section) is None else {}


def _is_free(values: Mapping[str, Value], where: KeyPath) -> bool:
    """Whether the file says nothing of a key: neither the key, nor something else instead of its section."""
    section = values.get(str(where[0]))
    return section is None or (section == _section(values, str(where[0])) and where[1] not in section)


def _filled(train: Mapping[str, Value], found: Sequence[PresetRange]) -> dict[str, Value]:
    return {**train, **{str(one.where[1]): one.value for one in found if one.where[0] == "train"}}


def stored_ranges(
    values: dict[str, Value],
    *,
    written: Mapping[str, Value],
    stored: Mapping[str, Value],
    written_then: Mapping[str, Value],
) -> dict[str, Value]:
    """The values of a file with the ranges that its preset had when the study was made, as its folder holds them.

    `values`: of the file, with the preset of now. `written`: as the user wrote them. `stored`: of the folder's
    resolved.yaml. `written_then`: as the user wrote them when the study was made.
    """
    if values.get("space") is None or values.get("space") != stored.get("space"):
        return values
    found = dict(values)
    for name in _SECTIONS:
        own, then, kept = (_section(given, name) for given in (written, written_then, stored))
        now = _section(values, name)
        filled = {key: value for key, value in kept.items() if key not in then}
        again = {key: value for key, value in now.items() if key not in own and key in then}
        section = {**{key: now[key] for key in own if key in now}, **again}
        section |= {key: value for key, value in filled.items() if key not in own}
        if section or name in values:
            found[name] = {key: section[key] for key in sorted(section, key=_order(now))}
    return found


def _order(section: Mapping[str, Value]) -> Callable[[str], int]:
    """The order of keys: as in the section, others last."""
    positions = {key: at for at, key in enumerate(section)}
    return lambda key: positions.get(key, len(positions))


def filled_keys(values: Mapping[str, Value], written: Mapping[str, Value]) -> tuple[str, ...]:
    """The dotted keys of `lora` and `train` that a study has and its file does not say: those of its preset."""
    if values.get("space") is None:
        return ()
    return tuple(
        f"{name}.{key}"
        for name in _SECTIONS
        for key in _section(values, name)
        if key not in _section(written, name)
    )


def preset_note(values: Mapping[str, Value], written: Mapping[str, Value]) -> str:
    """One line that says what came from the preset; empty for a study without one."""
    keys = filled_keys(values, written)
    if values.get("space") is None:
        return ""
    texts = [f"{key}: {flow(_section(values, key.split('.')[0])[key.split('.')[1]])}" for key in keys]
    said = "; ".join(texts) or "nothing, since the file gives all of its keys"
    return f"from preset {values['space']}: {said} (docs/presets.md has the reasons)"
