"""What follows a search by itself: the repeats of its finalists, on this machine or as Slurm jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from hpotune.api.call_messages import Line, Messages
from hpotune.api.opened_study import open_study
from hpotune.config.load import Study
from hpotune.errors import HpotuneError
from hpotune.launch.follow_up import follow_up
from hpotune.launch.prepare import PreparedStudy
from hpotune.launch.repeat_study import open_repeats, search_ended
from hpotune.launch.run_local import run_study, shortfall
from hpotune.records.trial import TrialRow
from hpotune.reporting.derived.derived_study import derived_trials
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock


def repeats_left(folder: StudyFolder, study: Study, rows: Sequence[TrialRow]) -> bool:
    """Whether the search has ended and repeats of its finalists are left to start. Makes nothing.

    Raises: HpotuneError where a study of repeats cannot be read.
    """
    if not search_ended(study.config, rows, now=datetime.now()):
        return False
    found = derived_trials(folder.repeats.path)
    if found is None or stop_reason(found.config, found.rows, now=datetime.now()) is None:
        return True
    from hpotune.reporting.finalists import choose_finalists

    counts = Counter(one.trial for one in found.listed.points)
    finalists = choose_finalists(folder, study.config, rows)
    return any(counts[number] < study.config.search.repeats for number in finalists)


def run_repeats(folder: StudyFolder, *, messages: Messages) -> bool:
    """Run the repeats that are due on this machine; False when the user stopped them.

    Raises: HpotuneError where some could not be trained.
    """
    prepared = _due_repeats(folder, note=messages.note)
    if prepared is None:
        return True
    messages.info(f"repeats of the finalists: {prepared.folder.path}")
    done = run_prepared(prepared, show=messages.progress)
    if done and (why := shortfall(prepared.study.config, prepared.store.rows(), now=datetime.now())):
        raise HpotuneError(why)
    return done


def run_prepared(prepared: PreparedStudy, *, show: bool) -> bool:
    """Run a study whose folder exists, with its progress on stderr where `show`; False when the user stopped it."""
    from hpotune.reporting.progress.run_display import Progress  # rich, which jobs need not load

    folder, store, config = prepared.folder, prepared.store, prepared.study.config
    with Progress(folder, config, store, silent=not show) as progress:
        return run_study(folder, store, config, show=progress.show)


def submit_repeats(folder: StudyFolder, *, unattended: bool, note: Line) -> tuple[list[str], str]:
    """Submit the jobs of the repeats that are missing; their ids, and a warning.

    `unattended`: by a job, which submits nothing of a study that was cancelled.
    Raises: HpotuneError.
    """
    prepared = _due_repeats(folder, note=note)
    if prepared is None:
        return [], ""
    config, store = prepared.study.config, prepared.store
    with exclusive_lock(folder.jobs / ".lock"):  # `cancel` comes before, or finds their jobs
        if unattended and folder.cancelled.exists():
            return [], "the study was cancelled, so its repeats were not submitted"
        done = follow_up(prepared.folder, store, config, now=datetime.now(), unattended=unattended)
    return list(done.submitted), done.warning


def _due_repeats(folder: StudyFolder, *, note: Line) -> PreparedStudy | None:
    """The study of the repeats once the search has ended; None before, and without `search.repeats`."""
    from hpotune.reporting.finalists import choose_finalists

    folder, study, store = open_study(folder.path, None, note=note)
    if not study.config.search.repeats:
        return None
    rows = store.rows()
    if not search_ended(study.config, rows, now=datetime.now()):
        return None
    return open_repeats(folder, study, rows, choose_finalists(folder, study.config, rows))
