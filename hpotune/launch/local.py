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
from datetime import datetime
from functools import partial

from hpotune.errors import HpotuneError, StoreError, StudyFileError
from hpotune.launch.dead import sweep as sweep_study
from hpotune.launch.gpus import deal, visible_gpus
from hpotune.launch.lock import the_only
from hpotune.plan.budget import stop_reason
from hpotune.store import Store
from hpotune.study.config import StudyConfig
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import TrialRow

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


def run_here(folder: StudyFolder, store: Store, config: StudyConfig, *, show: Callable[[], None]) -> bool:
    """Runs the study with as many workers as it wants and the GPUs carry; False when the user stopped it.

    Raises: HpotuneError as `run_workers`, and while another `hpotune run` of this study is at work.
    """
    parallel = 1 if config.execution.mode == "sequential" else config.budget.parallel
    gpus = deal(visible_gpus(os.environ), each=config.resources.gpus_per_node)
    count = min(parallel, config.budget.trials, len(gpus) or parallel)
    with the_only(folder.jobs / ".run.lock", what="`hpotune run` of this study"):
        return run_workers(folder, store, count=count, show=show, gpus=gpus)


def run_workers(
    folder: StudyFolder, store: Store, *, count: int, show: Callable[[], None], gpus: Sequence[str] = ()
) -> bool:
    """Runs `count` workers to their end; False when the user stopped them.

    A worker that dies costs its trial, and another takes its place. `show` is called about twice a second. `gpus`:
    CUDA_VISIBLE_DEVICES of each worker; empty: as it is here.

    Raises: HpotuneError when the last of them died before it took a trial.
    """
    sweep = partial(sweep_study, folder, store)
    sweep()
    start = partial(_start, folder, gpus=gpus)
    with _asked() as asked:
        workers: list[subprocess.Popen[bytes]] = []
        try:
            workers += [start(index) for index in range(count)]
            _watch(workers, asked, start=start, sweep=sweep, show=show)
            if asked:
                _ask_to_end(workers, asked)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
            sweep()
    show()
    if not asked and all(worker.returncode for worker in workers):
        raise HpotuneError(_last_words(folder))
    return not asked


def shortfall(config: StudyConfig, rows: Sequence[TrialRow], *, now: datetime) -> str:
    """Why fewer trials than the budget are done now that every worker has ended; empty where it is as it should be."""
    budget = config.budget
    failed = [row for row in rows if row.state == "failed" and row.failure]
    if len(failed) > budget.max_failed:
        why = failed[-1].failure.message if failed[-1].failure else "unknown"
        return f"{len(failed)} trials failed (budget.max_failed: {budget.max_failed}); the last: {why}"
    done = sum(row.state in ("finished", "running") for row in rows)  # others may run some, elsewhere
    if done >= budget.trials or stop_reason(budget, config.score.objective, rows, now=now):
        return ""
    return (
        f"{done} of {budget.trials} trials are done and every worker has ended; see jobs/local in the study's "
        "folder, then run again to go on"
    )


@contextmanager
def _asked() -> Iterator[list[int]]:
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


def _last_words(folder: StudyFolder) -> str:
    log = folder.jobs / "local" / "worker-0.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    return f"every worker died; the first: {said}; see {log}, then run again to go on"


def _watch(
    workers: list[subprocess.Popen[bytes]],
    asked: Sequence[int],
    *,
    start: Callable[[int], subprocess.Popen[bytes]],
    sweep: Callable[[], list[int]],
    show: Callable[[], None],
) -> None:
    """Waits until all have ended or a signal asks to stop; replaces those that die with a trial in hand."""
    lost: set[int] = set()
    while not asked and any(worker.poll() is None for worker in workers):
        with suppress(StoreError):  # workers wait for a store that is away; the display does without
            show()
        time.sleep(POLL_S)
        for index, worker in enumerate(list(workers)):
            if asked or not worker.poll() or worker.pid in lost:
                continue
            lost.add(worker.pid)
            with suppress(StoreError):  # the sweep at the end comes again
                if sweep():
                    workers[index] = start(index)


def _ask_to_end(workers: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> None:
    """Lets the workers put their trials back in line, for as long as the user is patient."""
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    until = time.monotonic() + PATIENCE_S
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        if asked.count(signal.SIGINT) > 1:
            return
        time.sleep(POLL_S)


def _start(folder: StudyFolder, index: int, *, gpus: Sequence[str]) -> subprocess.Popen[bytes]:
    place = folder.jobs / "local"
    place.mkdir(parents=True, exist_ok=True)
    env = _clean() | ({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {})
    with (place / f"worker-{index}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hpotune", "worker", str(folder.path)],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, env=env,
        )  # fmt: skip


def _clean() -> dict[str, str]:
    """The environment without Slurm's: `run` inside an allocation is still this machine, its workers are local."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SLURMD_"))}
