"""Views as plain values for `--json`; the keys are part of the command line's stable interface. Nothing is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from pydantic import BaseModel

from hpotune.config.yaml_source import Value
from hpotune.records.stop_reason import StopReason
from hpotune.reporting.paired_difference import Difference
from hpotune.reporting.views.best import BestResult, ComparedTrial, CorrectedGain
from hpotune.reporting.views.status import StudyStatus
from hpotune.reporting.views.why import AttemptView

_KEYS: Mapping[type, Mapping[str, str]] = {
    StudyStatus: {"stop": "reason", "regret_bound": "outlook"},
    AttemptView: {"ended_by_other": "swept"},
}
"""Fields that have another name in JSON."""


def as_json(value: object) -> Value:
    """A view, or a collection of views, as mappings, lists, strings, numbers and None."""
    if isinstance(value, StopReason):
        return value.text
    if isinstance(value, ComparedTrial):
        return value.number
    if isinstance(value, Difference):
        return {
            "value": value.value,
            "stderr": value.stderr,
            "paired": value.paired,
            "sure": value.significant,
        }
    if isinstance(value, CorrectedGain):
        ends = {"value": value.value, "low": value.low, "high": value.high}
        return {**ends, "at_least": value.at_least, "significant": value.significant}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return as_json(value.model_dump())
    if is_dataclass(value):
        names = _KEYS.get(type(value), {})
        return {
            names.get(one.name, one.name): as_json(getattr(value, one.name))
            for one in fields(value)
            if not _is_absent(value, one.name)
        }
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(one) for one in value]
    assert value is None or isinstance(value, (str, int, float)), f"{value!r} has no form in JSON"
    return value


def _is_absent(view: object, name: str) -> bool:
    """Whether a key is left out: what is said only if Slurm did not answer in full, `adapter` without a best trial."""
    if isinstance(view, StudyStatus):
        return name in ("cluster", "missing") and getattr(view, name) is None
    return isinstance(view, BestResult) and name == "adapter" and view.best is None
