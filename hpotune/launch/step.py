"""One step of a study on Slurm: tell dead trials, submit what is missing, leave a step behind.

Running it twice changes nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hpotune.errors import ClusterError
from hpotune.launch.lock import alone
from hpotune.launch.queue import dead_jobs, job_rows, recorded_jobs
from hpotune.launch.slurm import submit
from hpotune.plan.next import JobRow, JobSpec, next_jobs
from hpotune.store import Store, results_in
from hpotune.study.config import StudyConfig
from hpotune.study.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one step did."""

    submitted: tuple[str, ...] = ()
    """Job ids."""
    swept: tuple[int, ...] = ()
    """Trials told dead."""


def step(
    folder: StudyFolder, store: Store, config: StudyConfig, *, now: datetime, alone_at_work: bool = False
) -> Step:
    """Does what is due and returns it. `alone_at_work`: no user looks on (the follow-up job).

    Raises: ClusterError when Slurm does not answer or refuses a job, and in a follow-up job when the jobs before took
    no trial at all: the next ones would do no better, and so on for ever.
    """
    with alone(folder.jobs / ".lock"):  # so that two steps at once do not both submit
        rows = job_rows(folder, store.rows())
        swept = store.sweep(dead_jobs(rows), left=results_in(folder))
        store.fill()
        due = next_jobs(config, store.rows(), rows, now=now)
        if due and alone_at_work:
            _refuse_to_repeat(folder)
        ids = [submit(folder, config, spec) for spec in due]
        if ids and config.resources.follow_up:
            ids.append(submit(folder, config, _follow_up(ids, rows)))
    return Step(submitted=tuple(ids), swept=tuple(swept))


def _refuse_to_repeat(folder: StudyFolder) -> None:
    last = next((job["id"] for job in reversed(recorded_jobs(folder)) if job["kind"] == "worker"), None)
    if last is not None and not folder.took_trial(last).exists():
        raise ClusterError(
            f"job {last} ended without taking a trial, so no further one was submitted; see its log in "
            f"{folder.jobs / last}, mend the cause, then `hpotune submit {folder.path}`"
        )


def first_jobs(config: StudyConfig, *, now: datetime) -> list[JobSpec]:
    """What a study without trials or jobs would submit."""
    return next_jobs(config, [], [], now=now)


def _follow_up(ids: Sequence[str], rows: Sequence[JobRow]) -> JobSpec:
    """The step that starts when these jobs and those that still live have ended."""
    others = {row.id.split("_")[0] for row in rows if row.live and row.kind == "worker"}
    return JobSpec(kind="step", count=1, throttle=1, after=tuple(sorted({*ids, *others}, key=int)))
