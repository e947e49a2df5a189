"""A study that hpotune derived from another one, as it is read for a report: its trials by the study's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.derived_points import DerivedPoint, DerivedPoints, read_points
from hpotune.records.trial import TrialRow
from hpotune.schedule.gpu_hours import gpu_hours_used
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder, open_folder

DerivedState = Literal["running", "failed", "done"]
"""running: trials are left, whether or not a job runs now. failed: some cannot be evaluated, and no more are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedTrials:
    """The folder, config, list and trials of a derived study."""

    folder: StudyFolder
    config: StudyConfig
    listed: DerivedPoints
    rows: Sequence[TrialRow]

    @property
    def baseline(self) -> TrialRow | None:
        """The trial of the base model: the finished one, else the latest."""
        found = [row for row in self.rows if row.kind == "baseline"]
        return next((row for row in found if row.state == "finished"), found[-1] if found else None)

    def row_of(self, point: DerivedPoint) -> TrialRow | None:
        """The trial of a point: the finished one, else the latest; None before it is started."""
        found = [row for row in self.rows if row.kind == "trial" and self.listed.of(row) == point]
        return next((row for row in found if row.state == "finished"), found[-1] if found else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedStatus:
    """Where a derived study stands, and what it has cost."""

    state: DerivedState
    gpu_hours: float
    """Used by all attempts, up to now."""


def derived_trials(path: Path) -> DerivedTrials | None:
    """The derived study in a folder; None where there is none."""
    if not (path / "resolved.yaml").is_file():
        return None
    folder = open_folder(path, own=False)
    study = folder.load()
    return DerivedTrials(
        folder=folder,
        config=study.config,
        listed=read_points(folder.path),
        rows=rows_of(folder.provenance().store, study),
    )


def status_of_trials(found: DerivedTrials, *, now: datetime) -> DerivedStatus:
    """The status of a derived study that has been read."""
    from hpotune.schedule.stopping_criterion import stop_reason

    states = [row.state for row in found.rows]
    total, finished = found.config.budget.trials, states.count("finished")
    stop = stop_reason(found.config, found.rows, now=now)
    stopped = stop is not None and finished < total and "running" not in states
    return DerivedStatus(
        state="done" if finished >= total else "failed" if stopped else "running",
        gpu_hours=round(gpu_hours_used(found.config, found.rows, now=now), 4),
    )
