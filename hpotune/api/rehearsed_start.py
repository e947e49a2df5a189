"""The rehearsal of a study that is about to run, and its record in the study's folder."""

from __future__ import annotations

from dataclasses import dataclass

from hpotune.api.call_messages import Messages
from hpotune.checks.rehearsal import Limits, Rehearsal, record_rehearsal, rehearse
from hpotune.config.load import Study
from hpotune.reporting.progress.progress_line import progress_line
from hpotune.workspace.folder import StudyFolder


@dataclass(kw_only=True)
class FirstRehearsal:
    """Rehearses a study before anything of it is written, and records that once its folder exists."""

    skip: bool
    limits: Limits
    messages: Messages
    done: Rehearsal | None = None

    def rehearse(self, study: Study, folder: StudyFolder) -> None:
        """Rehearse the study unless that is skipped or it is no fine-tuning; passes on what a new rehearsal warns of.

        Raises: StudyFileError with every mistake; HpotuneError if it could not be finished.
        """
        if self.skip or study.config.model is None:
            return
        self.done = shown_rehearsal(
            study, limits=self.limits, silent=not self.messages.progress, folder=folder
        )
        self.done.raise_mistakes(study, complete=True)
        if not self.done.again:
            for finding in self.done.findings:
                self.messages.warning(finding.message(study.source))

    def record(self, folder: StudyFolder) -> None:
        """Write the study's rehearsal.json, if it was rehearsed here or that was skipped."""
        if self.skip or self.done is not None:
            record_rehearsal(folder, self.done)


def shown_rehearsal(
    study: Study, *, limits: Limits, silent: bool, folder: StudyFolder, preview: bool = False
) -> Rehearsal:
    """The rehearsal of the study of a folder, with its progress on stderr unless `silent`."""
    with progress_line(silent=silent) as show:
        return rehearse(study, limits=limits, folder=folder, preview=preview, show=show)
