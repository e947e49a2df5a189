"""Runs a study on this machine: `budget.parallel` worker processes, watched until the last has ended."""

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

from hpotune.checks.gpus import gpu_groups, visible_gpus
from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError, StoreError, StudyFileError
from hpotune.launch.stale_workers import requeue_lost_trials
from hpotune.records.jobs import JobRow
from hpotune.records.thread_choice import ThreadChoice, read_choice
from hpotune.records.trial import ENDS_WITH_STDIN, LOCAL, TrialRow
from hpotune.schedule.next_jobs import next_jobs
from hpotune.schedule.rounds import width
from hpotune.schedule.stopping_criterion import failed_too_often, stop_reason
from hpotune.storage import TrialQueue
from hpotune.workspace.atomic_files import open_append
from hpotune.workspace.code_snapshot import CodeSnapshot, find_snapshot
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import try_exclusive_lock
from hpotune.workspace.snapshot_users import using_snapshot
from hpotune.workspace.trust import SHARED

SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()
"""So that a worker imports nothing from the folder in which `hpotune run` was called."""
POLL_S = 0.5
PATIENCE_S = 60
"""Seconds for workers to checkpoint after Ctrl-C before they are killed; a second Ctrl-C kills them at once."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_local(config: StudyConfig) -> None:
    """Check that this machine can run the study.

    Raises: StudyFileError where it asks for more nodes or GPUs than there are.
    """
    nodes = config.resources.nodes
    if nodes > 1:
        raise StudyFileError(f"resources.nodes: {nodes} needs Slurm: `hpotune submit`; or write nodes: 1")
    gpu_groups(visible_gpus(os.environ), each=config.resources.gpus_per_node)


def run_study(
    folder: StudyFolder, store: TrialQueue, config: StudyConfig, *, show: Callable[[], None]
) -> bool:
    """Run the study with as many workers as its budget and the GPUs allow; False when the user stopped it.

    Raises: HpotuneError as `run_workers`, and while another `hpotune run` of this study is running.
    """
    gpus = gpu_groups(visible_gpus(os.environ), each=config.resources.gpus_per_node)
    choice = _thread_choice(folder, config)
    most = width(config) if choice is None else choice.trials
    count = min(width(config), config.budget.trials, len(gpus) or width(config), most)
    with try_exclusive_lock(folder.jobs / ".run.lock", what="`hpotune run` of this study"):
        return run_workers(folder, store, count=count, show=show, gpus=gpus)


def run_workers(
    folder: StudyFolder, store: TrialQueue, *, count: int, show: Callable[[], None], gpus: Sequence[str] = ()
) -> bool:
    """Run workers, at most `count` at a time, until none is due any more; False when the user stopped them.

    schedule.next_jobs decides what is due, as on a cluster: a worker that is killed costs its trial an attempt and is
    replaced. `show` is called about twice a second. `gpus`: CUDA_VISIBLE_DEVICES of each worker; empty: unchanged.

    Raises: HpotuneError when `count` workers in a row end without taking a trial.
    """
    code = find_snapshot(folder)  # one for all of them, whatever is submitted meanwhile
    with using_snapshot(folder, code.hash if code else None, job=LOCAL):
        return _run_workers(folder, store, code, count=count, show=show, gpus=gpus)


def _run_workers(
    folder: StudyFolder,
    store: TrialQueue,
    code: CodeSnapshot | None,
    *,
    count: int,
    show: Callable[[], None],
    gpus: Sequence[str],
) -> bool:
    folder.cancelled.unlink(missing_ok=True)
    pool = _WorkerPool(
        folder=folder,
        study=folder.load(),
        store=store,
        slots=[None] * count,
        gpus=gpus,
        code=code.hash if code else None,
    )
    requeue_lost_trials(folder, store)
    with _stop_signals() as received:
        try:
            _watch(pool, received, show=show)
            if received:
                _request_stop(pool.running, received)
        finally:
            for worker in pool.running:
                worker.kill()
                worker.wait()
            requeue_lost_trials(folder, store)
    show()
    if received or folder.cancelled.exists():
        return False
    if pool.without_trial >= count and next_jobs(store.config, store.rows(), [], now=datetime.now()):
        raise HpotuneError(_first_error(folder))
    return True


@dataclass(kw_only=True)
class _WorkerPool:
    """The workers of this machine, each in a slot."""

    folder: StudyFolder
    study: Study
    store: TrialQueue
    slots: list[subprocess.Popen[bytes] | None]
    gpus: Sequence[str]
    code: str | None
    """The snapshot of the study's code that they run."""
    without_trial: int = 0
    """Workers in a row that ended without having taken a trial."""

    @property
    def running(self) -> list[subprocess.Popen[bytes]]:
        """The workers that have not been collected yet."""
        return [worker for worker in self.slots if worker is not None]

    def collect_ended(self) -> bool:
        """Free the slots of ended workers; whether there was one."""
        ended = {index for index, worker in enumerate(self.slots) if worker and worker.poll() is not None}
        if not ended:
            return False
        requeue_lost_trials(self.folder, self.store)
        hosts = [(a.worker.job, a.worker.pid) for row in self.store.rows() for a in row.attempts]
        for index in ended:
            worker = self.slots[index]
            assert worker is not None, "its process has just been polled"
            self.without_trial = 0 if (LOCAL, worker.pid) in hosts else self.without_trial + 1
            self.slots[index] = None
        return True

    def start_due(self) -> None:
        """Start the workers that are due, while there are free slots."""
        if self.without_trial >= len(self.slots) or self.folder.cancelled.exists():
            return
        config = self.store.config = self.folder.current_config(self.study)
        jobs = [JobRow(id=f"{LOCAL}:{worker.pid}", state="RUNNING") for worker in self.running]
        for spec in next_jobs(config, self.store.rows(), jobs, now=datetime.now()):
            free = [index for index, worker in enumerate(self.slots) if worker is None]
            for index in free[: min(spec.throttle, spec.count)]:
                self.slots[index] = _start_worker(
                    self.folder,
                    index,
                    trials=spec.trials,
                    gpus=self.gpus,
                    code=self.code,
                    shared=config.shared_with is not None,
                )


