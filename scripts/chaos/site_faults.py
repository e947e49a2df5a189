"""Faults that a site and its users make: limits, cancelled elements, two submits at once, garbage, a planted file.

A fault raises Harm where hpotune does what it must not: a traceback, a file of another user changed. The run ends then.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fault import Fault, pick, trial_processes
from testbed import LEASE_S, Testbed

from hpotune.records.trial import TrialRow

STRANGER = 65534
"""The user `nobody`."""
CLEAN = (0, 2, 3, 4)
"""Exit codes of a verb that was refused in one line, or did what it should."""


class Harm(AssertionError):
    """hpotune did what it must not."""


def two_submits(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """Two `hpotune submit` of the running study at once."""
    command = testbed.command("submit", testbed.study)
    both = [
        subprocess.Popen(
            command,
            env=testbed.env,
            cwd=testbed.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in both:
        _, said = process.communicate(timeout=300)
        check_clean(process.returncode, said)


def full_limit(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """As many jobs are queued as the site allows, for some seconds."""
    with testbed.lock("limit"):
        queued = len(testbed.slurm("squeue", "-h", "-r", "-u", "root", "-o", "%i").split())
        fault.note = f"MaxSubmitJobs={queued}"
        try:
            testbed.slurm("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={queued}")
            time.sleep(rng.uniform(5, 10))
        finally:
            testbed.slurm("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")


def cancelled(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """scancel of one element of a job of the study, which may wait, or run a trial or none."""
    lines = testbed.slurm("squeue", "-h", "-r", "-p", "a100", "-t", "PD,R", "-o", "%i %t").splitlines()
    elements = [line.split() for line in lines if "_" in line]
    waiting = [job for job, state in elements if state == "PD"]
    chosen = waiting or [job for job, _ in elements]
    fault.struck = bool(chosen)
    if chosen:
        fault.job = rng.choice(chosen)
        fault.note = "waiting" if waiting else "running"
        testbed.slurm("scancel", fault.job)


def stopped(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """SIGSTOP of a worker, at times with the processes of its trial, until its lease has passed."""
    row = pick(fault, rng, running)
    if row is None or row.worker is None:
        return
    pids = [row.worker.pid, *(trial_processes(row) if rng.random() < 0.5 else [])]
    fault.note = f"{len(pids)} processes"
    try:
        signal_all(pids, signal.SIGSTOP)
        time.sleep(LEASE_S + rng.uniform(2, 6))
    finally:
        signal_all(pids, signal.SIGCONT)


def raised(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """An element whose time limit is cut, and raised before Slurm looks at it."""
    if row := pick(fault, rng, running):
        assert row.worker is not None, "picked for it"
        fault.trial, fault.node = None, None
        for limit in ("2", "15"):
            testbed.slurm("scontrol", "update", f"JobId={row.worker.job}", f"TimeLimit={limit}")
            time.sleep(1)


def garbage(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """squeue, sacct, scontrol and sinfo print arbitrary bytes, or a site's banner before what they say."""
    with testbed.lock("garbage"):
        fault.note = rng.choice(["bytes", "banner"])
        try:
            testbed.garbage.write_text(fault.note)
            until = time.monotonic() + rng.uniform(6, 10)
            while time.monotonic() < until:
                done = testbed.hpotune("status", testbed.study)
                check_clean(done.returncode, done.stderr)
        finally:
            testbed.garbage.unlink()


def planted(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """Another user's file, folder or link lies in the study's folder for some seconds."""
    with testbed.lock("planted"):
        name, plant = rng.choice(PLANTS)
        fault.note = name
        precious = testbed.folder / "precious"
        precious.write_text("mine")
        path = testbed.study.parent / testbed.study.stem / name
        aside = path.with_name(f"{path.name}.aside")
        if path.exists():
            path.rename(aside)
        try:
            plant(path, precious)
            os.lchown(path, STRANGER, STRANGER)
            for verb in ("submit", "status"):
                done = testbed.hpotune(verb, testbed.study)
                check_clean(done.returncode, done.stderr)
            if precious.read_text() != "mine":
                raise Harm(f"{precious} was changed through {path}")
        finally:
            take_away(path)
            if aside.exists():
                aside.rename(path)


def record_of_job(path: Path, precious: Path) -> None:
    """The record of a job that nobody has submitted."""
    path.mkdir()
    (path / "job.json").write_text('{"kind": "worker"')


def trial(path: Path, precious: Path) -> None:
    """A trial's folder with a result."""
    path.mkdir()
    (path / "result.json").write_text('{"number": 9999, "state": "finished", "values": [-1.0]}')


def plain(path: Path, precious: Path) -> None:
    """A plain file where hpotune has a lock."""
    path.write_text("0")


def link(path: Path, precious: Path) -> None:
    """A link to a file of the study's owner."""
    path.symlink_to(precious)


PLANTS: list[tuple[str, Callable[[Path, Path], None]]] = [
    ("jobs/99999999", record_of_job),
    ("trials/9999", trial),
    ("jobs/.lock", link),
    (".hpotune-lock", link),
    ("jobs/.queue.lock", plain),
]
"""Where something is planted, and what."""


def take_away(path: Path) -> None:
    """Remove what was planted."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            for inner in path.iterdir():
                inner.unlink()
            path.rmdir()
        else:
            path.unlink()


def signal_all(pids: Sequence[int], number: int) -> None:
    """Send a signal to those that are left."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def check_clean(code: int, said: str) -> None:
    """Raises Harm where a verb ended with a traceback, or called itself a bug."""
    if code not in CLEAN or "Traceback" in said or "bug of hpotune" in said:
        raise Harm(f"exit code {code}: {said.strip()[-500:]}")
