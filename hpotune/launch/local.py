"""This machine as the place: `parallel` worker processes, watched until the last has ended."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hpotune.store import Store
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import Failure, Worker

POLL_S = 0.5
PATIENCE_S = 60
"""How long workers may take to checkpoint after Ctrl-C before they are killed."""


def run_workers(folder: StudyFolder, store: Store, *, count: int, show: Callable[[], None]) -> bool:
    """Runs `count` workers to their end; False when the user stopped them. Trials of workers that died are told failed.

    `show` is called about twice a second.
    """
    store.sweep(dead_here(platform.node()))
    workers = [_start(folder, index) for index in range(count)]
    asked = False
    try:
        while any(worker.poll() is None for worker in workers):
            asked = _watch(workers, show) or asked
    finally:
        for worker in workers:
            worker.kill()
    store.sweep(dead_here(platform.node()))
    show()
    return not asked


def _watch(workers: list[subprocess.Popen[bytes]], show: Callable[[], None]) -> bool:
    """Waits one turn; on Ctrl-C asks the workers to end and waits for them."""
    try:
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
        if worker.job != "local" or worker.host != host or _alive(worker.pid):
            return None
        return Failure(cause="killed", message=f"its worker (process {worker.pid} on {host}) died")

    return dead


def _alive(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"hpotune" in command  # a number may have been given to another process since
