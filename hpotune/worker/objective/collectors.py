"""Where an own function's or command's values are read, and which of them is the trial's: `score.collect` and `take`.

Kinds are Katib's metrics collectors (config/schema/collect_config.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from re import Pattern

from hpotune.config.schema.collect_config import STEP
from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective.event_file import read_scalars
from hpotune.worker.objective.interface import failed_result, result_of_answer
from hpotune.workspace.folder import NEW_ATTEMPT_LINE
from hpotune.workspace.trial_reports import Observation, read_reports, surviving

_LAST_LINES = 200
"""Lines at the end of a command's output in which its JSON line is looked for where its last value counts."""
_LONGEST_LINE = 100_000
"""Characters of a line in which a filter is searched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collector:
    """Reads the values of one attempt at a trial; made before the program starts, so that earlier output is known."""

    spec: TrialSpec
    attempt: str
    started: float
    """Unix seconds."""
    earlier: bytes
    """Digest of what the program's file held before."""
    earlier_size: int

    @property
    def folder(self) -> Path:
        """The trial's folder."""
        return Path(self.spec.folder)

    def result(self, answer: object = None) -> TrialResult:
        """The trial's result. `answer`: what the function returned or the command wrote to its result file, or None.

        A failure says where the values were looked for.
        """
        kind = self.spec.point.score.collect.kind
        if kind == "auto":
            return self._automatic(answer)
        found = {
            "push": self._pushed,
            "stdout": self._printed,
            "file": self._filed,
            "tensorboard": self._events,
        }
        return self._chosen(found[kind](), self._where())

    def _automatic(self, answer: object) -> TrialResult:
        objectives = self.spec.point.score.objective
        pushed = self._pushed()
        if answer is not None:
            result = result_of_answer(self.spec, answer)
            if result.state != "finished" or all(one.take == "last" for one in objectives):
                return result
            numbers = {key: value for key, value in result.metrics.items() if isinstance(value, (int, float))}
            return self._chosen([*pushed, Observation(values=numbers, attempt=self.attempt)], "")
        if _has_all(surviving(pushed, attempt=self.attempt), objectives):
            return self._chosen(pushed, "")
        if self.spec.command is None:
            return result_of_answer(self.spec, None)
        if all(one.take == "last" for one in objectives):
            return self._last_json_line()
        return self._chosen(self._json_lines(), _no_json_line(objectives))

    def _pushed(self) -> list[Observation]:
        return read_reports(self.folder)

    def _printed(self) -> list[Observation]:
        filters = [re.compile(one) for one in self.spec.point.score.collect.filters]
        found = (_matched(line, filters, attempt) for attempt, line in self._log_lines())
        return [one for one in found if one.values]

    def _filed(self) -> list[Observation]:
        collect = self.spec.point.score.collect
        filters = [re.compile(one) for one in collect.filters]
        found = []
        for attempt, line in self._file_lines():
            one = _of_json(line, attempt) if collect.format == "json" else _matched(line, filters, attempt)
            if one is not None and one.values:
                found.append(one)
        return found

    def _events(self) -> list[Observation]:
        return [
            Observation(
                values={scalar.tag: scalar.value},
                step=scalar.step,
                attempt=self.attempt if scalar.wall_time >= self.started else "",
            )
            for scalar in read_scalars(self._path())
        ]

    def _last_json_line(self) -> TrialResult:
        objectives = self.spec.point.score.objective
        own = [line for attempt, line in self._log_lines() if attempt == self.attempt and line.strip()]
        for line in reversed(own[-_LAST_LINES:]):
            with suppress(ValueError):
                found = json.loads(line)
                if _holds_value(found, objectives):
                    return result_of_answer(self.spec, found)
        return failed_result(self.spec, "user", _no_json_line(objectives))

    def _json_lines(self) -> list[Observation]:
        """The lines of a command's output that hold all its values, of all attempts."""
        objectives = self.spec.point.score.objective
        found = []
        for attempt, line in self._log_lines():
            with suppress(ValueError):
                content = json.loads(line) if line[:1] in "{-0123456789" else None
                if _holds_value(content, objectives):
                    named = content if isinstance(content, dict) else {objectives[0].metric: content}
                    found.append(_numbers(named, attempt))
        return found

    def _chosen(self, observations: Sequence[Observation], nowhere: str) -> TrialResult:
        """The result by each objective's `take`; of other metrics the last value."""
        objectives, kept = self.spec.point.score.objective, surviving(observations, attempt=self.attempt)
        values: dict[str, float] = {}
        for one in kept:
            values.update(one.values)
        for objective in objectives:
            having = [one for one in kept if objective.metric in one.values]
            if not having:
                near = f"; it reported {', '.join(sorted(values))[:80]}" if values else ""
                text = nowhere or f"nothing gave {objective.metric!r}"
                return failed_result(self.spec, "user", text.replace("{metric}", objective.metric) + near)
            taken = _take(objective, having)
            error = f"{objective.metric}_stderr"
            values.pop(error, None)
            values.update({k: v for k, v in taken.values.items() if k in (objective.metric, error)})
        return result_of_answer(self.spec, values)

    def _where(self) -> str:
        """Why there is no value of a metric, with the next step; {metric} is the metric."""
        collect = self.spec.point.score.collect
        filters = " or ".join(map(repr, collect.filters))
        path = collect.path
        written = f"which score.collect reads; write it to $HPOTUNE_TRIAL_DIR/{path}"
        searched = "has no {metric} by the filter " + filters
        if collect.kind == "push":
            said = "nothing called hpotune.report() with {metric} (score.collect: push)"
            return f"{said}; call report({{'{{metric}}': NUMBER}})"
        if collect.kind == "stdout":
            return f"its output {searched}; print the metric so, or change score.collect.filter"
        if not self._path().exists():
            return f"it wrote no {path}, {written}"
        if collect.kind == "tensorboard":
            return (
                f"no event file in {path} has the tag {{metric}} with a number; name the metric as the tag is"
            )
        if collect.format == "json":
            return f"{path} has no line of JSON with a number for {{metric}}; write such lines, {written}"
        return f"{path} {searched}; write the metric so, or change score.collect.filter"

    def _path(self) -> Path:
        return self.folder / str(self.spec.point.score.collect.path)

    def _log_lines(self) -> Iterator[tuple[str, str]]:
        """The lines of the log, each with its attempt; the last part of the log is this attempt's."""
        lines = _lines(self.folder / "log.txt")
        ends = [index for index, line in enumerate(lines) if line == NEW_ATTEMPT_LINE]
        last = ends[-1] if ends else -1
        part = 0
        for index, line in enumerate(lines):
            part += line == NEW_ATTEMPT_LINE
            yield (self.attempt if index > last else str(part)), line

    def _file_lines(self) -> Iterator[tuple[str, str]]:
        """The lines of the program's file, those that earlier attempts wrote marked so."""
        content = _content(self._path())
        before = content[: self.earlier_size]
        if self.earlier_size and _digest(before) == self.earlier:  # else the program wrote the file anew
            yield from (("", line) for line in before.decode(errors="replace").splitlines())
            content = content[self.earlier_size :]
        yield from ((self.attempt, line) for line in content.decode(errors="replace").splitlines())


