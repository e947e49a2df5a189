"""This machine as the place: `parallel` worker processes, watched until the last has ended."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from hpotune.errors import HpotuneError, StoreError
from hpotune.store import Store, results_in
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import LOCAL, Failure, Worker

POLL_S = 0.5
PATIENCE_S = 60
"""How long workers may take to checkpoint after Ctrl-C before they are killed."""


def run_workers(folder: StudyFolder, store: Store, *, count: int, show: Callable[[], None]) -> bool:
    """Runs `count` workers to their end; False when the user stopped them.

    A worker that dies costs its trial, and another takes its place. `show` is called about twice a second.

    Raises: HpotuneError when the last of them died before it took a trial.
    """
    sweep = partial(store.sweep, dead_here(platform.node()), left=results_in(folder))
    sweep()
    workers = [_start(folder, index) for index in range(count)]
    lost: set[int] = set()
    asked = False
    try:
        while any(worker.poll() is None for worker in workers):
            asked = _watch(workers, show) or asked
            for worker in [w for w in workers if w.poll() and w.pid not in lost and not asked]:
                lost.add(worker.pid)
                with suppress(StoreError):  # the store is away for now; the sweep at the end comes again
                    if sweep():
                        workers[workers.index(worker)] = _start(folder, workers.index(worker))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    sweep()
    show()
    if not asked and all(worker.returncode for worker in workers):
        raise HpotuneError(_last_words(folder))
    return not asked


def _last_words(folder: StudyFolder) -> str:
    log = folder.jobs / "local" / "worker-0.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    return f"every worker died; the first: {said}; see {log}, then run again to go on"


def _watch(workers: list[subprocess.Popen[bytes]], show: Callable[[], None]) -> bool:
    """Waits one turn; on Ctrl-C asks the workers to end and waits for them."""
    try:
        with suppress(StoreError):  # workers wait for a store that is away; the display does without
            show()
        time.sleep(POLL_S)
    except KeyboardInterrupt:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        until = time.monotonic() + PATIENCE_S
        while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
            time.sleep(POLL_S)
        return True
    return False


def _start(folder: StudyFolder, index: int) -> subprocess.Popen[bytes]:
    place = folder.jobs / "local"
    place.mkdir(parents=True, exist_ok=True)
    with (place / f"worker-{index}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hpotune", "worker", str(folder.path)],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, env=_clean(),
        )  # fmt: skip


def _clean() -> dict[str, str]:
    """The environment without Slurm's: `run` inside an allocation is still this machine, its workers are local."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}


def dead_here(host: str) -> Callable[[Worker], Failure | None]:
    """Tells the death of local workers of this host; says nothing of others."""

    def dead(worker: Worker) -> Failure | None:
        if worker.job != LOCAL or worker.host != host or _alive(worker.pid):
            return None
        return Failure(cause="killed", message=f"its worker (process {worker.pid} on {host}) died")

    return dead


def _alive(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"hpotune" in command  # a number may have been given to another process since
