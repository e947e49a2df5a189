"""How far a running trial is: its phase, the steps of it, and when the phase ends.

progress.json and the log come from other processes: what is not as it should be there is left out, and nothing fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hpotune.config.json_file import read_regular
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import StudyFileError
from hpotune.records.progress_record import MAX_BYTES, PHASE_TEXTS, PROGRESS, Phase, ProgressRecord
from hpotune.records.trial import TrialRow
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.trial_reports import last_reported

MOST_READ = 16
"""Running trials whose progress is read for one display."""
_OLDEST_S = 30.0
"""The time since the file was written counts up to so much: clocks differ, and a process may hang."""
_LONGEST_S = 366 * 86400.0
_TAIL_BYTES = 8192
"""The end of a command's log in which its last report is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialProgress:
    """The progress of a running trial."""

    phase: Phase
    task: str = ""
    """Of the phase `score`: the names of the tasks."""
    step: int | None = None
    steps: int | None = None
    """Steps of the phase, done and in all; None: it has no steps."""
    seconds: float | None = None
    """Since the phase began."""
    left_s: float | None = None
    """Seconds until the phase ends, at the pace that it has had so far; None: not known."""
    reported: Mapping[str, float] = field(default_factory=dict)
    """Objective -> the value that its program reported or printed last, or the score at the trial's last rung."""

    @property
    def text(self) -> str:
        """`training`, `scoring hellaswag`."""
        return " ".join(filter(None, [PHASE_TEXTS[self.phase], self.task]))


def unit_of(progress: TrialProgress) -> str:
    """What a step of the phase is."""
    return {"data": "row", "evaluate": "row", "score": "request"}.get(progress.phase, "step")


def trial_progress(
    folder: StudyFolder, config: StudyConfig, row: TrialRow, *, now: datetime
) -> TrialProgress | None:
    """The progress of a running trial; None where nothing is known of it."""
    try:
        own = folder.trusted_trial(row.number)
    except (StudyFileError, OSError):  # another user may have written it
        return None
    is_finetune = config.python is None and config.command is None
    reported = _reported(own, config, row)
    found = _read(own / PROGRESS, now=now)
    if found is None and not own.is_dir():
        return None
    if found is None and is_finetune:
        phase: Phase = "end" if (own / "result.json").is_file() else "start"
        return TrialProgress(phase=phase, reported=reported)
    record, age_s = found or (ProgressRecord(), 0.0)
    return TrialProgress(
        phase=record.phase if is_finetune else "run",
        task=record.task,
        step=min(record.step or 0, record.steps) if record.steps else None,
        steps=record.steps,
        seconds=None if record.seconds is None else round(record.seconds + age_s, 1),
        left_s=_left_s(record, age_s),
        reported=reported,
    )


def _read(file: Path, *, now: datetime) -> tuple[ProgressRecord, float] | None:
    """What the file says, and how many seconds ago it was written; None where it is missing or damaged."""
    try:
        written = file.stat().st_mtime
        record = ProgressRecord.model_validate_json(read_regular(file, most=MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return record, min(max(0.0, now.timestamp() - written), _OLDEST_S)


def _left_s(record: ProgressRecord, age_s: float) -> float | None:
    done = (record.step or 0) - record.first_step
    if record.seconds is None or record.steps is None or done <= 0:
        return None
    left = record.seconds / done * max(0, record.steps - (record.step or 0)) - age_s
    return round(max(0.0, left), 1) if left < _LONGEST_S else None


def _reported(own: Path, config: StudyConfig, row: TrialRow) -> dict[str, float]:
    """The last values that the trial has given before its end: a report, a line of its output, or its last rung."""
    objectives = config.score.objective
    if config.python is not None or config.command is not None:
        pushed = last_reported(own, [one.metric for one in objectives])
        if all(_is_number(pushed.get(one.metric)) for one in objectives):
            return {one.label: pushed[one.metric] for one in objectives}
    if config.command is not None:
        for line in reversed(_last_lines(own / "log.txt")):
            with suppress(ValueError, RecursionError):
                found = json.loads(line)
                if isinstance(found, dict) and all(_is_number(found.get(one.metric)) for one in objectives):
                    return {one.label: float(found[one.metric]) for one in objectives}
    if row.rung_scores:
        return {one.label: value for one, value in zip(objectives, row.rung_scores[-1].values, strict=False)}
    return {}


def _is_number(value: object) -> bool:
    with suppress(OverflowError):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return False


def _last_lines(log: Path) -> list[str]:
    """The whole lines at the end of a regular file; none where it cannot be read."""
    try:
        if not log.is_file():  # a pipe would be waited for
            return []
        with log.open("rb") as content:
            size = content.seek(0, 2)
            content.seek(max(0, size - _TAIL_BYTES))
            return content.read(_TAIL_BYTES).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
