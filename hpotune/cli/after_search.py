"""What follows a search by itself: the repeats of its finalists, on this machine or as Slurm jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from hpotune.cli.common import open_study, say

if TYPE_CHECKING:
    from hpotune.config.load import Study
    from hpotune.launch.prepare import PreparedStudy
    from hpotune.records.trial import TrialRow
    from hpotune.workspace.folder import StudyFolder


def repeats_left(folder: StudyFolder, study: Study, rows: Sequence[TrialRow]) -> bool:
    """Whether the search has ended and repeats of its finalists are left to start. Makes nothing.

    Raises: HpotuneError where a study of repeats cannot be read.
    """
    from hpotune.launch.repeat_study import search_ended
    from hpotune.report.derived.derived_study import derived_trials
    from hpotune.schedule.stopping_criterion import stop_reason

    if not search_ended(study.config, rows, now=datetime.now()):
        return False
    found = derived_trials(folder.repeats.path)
    if found is None or stop_reason(found.config, found.rows, now=datetime.now()) is None:
        return True
    from hpotune.report.finalists import choose_finalists

    counts = Counter(one.trial for one in found.listed.points)
    finalists = choose_finalists(folder, study.config, rows)
    return any(counts[number] < study.config.search.repeats for number in finalists)


def run_repeats(folder: StudyFolder, *, as_json: bool) -> bool:
    """Run the repeats that are due on this machine; False when the user stopped them.

    Raises: HpotuneError where some could not be trained.
    """
    from hpotune.launch.run_local import run_study, shortfall
    from hpotune.report.progress.run_display import Progress

    prepared = _due_repeats(folder)
    if prepared is None:
        return True
    config = prepared.study.config
    say(f"repeats of the finalists: {prepared.folder.path}", err=True)
    with Progress(prepared.folder, config, prepared.store, silent=as_json) as progress:
        done = run_study(prepared.folder, prepared.store, config, show=progress.show)
    if done and (why := shortfall(config, prepared.store.rows(), now=datetime.now())):
        from hpotune.errors import HpotuneError

        raise HpotuneError(why)
    return done


def submit_repeats(folder: StudyFolder, *, unattended: bool) -> tuple[list[str], str]:
    """Submit the jobs of the repeats that are missing; their ids, and a warning.

    `unattended`: by a job, which submits nothing of a study that was cancelled.
    Raises: HpotuneError.
    """
    from hpotune.launch.follow_up import follow_up
    from hpotune.workspace.lock import exclusive_lock

    prepared = _due_repeats(folder)
    if prepared is None:
        return [], ""
    config, store = prepared.study.config, prepared.store
    with exclusive_lock(folder.jobs / ".lock"):  # `cancel` comes before, or finds their jobs
        if unattended and folder.cancelled.exists():
            return [], "the study was cancelled, so its repeats were not submitted"
        done = follow_up(prepared.folder, store, config, now=datetime.now(), unattended=unattended)
    return list(done.submitted), done.warning


def _due_repeats(folder: StudyFolder) -> PreparedStudy | None:
    """The study of the repeats once the search has ended; None before, and without `search.repeats`."""
    from hpotune.launch.repeat_study import open_repeats, search_ended
    from hpotune.report.finalists import choose_finalists

    folder, study, store = open_study(folder.path, None)
    if not study.config.search.repeats:
        return None
    rows = store.rows()
    if not search_ended(study.config, rows, now=datetime.now()):
        return None
    return open_repeats(folder, study, rows, choose_finalists(folder, study.config, rows))
