"""The trial that others race against (`score.race`): a file in the study's folder, which workers replace.

A trial's process reads it when its scoring begins, and reads no store. It may name a trial that another one has just
overtaken: that one is as good a leader, since it has all items too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialRow, TrialSpec
from hpotune.schedule.best_trials import ranked_trials
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

LEADER = "leader.json"


def races(config: StudyConfig) -> bool:
    """Whether the trials of a study race: those of repeats and of the sealed test have all items."""
    return config.score.race is not None and not config.search.is_derived


def write_leader(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]) -> None:
    """Name the best trial that has all items, where trials race; on a full disk the old file stays."""
    if not races(config):
        return
    best = next(iter(ranked_trials(config.score.objective, rows, config.best)), None)
    if best is None:
        return
    text = _text(folder, best)
    file = folder.path / LEADER
    with suppress(OSError):
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_atomic(file, text)


def leader_of_rerun(spec: TrialSpec, row: TrialRow, folder: StudyFolder) -> TrialSpec:
    """The spec of a rerun: against the leader that ended the trial's race; all items where it had all.

    Raises: StudyFileError where the leader's items are gone.
    """
    if row.race is None:
        return spec.model_copy(update={"leader": None})
    items = folder.trial(row.race.leader) / "items.npz"
    if not items.is_file():
        raise StudyFileError(
            f"trial {row.number}: its scoring ended early beside trial {row.race.leader}, whose items.npz is gone; "
            "rerun a trial that was scored to its end"
        )
    file = Path(spec.folder) / LEADER
    stored = {
        "trial": row.race.leader,
        "value": row.race.leader_value,
        "stderr": row.race.leader_stderr,
        "items": str(items),
    }
    write_atomic(file, json.dumps(stored) + "\n")
    return spec.model_copy(update={"leader": str(file)})


def _text(folder: StudyFolder, row: TrialRow) -> str:
    stored = {
        "trial": row.number,
        "value": row.values[0],
        "stderr": row.stderrs[0] if row.stderrs else None,
        "items": str(folder.trial(row.number) / "items.npz"),
    }
    return json.dumps(stored) + "\n"
