"""A trained study that trackers get: its folder, its config and rows, and its curves as they lie on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpotune.config.load import Study
from hpotune.exchange.trackers.sync_study import SyncResult, Tracker, sync_study
from hpotune.records.trial import TrialRow
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.trained_study import copy_of


@dataclass(frozen=True, kw_only=True)
class SentStudy:
    """A study to send; its expectations are read from the store and the files, not by the code that sends."""

    folder: StudyFolder
    study: Study
    rows: list[TrialRow]

    def sync(self, tracker: Tracker, *, again: bool = False) -> SyncResult:
        return sync_study(self.folder, self.study, self.rows, tracker, again=again)

    def losses(self, number: int) -> list[tuple[int, float]]:
        file = self.folder.trial(number) / "curve.jsonl"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        return [(line["step"], line["loss"]) for line in lines]

    def numbers(self, row: TrialRow) -> dict[str, float]:
        return {name: value for name, value in row.metrics.items() if isinstance(value, (int, float))}


@pytest.fixture
def sent_study(trained_study: Path, tmp_path: Path) -> SentStudy:
    folder = StudyFolder(path=copy_of(trained_study, tmp_path))
    study = folder.load()
    return SentStudy(folder=folder, study=study, rows=rows_of(folder.provenance().store, study))
