"""Takes a trial out of a study: its adapter or merged weights, the upload of them, or its setting for another tool."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpotune.api.call_messages import Line
from hpotune.api.opened_study import load_study_of
from hpotune.config.load import Study
from hpotune.errors import StudyFileError
from hpotune.records.derived_points import check_not_derived
from hpotune.records.trial import TrialRow
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """What is exported."""

    trial: int | None = None
    """None: the best one."""
    merge: bool = False
    """Merged weights instead of the adapter."""
    form: str | None = None
    """A format for the setting instead of weights."""
    push: str | None = None
    """NAMESPACE/NAME on the Hugging Face hub."""
    private: bool = False

    def check(self, out: Path | None) -> None:
        """Raises: StudyFileError where options exclude each other, or one is missing."""
        if self.private and self.push is None:
            raise StudyFileError("--private: has no meaning without --push")
        if self.form is not None and (self.merge or self.push is not None):
            other = "--merge" if self.merge else "--push"
            raise StudyFileError(
                f"{other}: is for weights, and --as {self.form} writes none; leave one of the two out"
            )
        if out is None and self.push is None:
            raise StudyFileError("export: needs OUT, the folder to write; or --push NAMESPACE/NAME")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """What was written, and where."""

    written: Path | None
    """The folder of the weights, or the file of the setting; None where they were only uploaded."""
    uploaded: str | None = None
    """The address of the repository."""
    notes: tuple[str, ...] = ()
    """What the other tool's file cannot say."""


def export_study(
    target: Path, chosen: Path | None, *, out: Path | None, options: ExportOptions, note: Line, wrote: Line
) -> ExportResult:
    """Write, and upload where asked, the trial's weights or its setting; `wrote` gets what was written at once.

    Raises: HpotuneError.
    """
    options.check(out)
    if options.form is not None and out is not None:
        from hpotune.exchange.setting_export import export_setting

        found, study, rows = _read(target, chosen, note=note)
        done = export_setting(found, study, rows, out=out, number=options.trial, form=options.form)
        return ExportResult(written=done.file, notes=done.notes)
    return _export_weights(target, chosen, out=out, options=options, note=note, wrote=wrote)


def _read(target: Path, chosen: Path | None, *, note: Line) -> tuple[StudyFolder, Study, list[TrialRow]]:
    found, study = load_study_of(target, chosen, note=note)
    check_not_derived(found.path, study.config, verb="export", advice="export that study")
    return found, study, rows_of(found.provenance().store, study)


def _export_weights(
    target: Path, chosen: Path | None, *, out: Path | None, options: ExportOptions, note: Line, wrote: Line
) -> ExportResult:
    from hpotune.exchange.export import export_trial
    from hpotune.exchange.hub_upload import check_upload, upload

    if options.push is not None:
        check_upload(options.push)
    found, study, rows = _read(target, chosen, note=note)
    with tempfile.TemporaryDirectory(prefix="hpotune-export-") as temporary:
        folder = out if out is not None else Path(temporary) / "export"
        export_trial(found, study, rows, out=folder, number=options.trial, merge=options.merge)
        if out is not None:
            wrote(f"wrote {out}")
        done = upload(folder, options.push, private=options.private) if options.push is not None else None
    return ExportResult(written=out, uploaded=done)
