"""This machine as the place: `parallel` worker processes, watched until the last has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from hpotune.checks.gpus import deal, visible_gpus
from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError, StoreError, StudyFileError
from hpotune.launch.stale_workers import requeue_lost_trials as sweep_study
from hpotune.records.jobs import JobRow
from hpotune.records.trial import LOCAL, TrialRow
from hpotune.schedule.next_jobs import next_jobs
from hpotune.schedule.rounds import width
from hpotune.schedule.stopping_criterion import failed_too_often, stop_reason
from hpotune.storage import Store
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import try_exclusive_lock

POLL_S = 0.5
PATIENCE_S = 60
"""How long workers may take to checkpoint after Ctrl-C before they are killed; a second Ctrl-C ends it."""
_ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_local(config: StudyConfig) -> None:
    """Finds that this machine can be the study's place.

    Raises: StudyFileError for more nodes or GPUs than there are.
    """
    nodes = config.resources.nodes
    if nodes > 1:
        raise StudyFileError(f"resources.nodes: {nodes} needs Slurm: `hpotune submit`; or write nodes: 1")
    deal(visible_gpus(os.environ), each=config.resources.gpus_per_node)


def run_study(folder: StudyFolder, store: Store, config: StudyConfig, *, show: Callable[[], None]) -> bool:
    """Runs the study with as many workers as it wants and the GPUs carry; False when the user stopped it.

    Raises: HpotuneError as `run_workers`, and while another `hpotune run` of this study is at work.
    """
    gpus = deal(visible_gpus(os.environ), each=config.resources.gpus_per_node)
    count = min(width(config), config.budget.trials, len(gpus) or width(config))
    with try_exclusive_lock(folder.jobs / ".run.lock", what="`hpotune run` of this study"):
        return run_workers(folder, store, count=count, show=show, gpus=gpus)


def run_workers(
    folder: StudyFolder, store: Store, *, count: int, show: Callable[[], None], gpus: Sequence[str] = ()
) -> bool:
    """Runs workers, at most `count` at a time, until none is due any more; False when the user stopped them.

    What is due says the planner, as on a cluster: a worker that dies costs its trial's attempt, and another takes its
    place. `show` is called about twice a second. `gpus`: CUDA_VISIBLE_DEVICES of each worker; empty: as it is here.

    Raises: HpotuneError when workers end without taking a trial, as often as there are places for them.
    """
    code = find_snapshot(folder)  # one for all of them, whatever is submitted meanwhile
    folder.cancelled.unlink(missing_ok=True)
    pool = _WorkerPool(
        folder=folder,
        study=folder.load(),
        store=store,
        slots=[None] * count,
        gpus=gpus,
        code=code.hash if code else None,
    )
    sweep_study(folder, store)
    with _stop_signals() as asked:
        try:
            _watch(pool, asked, show=show)
            if asked:
                _request_stop(pool.running, asked)
        finally:
            for worker in pool.running:
                worker.kill()
                worker.wait()
            sweep_study(folder, store)
    show()
    if asked or folder.cancelled.exists():
        return False
    if pool.without_trial >= count and next_jobs(store.config, store.rows(), [], now=datetime.now()):
        raise HpotuneError(_first_error(folder))
    return True


@dataclass(kw_only=True)
class _WorkerPool:
    """The workers of this machine, each in its place."""

    folder: StudyFolder
    study: Study
    store: Store
    slots: list[subprocess.Popen[bytes] | None]
    gpus: Sequence[str]
    code: str | None
    """The snapshot of the study's code that they run."""
    without_trial: int = 0
    """Workers in a row that ended without having taken a trial."""

    @property
    def running(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not been seen to end."""
        return [worker for worker in self.slots if worker is not None]

    def collect_ended(self) -> bool:
        """Clears the places of those that have ended; whether there was one."""
        ended = {index for index, worker in enumerate(self.slots) if worker and worker.poll() is not None}
        if not ended:
            return False
        sweep_study(self.folder, self.store)
        hosts = [(a.worker.job, a.worker.pid) for row in self.store.rows() for a in row.attempts]
        for index in ended:
            worker = self.slots[index]
            assert worker is not None, "found in its place just now"
            self.without_trial = 0 if (LOCAL, worker.pid) in hosts else self.without_trial + 1
            self.slots[index] = None
        return True

    def fill(self) -> None:
        """Starts the workers that are due, where there is a place."""
        if self.without_trial >= len(self.slots) or self.folder.cancelled.exists():
            return
        config = self.store.config = self.folder.current_config(self.study)
        jobs = [JobRow(id=f"{LOCAL}:{worker.pid}", state="RUNNING") for worker in self.running]
        for spec in next_jobs(config, self.store.rows(), jobs, now=datetime.now()):
            free = [index for index, worker in enumerate(self.slots) if worker is None]
            for index in free[: min(spec.throttle, spec.count)]:
                self.slots[index] = _start_worker(
                    self.folder, index, trials=spec.trials, gpus=self.gpus, code=self.code
                )


def shortfall(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> str:
    """Why fewer trials than the budget are done now that every worker has ended; empty where it is as it should be."""
    budget = config.budget
    done = sum(row.decided or row.state == "running" for row in rows)  # others may run some, elsewhere
    if done >= budget.trials:
        return ""
    if why := failed_too_often(budget, rows):
        last = max((row for row in rows if row.failure), key=lambda row: row.end or 0.0).failure
        return f"{why.text}; the last: {last.message if last else 'unknown'}"
    if stop_reason(config, rows, now=now):
        return ""
    return (
        f"{done} of {budget.trials} trials are done and every worker has ended; see jobs/local in the study's "
        "folder, then run again to go on"
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Signals that asked to stop, as they come in; none of them interrupts what is being done."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # Python hears signals only there
        return
    heard = [number for number in _ASKS if signal.getsignal(number) != signal.SIG_IGN]  # nohup means it
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in heard}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_error(folder: StudyFolder) -> str:
    log = folder.jobs / "local" / "worker-0.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    return f"every worker died; the first: {said}; see {log}, then run again to go on"


def _watch(pool: _WorkerPool, asked: Sequence[int], *, show: Callable[[], None]) -> None:
    """Until no worker is due and all have ended, or a signal asks to stop."""
    due = True
    while not asked and (due or pool.running):
        try:
            if due:
                pool.fill()
            show()
            due = False
        except StoreError:  # workers wait for a store that is away, and so does this
            if not pool.running:
                raise
        time.sleep(POLL_S if pool.running else 0)
        with suppress(StoreError):
            due = pool.collect_ended() or due


def _request_stop(workers: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> None:
    """Lets the workers put their trials back in line, for as long as the user is patient."""
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    until = time.monotonic() + PATIENCE_S
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        if asked.count(signal.SIGINT) > 1:
            return
        time.sleep(POLL_S)


def _start_worker(
    folder: StudyFolder, index: int, *, trials: int | None, gpus: Sequence[str], code: str | None
) -> subprocess.Popen[bytes]:
    place = folder.jobs / "local"
    place.mkdir(parents=True, exist_ok=True)
    limit = ["--trials", str(trials)] if trials is not None else []
    limit += ["--code", code] if code is not None else []
    env = _environment_without_slurm() | ({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {})
    with (place / f"worker-{index}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hpotune", "worker", str(folder.path), *limit],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, env=env,
        )  # fmt: skip


def _environment_without_slurm() -> dict[str, str]:
    """The environment without Slurm's: `run` inside an allocation is still this machine, its workers are local."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SLURMD_"))}
