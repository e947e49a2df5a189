"""A study that a verb or a call of the Python interface has opened: its folder, its study, its store or its trials."""

from __future__ import annotations

from pathlib import Path

from hpotune.api.call_messages import Line
from hpotune.config.load import Study
from hpotune.config.paths import resolve
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import read_source
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialRow
from hpotune.storage import TrialQueue
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder, difference_message, folder_of, home_of
from hpotune.workspace.stored_preset import with_stored_preset


def open_study(
    target: Path, chosen: Path | None, *, note: Line, write: bool = False, patient: bool = False
) -> tuple[StudyFolder, Study, TrialQueue]:
    """The folder, the study and its store, which is read-only unless `write`."""
    folder, study = load_study_of(target, chosen, note=note)
    url = folder.provenance().store
    return folder, study, TrialQueue.open(url, study, read_only=not write, patient=patient)


def load_study_of(target: Path, chosen: Path | None, *, note: Line) -> tuple[StudyFolder, Study]:
    """The folder and its study. `note` gets a line where the study file has changed into another study since."""
    folder = folder_of(target, chosen=chosen)
    study = folder.load()
    for text in _changed_file(target, folder):
        note(text)
    return folder, study


def read_study(target: Path, chosen: Path | None, *, note: Line) -> tuple[StudyFolder, Study, list[TrialRow]]:
    """The folder, the study as it is now, and its trials; the store is only read."""
    folder, study = load_study_of(target, chosen, note=note)
    return folder, study, rows_of(folder.provenance().store, study)


def read_trials(
    target: Path, chosen: Path | None, *, note: Line
) -> tuple[StudyFolder, StudyConfig, list[TrialRow]]:
    """As `read_study`, with the study's config alone."""
    folder, study, rows = read_study(target, chosen, note=note)
    return folder, study.config, rows


def _changed_file(target: Path, folder: StudyFolder) -> list[str]:
    """A note where the study file differs from the study in the folder, which is the one that is shown."""
    if not target.is_file() or target.resolve().parent == folder.path:
        return []
    try:
        file = read_source(target)
        now = resolve(file, home=home_of(target))[0]
        values = with_stored_preset(now, folder, written=file.values).values
        resolved = folder.read_resolved().values
        values.setdefault("data_root", resolved.get("data_root"))
        note = difference_message(folder, {key: value for key, value in values.items() if value is not None})
        if values.get("best") != resolved.get("best"):
            note = note or (
                f"the rule `best` of {target.name} has changed: `hpotune resume` applies it, "
                "`hpotune best --rule` tries one"
            )
    except StudyFileError:  # `check` reports its errors
        return []
    return [note] if note else []
