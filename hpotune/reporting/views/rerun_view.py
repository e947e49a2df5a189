"""A trial beside its rerun: every number to the last digit, and what differs in what they were computed with."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpotune.config.json_file import optional_object
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialResult, TrialRow
from hpotune.reporting.views.trial_files import loss_curve
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.origin.environment import environment_differences, read_environment
from hpotune.workspace.origin.trial_provenance import TrialProvenance, read_trial_provenance

COSTS = frozenset(
    {"seconds", "gpu_hours", "process_hours", "peak_memory_gb", "train_seconds", "samples_per_second"}
    | {
        "tokens_per_second",
        "sequences_per_second",
        "world_size",
        "base_share_per_rank",
        "first_steps_peak_gb",
    }
    | {"memory_estimate_gb"}
)
"""Metrics of time and memory, which no two runs share, and of ranks, which are named as a difference."""
FILE = "comparison.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedNumber:
    """A number of the trial and of its rerun."""

    name: str
    before: float | None
    """None: the trial has no such number."""
    now: float | None
    decides: bool
    """Whether it must be equal: losses and scores, not times; of a function or command the objectives."""

    @property
    def equal(self) -> bool:
        """Whether both are the same number, to the last digit."""
        return self.before == self.now


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentDifference:
    """Something that the trial and its rerun do not share."""

    what: str
    """A package, python, cpu, gpu, driver, code, model, data, host, threads …"""
    before: str
    """Empty: it was not there."""
    now: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RerunResult:
    """The comparison of a trial with its rerun."""

    trial: int
    folder: Path
    """Of the rerun: its log, its result, its adapter."""
    state: Literal["equal", "different", "failed"]
    """failed: the rerun gave no value."""
    message: str
    """Why it failed; empty otherwise."""
    numbers: tuple[ComparedNumber, ...]
    first_step: int | None
    """The first step at which the training losses differ; None: they do not, or there are none."""
    differences: tuple[EnvironmentDifference, ...]
    recorded: bool
    """Whether the trial's environment was recorded; False: what differs is not known."""


def compared(
    folder: StudyFolder, config: StudyConfig, row: TrialRow, own: Path, result: TrialResult
) -> RerunResult:
    """The comparison of a trial with the result of its rerun in the folder `own`."""
    before, now = read_trial_provenance(folder.trial(row.number)), read_trial_provenance(own)
    numbers = tuple(compared_numbers(config, row, result)) if result.state == "finished" else ()
    differs = any(one.decides and not one.equal for one in numbers)
    step = _first_step(folder.trial(row.number), own) if numbers else None
    failure = result.failure
    return RerunResult(
        trial=row.number,
        folder=own,
        state="failed"
        if result.state != "finished"
        else "different"
        if differs or step is not None
        else "equal",
        message=f"{failure.cause}: {failure.message}" if failure else "" if numbers else "it was interrupted",
        numbers=numbers,
        first_step=step,
        differences=tuple(provenance_differences(folder.path, before, now)) if before and now else (),
        recorded=before is not None,
    )


def compared_numbers(config: StudyConfig, row: TrialRow, result: TrialResult) -> Iterator[ComparedNumber]:
    """The objectives, then all other numbers that both or one of them measured, costs left out."""
    labels, own_code = [one.label for one in config.score.objective], config.model is None
    before = dict(zip(labels, row.values, strict=False))
    now = dict(zip(labels, result.values, strict=False))
    for label in labels:
        decides = own_code or label not in COSTS
        yield ComparedNumber(name=label, before=before.get(label), now=now.get(label), decides=decides)
    old, new = (_numbers(metrics) for metrics in (row.metrics, result.metrics))
    for name in sorted({*old, *new} - {*labels, *COSTS}):
        yield ComparedNumber(name=name, before=old.get(name), now=new.get(name), decides=not own_code)


def provenance_differences(
    study: Path, before: TrialProvenance, now: TrialProvenance
) -> Iterator[EnvironmentDifference]:
    """What differs between the recorded provenance of two runs; what only one of them knows is left out."""
    old, new = (read_environment(study, one.environment) for one in (before, now))
    if old is not None and new is not None:
        for what, first, second in environment_differences(old, new):
            yield EnvironmentDifference(what=what, before=first, now=second)
    pairs = {
        "host": (before.host, now.host),
        "ranks": (str(before.ranks), str(now.ranks)),
        "threads": (before.threads or "", now.threads or ""),
        "code": (before.code or "", now.code or ""),
        **{f"{key} seed": (str(seed), str(now.seeds.get(key, seed))) for key, seed in before.seeds.items()},
    }
    for name, content in before.contents.items():
        other = now.contents.get(name)
        if other is not None and content.identity and other.identity:
            pairs[name] = (content.identity, other.identity)
    for name, digest in before.inputs.items():
        what = "tokenized rows" if name == "rows" else f"requests of {name}"
        pairs[what] = (digest, now.inputs.get(name, digest))
    for what, (first, second) in pairs.items():
        if first != second:
            yield EnvironmentDifference(what=what, before=first, now=second)


def recorded_reruns(folder: StudyFolder, number: int | None = None) -> tuple[RerunResult, ...]:
    """The reruns that have ended, of a trial or of all, by trial and oldest first; a damaged comparison is left out."""
    found = []
    for own in rerun_folders(folder, number):
        with suppress(KeyError, TypeError, ValueError):
            entry = optional_object(own / FILE)
            if entry is not None:
                found.append(_read_comparison(own, entry))
    return tuple(found)


def rerun_folders(folder: StudyFolder, number: int | None = None) -> list[Path]:
    """The folders of reruns, of a trial or of all, by trial and oldest first."""
    named = {
        (int(match[1]), int(match[2])): path
        for path in (folder.path / "reruns").glob("*-*" if number is None else f"{number}-*")
        if (match := re.fullmatch(r"(0|[1-9]\d{0,8})-(\d{1,6})", path.name))
    }
    return [named[key] for key in sorted(named)]


def _read_comparison(own: Path, entry: Mapping[str, object]) -> RerunResult:
    numbers, differences = entry["numbers"], entry["differences"]
    if not isinstance(numbers, list) or not isinstance(differences, list):
        raise ValueError("numbers and differences must be lists")
    fields = {key: value for key, value in entry.items() if key not in ("numbers", "differences", "folder")}
    return RerunResult(
        **fields,  # type: ignore[arg-type]
        folder=own,
        numbers=tuple(ComparedNumber(**{k: v for k, v in one.items() if k != "equal"}) for one in numbers),
        differences=tuple(EnvironmentDifference(**one) for one in differences),
    )


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _first_step(trial: Path, own: Path) -> int | None:
    """The first step that both curves hold with another loss."""
    before, now = dict(loss_curve(trial)), dict(loss_curve(own))
    return next((step for step in sorted(before.keys() & now.keys()) if before[step] != now[step]), None)