def open_collector(spec: TrialSpec, *, attempt: str) -> Collector:
    """The collector of an attempt that is about to start."""
    path = spec.point.score.collect.path
    before = _content(Path(spec.folder, path)) if path is not None else b""
    return Collector(
        spec=spec, attempt=attempt, started=time.time(), earlier=_digest(before), earlier_size=len(before)
    )


def _take(objective: Objective, having: Sequence[Observation]) -> Observation:
    """The observation that counts; NaN and infinity only where there is nothing else."""
    finite = [one for one in having if math.isfinite(one.values[objective.metric])]
    if objective.take == "last" or not finite:
        return having[-1]
    choose = min if objective.take == "min" else max
    return choose(finite, key=lambda one: one.values[objective.metric])


def _has_all(observations: Iterable[Observation], objectives: Sequence[Objective]) -> bool:
    names = {name for one in observations for name in one.values}
    return all(objective.metric in names for objective in objectives)


def _matched(line: str, filters: Sequence[Pattern[str]], attempt: str) -> Observation:
    """What the filters find in a line; a later match of a metric replaces an earlier one."""
    found: dict[str, str] = {}
    for pattern in filters:
        for match in pattern.finditer(line[:_LONGEST_LINE]):
            if pattern.groupindex:
                found.update({k: v for k, v in match.groupdict().items() if v is not None})
            elif match[1] is not None and match[2] is not None:
                found[match[1].strip()] = match[2]
    return _numbers({k: n for k, v in found.items() if (n := _parsed(v)) is not None}, attempt)


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # of the default filter, whose number may be empty
        return None


def _of_json(line: str, attempt: str) -> Observation | None:
    with suppress(ValueError, RecursionError):
        content = json.loads(line)
        if isinstance(content, dict):
            return _numbers(content, attempt)
    return None


def _numbers(values: Mapping[str, object], attempt: str) -> Observation:
    """The numbers of a mapping; the number under `step` is its step, and no metric."""
    step = values.get(STEP)
    whole = isinstance(step, (int, float)) and not isinstance(step, bool) and math.isfinite(step)
    return Observation(
        values={
            str(k): float(v)
            for k, v in values.items()
            if k != STEP and isinstance(v, (int, float)) and not isinstance(v, bool)
        },
        step=int(step) if whole and isinstance(step, (int, float)) else None,
        attempt=attempt,
    )


def _holds_value(found: object, objectives: Sequence[Objective]) -> bool:
    """Whether a JSON line holds the value: every metric by name, or a bare number where there is only one."""
    if isinstance(found, dict):
        return all(objective.metric in found for objective in objectives)
    return len(objectives) == 1 and isinstance(found, (int, float)) and not isinstance(found, bool)


def _no_json_line(objectives: Sequence[Objective]) -> str:
    wanted = ", ".join(f'"{objective.metric}": number' for objective in objectives)
    return (
        "printed no JSON line with its value, wrote no $HPOTUNE_RESULT file and called no hpotune.report(); "
        f"print {{{wanted}}} at the end"
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def _lines(path: Path) -> list[str]:
    return _content(path).decode(errors="replace").splitlines()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