def shortfall(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> str:
    """Why fewer trials than the budget are done after every worker has ended; empty if nothing is wrong."""
    budget = config.budget
    done = sum(row.decided or row.state == "running" for row in rows)  # other workers may run some elsewhere
    if done >= budget.trials:
        return ""
    if why := failed_too_often(budget, rows):
        last = max((row for row in rows if row.failure), key=lambda row: row.end or 0.0).failure
        return f"{why.text}; the last failure: {last.message if last else 'unknown'}"
    if stop_reason(config, rows, now=now):
        return ""
    return (
        f"{done} of {budget.trials} trials are done and every worker has ended; see jobs/local in the study's "
        "folder, then run again to continue"
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """The stop signals that have been received; they do not interrupt what runs."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # Python handles signals in the main thread only
        return
    handled = [
        number for number in _STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN
    ]  # nohup ignores them on purpose
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in handled}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_error(folder: StudyFolder) -> str:
    log = folder.jobs / "local" / "worker-0.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    message = lines[-1].removeprefix("error: ") if lines else "its log is empty"
    return (
        f"every worker ended without claiming a trial; the first error: {message}; see {log}, fix the cause, then "
        "run again"
    )


def _watch(pool: _WorkerPool, received: Sequence[int], *, show: Callable[[], None]) -> None:
    """Start due workers until none is due and all have ended, or a stop signal has been received."""
    due = True
    while not received and (due or pool.running):
        try:
            if due:
                pool.start_due()
            show()
            due = False
        except StoreError:  # workers wait for a store that is unreachable, and so does this
            if not pool.running:
                raise
        time.sleep(POLL_S if pool.running else 0)
        with suppress(StoreError):
            due = pool.collect_ended() or due


def _request_stop(workers: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> None:
    """Ask the workers to checkpoint and release their trials; returns after PATIENCE_S or a second Ctrl-C."""
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    until = time.monotonic() + PATIENCE_S
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        if received.count(signal.SIGINT) > 1:
            return
        time.sleep(POLL_S)


def _start_worker(
    folder: StudyFolder,
    index: int,
    *,
    trials: int | None,
    gpus: Sequence[str],
    code: str | None,
    shared: bool,
) -> subprocess.Popen[bytes]:
    limit = ["--trials", str(trials)] if trials is not None else []
    limit += ["--code", code] if code is not None else []
    env = _environment_without_slurm() | ({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {})
    env |= {SHARED: "group"} if shared else {}
    config = folder.load().config
    if (choice := _thread_choice(folder, config)) is not None:
        env["OMP_NUM_THREADS"] = str(choice.threads)
    python, packages = sys.executable, config.env
    if packages.packages_to_install and packages.venv is not None:  # the environment of `hpotune env create`
        python = f"{packages.venv}/bin/python"
        env |= {"VIRTUAL_ENV": packages.venv, "PATH": f"{packages.venv}/bin:{env.get('PATH', '')}"}
    env[ENDS_WITH_STDIN] = "1"  # the pipe is closed when this process ends, even by kill -9
    with open_append(folder.jobs / LOCAL / f"worker-{index}.log") as log:
        return subprocess.Popen(
            [python, *SAFE_PATH, "-m", "hpotune", "worker", str(folder.path), *limit],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.PIPE, start_new_session=True, env=env,
        )  # fmt: skip


def _thread_choice(folder: StudyFolder, config: StudyConfig) -> ThreadChoice | None:
    """What `resources.threads: auto` stands for here; None without it, and where the environment says it."""
    if config.resources.threads != "auto" or "OMP_NUM_THREADS" in os.environ:
        return None
    return read_choice(folder.path)


def _environment_without_slurm() -> dict[str, str]:
    """The environment without Slurm's variables: the workers of `run` are local even inside an allocation."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SLURMD_"))}
