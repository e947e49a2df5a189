"""Which workers are dead, by every test there is: the process on this machine, the job on the cluster."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from hpotune.launch.queue import dead_jobs, rows_or_unknown
from hpotune.plan.next import JobRow
from hpotune.store import Store, dead_here, results_in
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import Failure, Worker


def dead_anywhere(jobs: Sequence[JobRow]) -> Callable[[Worker], Failure | None]:
    """Tells the death of this machine's workers and of those whose job has ended."""
    here, there = dead_here(platform.node()), dead_jobs(jobs)
    return lambda worker: here(worker) or there(worker)


def lost(store: Store, jobs: Sequence[JobRow]) -> list[int]:
    """Numbers of running trials whose worker is dead and that nobody has told so yet."""
    dead = dead_anywhere(jobs)
    running = [row for row in store.rows() if row.state == "running"]
    return [row.number for row in running if row.worker and dead(row.worker)]


def sweep(folder: StudyFolder, store: Store) -> list[int]:
    """Settles the trials of dead workers as far as can be known now; returns their numbers."""
    jobs, _ = rows_or_unknown(folder, store.rows())
    return store.sweep(dead_anywhere(jobs), left=results_in(folder))
