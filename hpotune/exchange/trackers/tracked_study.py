"""What trackers get of a study: a run for each ended trial, with its parameters, numbers and curves. No tracker here.

Sealed scores are in it only once `hpotune test` has opened the sealed test. Secrets in texts are masked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

from hpotune.config.json_file import json_lines
from hpotune.config.load import Study
from hpotune.config.text.secret_text import masked
from hpotune.config.yaml_source import Value
from hpotune.records.trial import TrialRow
from hpotune.reporting.views.sealed_test import sealed_test_result
from hpotune.reporting.views.trial_view import TrialView, trial_view
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.origin.trial_provenance import read_trial_provenance

Param = str | int | float | bool
CURVE = {"loss": "train/loss", "lr": "train/learning_rate", "tokens": "train/tokens"}
"""Numbers of a line of curve.jsonl -> their names in a tracker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedPoint:
    """Numbers of one step of a trial."""

    step: int
    values: Mapping[str, float]
    time: float | None
    """Unix seconds; None: not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """One ended trial."""

    key: str
    """Its name in the study, such as `trial-3`."""
    name: str
    """For people: `trial 3`, `base model`."""
    number: int
    state: Literal["finished", "stopped", "failed"]
    params: Mapping[str, Param]
    scores: Mapping[str, float]
    """Its final numbers: scores with their errors, everything measured, and `test/…` of an opened sealed test."""
    points: tuple[TrackedPoint, ...]
    """Its learning curve, and its scores at rungs."""
    tags: Mapping[str, str]
    start: float | None
    """Unix seconds."""
    end: float | None

    @property
    def fingerprint(self) -> str:
        """Differs where anything that is sent differs."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedStudy:
    """A study as trackers get it."""

    identity: str
    """Random, of its folder: two studies of one name are two."""
    name: str
    text: str
    """Its study file, secrets masked."""
    metrics: tuple[str, ...]
    """The labels of its objectives."""
    tags: Mapping[str, str]
    runs: tuple[TrackedRun, ...]
    active: int
    """Started trials that have not ended: they are sent later."""


def tracked_study(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], *, identity: str
) -> TrackedStudy:
    """The study with its ended trials.

    Raises: StudyFileError where another user owns a file of a trial.
    """
    objectives, made = study.config.score.objective, folder.provenance()
    sealed = _sealed_scores(folder, study, rows)
    ended = [row for row in rows if row.state in ("finished", "stopped", "failed")]
    versions = {f"version.{name}": version for name, version in made.versions.items()}
    commit = {"git_commit": made.commit} if made.commit else {}
    return TrackedStudy(
        identity=identity,
        name=study.config.name,
        text=masked(folder.study_file.read_text(encoding="utf-8", errors="replace")),
        metrics=tuple(one.label for one in objectives),
        tags={"host": made.host, "python": made.python, **versions, **commit},
        runs=tuple(
            _run(folder, trial_view(objectives, row), row, sealed=sealed.get(row.number, {})) for row in ended
        ),
        active=sum(row.state == "running" or row.paused or row.awaits_promotion for row in rows),
    )


def _sealed_scores(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow]
) -> dict[int, dict[str, float]]:
    """Trial -> its sealed scores; the base model's belong to the baseline. Empty before the first opening."""
    if not study.config.score.test or (result := sealed_test_result(folder, study, rows)) is None:
        return {}
    baseline = next((row.number for row in rows if row.kind == "baseline"), None)
    found = {}
    for one in result.tested:
        number = baseline if one.number is None else one.number
        if number is not None and one.state == "scored":
            found[number] = {f"test/{name}": value for name, value in one.metrics.items()}
    return found


def _run(folder: StudyFolder, trial: TrialView, row: TrialRow, *, sealed: Mapping[str, float]) -> TrackedRun:
    assert row.state in ("finished", "stopped", "failed"), "only ended trials are sent"
    errors = {f"{label}_stderr": error for label, error in trial.stderrs.items()}
    own = {"seconds": trial.seconds, "gpu_hours": trial.gpu_hours, "attempts": trial.attempts}
    numbers = {**own, **trial.metrics, **trial.values, **errors, **sealed}
    return TrackedRun(
        key=f"trial-{trial.number}",
        name="base model" if trial.kind == "baseline" else f"trial {trial.number}",
        number=trial.number,
        state=row.state,
        params={name: _param(value) for name, value in trial.params.items()},
        scores=dict(_finite(numbers)),
        points=(*_curve(folder, row), *_rungs(trial)),
        tags=dict(_tags(folder, trial)),
        start=min([one.start for one in row.attempts], default=trial.start),
        end=trial.end,
    )


def _param(value: Value) -> Param:
    """A value that every tracker takes; lists and mappings as JSON."""
    return (
        masked(value)
        if isinstance(value, str)
        else value
        if isinstance(value, (bool, int, float))
        else json.dumps(value)
    )


def _finite(numbers: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in numbers.items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield name, float(value)


def _curve(folder: StudyFolder, row: TrialRow) -> Iterator[TrackedPoint]:
    """The points of its learning curve, by steps; damaged lines are left out."""
    found: dict[int, TrackedPoint] = {}
    for line in json_lines(folder.trusted_trial(row.number) / "curve.jsonl"):
        with suppress(ValueError, KeyError, TypeError, OverflowError):
            step, seconds = int(line["step"]), float(line["seconds"])
            values = dict(_finite({name: float(line[key]) for key, name in CURVE.items()}))
            time = row.start + seconds if row.start is not None and math.isfinite(seconds) else None
            found[step] = TrackedPoint(step=step, values=values, time=time)
    return iter(found[step] for step in sorted(found))


def _rungs(trial: TrialView) -> Iterator[TrackedPoint]:
    for rung in trial.rungs:
        values = dict(zip((f"rung/{label}" for label in trial.values), rung.values, strict=False))
        yield TrackedPoint(step=rung.rung, values=dict(_finite(values)), time=None)


def _tags(folder: StudyFolder, trial: TrialView) -> Iterator[tuple[str, str]]:
    """Where it ran, why it failed, and what it read."""
    yield "kind", trial.kind
    yield "state", "pruned" if trial.state == "stopped" else trial.state
    yield from ((name, text) for name, text in (("host", trial.host), ("job", trial.job)) if text)
    if trial.race is not None:
        yield "scored_items", f"{trial.race.scored_items} of {trial.race.items}"
    if trial.failure is not None:
        yield "cause", trial.failure.cause
        yield "message", masked(trial.failure.message)
    for name, number in (("retry_of", trial.retry_of), ("parent", trial.parent)):
        if number is not None:
            yield name, f"trial {number}"
    found = read_trial_provenance(folder.trusted_trial(trial.number))
    for name, content in found.contents.items() if found is not None else ():
        yield f"content.{name}", masked(content.identity or content.path)
