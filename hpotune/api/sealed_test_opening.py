"""Opens the sealed test of a study, continues an opening, or reads its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpotune.api.after_search import run_prepared
from hpotune.api.call_messages import Messages
from hpotune.api.opened_study import read_study
from hpotune.config.load import Study
from hpotune.errors import StudyFileError
from hpotune.launch.extend import ran_on_slurm
from hpotune.launch.follow_up import follow_up
from hpotune.launch.prepare import PreparedStudy
from hpotune.launch.run_local import check_local
from hpotune.launch.sealed_opening import check_has_test, check_search_ended, continue_opening, open_test
from hpotune.records.trial import TrialRow
from hpotune.reporting.finalists import choose_finalists
from hpotune.reporting.views.sealed_test import SealedTestResult, sealed_test_result
from hpotune.slurm.commands import SUBMIT_S, limited_time
from hpotune.slurm.study_jobs import submitted_jobs
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedTestOptions:
    """What is asked of the sealed test."""

    trials: Sequence[int] = ()
    """These instead of the finalists; recorded."""
    again: bool = False
    """Open it once more, which is recorded."""
    where: str | None = None
    """here or slurm; None: where the opening or the search ran."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedTest:
    """The sealed test after a call."""

    result: SealedTestResult
    finished: bool = True
    """False: the user stopped it."""
    submitted: bool = False
    """Whether it runs on Slurm."""

    @property
    def failure(self) -> str:
        """Why some trials could not be scored; empty where nothing is wrong, or it is not known yet."""
        result = self.result
        if result.state != "failed" or self.submitted:
            return ""
        return (
            f"sealed test {len(result.openings)}: some trials could not be scored; `hpotune retry {result.folder}`, "
            f"once the cause is fixed, then `hpotune test {result.folder.parents[1]}`"
        )


def open_sealed_test(
    target: Path, chosen: Path | None, options: SealedTestOptions, *, messages: Messages
) -> OpenedTest:
    """Open the sealed test, once; later calls continue an interrupted opening, or return the result.

    Raises: HpotuneError before the search has ended, StudyFileError where it has no test or was opened for others.
    """
    found, study, rows = read_study(target, chosen, note=messages.note)
    check_has_test(found, study)
    result = sealed_test_result(found, study, rows)
    if result is not None and not options.again and result.state != "running":
        _check_same_trials(result, options.trials)
        return OpenedTest(result=result)
    if result is not None and options.again and result.state == "running":
        raise StudyFileError(
            f"opening {len(result.openings)} has not finished; `hpotune test {found.path}` continues it"
        )
    if result is None or options.again:
        check_search_ended(found, study, rows)
        on_slurm = _on_slurm(found, study, rows, where=options.where)
        trials = options.trials or choose_finalists(found, study.config, rows)
        _, prepared = open_test(found, study, rows, trials, known=len(result.openings) if result else 0)
    else:
        _check_same_trials(result, options.trials)
        on_slurm = _on_slurm(found, study, rows, where=options.where, opened=result)
        prepared = continue_opening(found, study, rows)
    if on_slurm:
        _submit(prepared, found, messages=messages)
        finished = True
    else:
        finished = run_prepared(prepared, show=messages.progress)
    result = sealed_test_result(found, study, rows)
    assert result is not None, "it has been opened"
    return OpenedTest(result=result, finished=finished, submitted=on_slurm)


def _check_same_trials(result: SealedTestResult, wanted: Sequence[int]) -> None:
    """Raises: StudyFileError where other trials are asked for than the opening has."""
    tested = result.openings[-1].trials
    if wanted and set(wanted) != set(tested):
        raise StudyFileError(
            f"--trials: opening {len(result.openings)} tests trials {', '.join(map(str, tested))}; --again opens the "
            "test once more for others, which is recorded"
        )


def _on_slurm(
    found: StudyFolder,
    study: Study,
    rows: Sequence[TrialRow],
    *,
    where: str | None,
    opened: SealedTestResult | None = None,
) -> bool:
    """Whether the test runs on Slurm: as asked, else as the opening or the search did."""
    if where is not None:
        on_slurm = where == "slurm"
    elif opened is not None and submitted_jobs(StudyFolder(path=opened.folder)):
        on_slurm = True
    else:
        on_slurm = ran_on_slurm(found, rows)
    if not on_slurm:
        check_local(study.config)
    return on_slurm


def _submit(prepared: PreparedStudy, found: StudyFolder, *, messages: Messages) -> None:
    with limited_time(SUBMIT_S):
        done = follow_up(prepared.folder, prepared.store, prepared.study.config, now=datetime.now())
    if done.warning:
        messages.warning(done.warning)
    for id_ in done.submitted:
        messages.info(f"submitted job {id_}: {prepared.folder.jobs / id_}")
    messages.info(
        f"next: hpotune test {found.path} (shows the result); hpotune status {prepared.folder.path}"
    )
