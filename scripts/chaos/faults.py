"""The faults: what strikes, whom, in which order, and what the store should say of its victims afterwards.

A schedule is drawn from a seed; which of the trials that run then is struck depends on the moment too.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import site_faults as site
from fault import Fault, Kind, causes, command_line, pick, safe_parent, trial_processes
from testbed import Testbed

from hpotune.records.trial import TrialRow

DOWN_S = 120
"""How long a lost node stays away at most: Slurm sees it after SlurmdTimeout (30 s) and some more."""


def kill_worker(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """kill -9 of a worker that has a trial in hand."""
    row = pick(fault, rng, running)
    if row and row.worker and b"worker" in command_line(row.worker.pid):
        os.kill(row.worker.pid, signal.SIGKILL)
    else:
        fault.struck = False


def kill_rank(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """kill -9 of one rank of a trial."""
    kill_of_trial(fault, rng, running, ranks=True)


def kill_trial(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """kill -9 of the process that started the ranks."""
    kill_of_trial(fault, rng, running, ranks=False)


def kill_of_trial(fault: Fault, rng: random.Random, running: Sequence[TrialRow], *, ranks: bool) -> None:
    """Kills one process of a trial: a rank, or their parent."""
    row = pick(fault, rng, running)
    ours = trial_processes(row) if row else []
    chosen = [pid for pid in ours if (safe_parent(pid) in ours) == ranks]
    if chosen:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(chosen), signal.SIGKILL)
            return
    fault.struck = False


def scancel(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """scancel of an element that has a trial in hand."""
    if row := pick(fault, rng, running):
        assert row.worker is not None, "picked for it"
        testbed.slurm("scancel", row.worker.job)


def preempt(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """A job of the urgent partition that needs one GPU more than its node has free."""
    nodes = [row.worker.host for row in running if row.worker]
    if not nodes:
        fault.struck = False
        return
    fault.node = rng.choice(nodes)
    held = testbed.slurm("squeue", "-h", "-r", "-t", "R", "-p", "a100", "-w", fault.node, "-o", "%b").count(
        "gpu"
    )
    gpus = min(4, 5 - held)
    more = ["--wrap", "sleep 4", "-J", "urgent", "-o", "/dev/null", "--mem", "1G", "-c", "1", "-t", "2"]
    testbed.slurm("sbatch", "-p", "urgent", "-w", fault.node, f"--gres=gpu:a100:{gpus}", *more)
    fault.note, fault.node = f"{gpus} GPUs of {fault.node}", None  # whom it takes them from is Slurm's choice


def timeout(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """An element whose time is cut to one minute; Slurm looks at limits every 30 s."""
    if row := pick(fault, rng, running):
        assert row.worker is not None, "picked for it"
        testbed.slurm("scontrol", "update", f"JobId={row.worker.job}", "TimeLimit=1")


def slurmd(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """kill -9 of a node's slurmd, back after some seconds; jobs there go on."""
    fault.node = rng.choice(["n1", "n2", "n3", "n4"])
    testbed.restart(f"slurmd {fault.node}", number=signal.SIGKILL, away_s=rng.uniform(1, 5))


def node_death(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """A node's power goes, and comes back once Slurm has seen it."""
    if row := pick(fault, rng, running):
        assert row.worker is not None, "picked for it"
        fault.trial, fault.job, fault.node = None, None, row.worker.host
        with testbed.lock(f"slurmd {fault.node}"):
            testbed.kill_node(fault.node)
            until = time.monotonic() + DOWN_S
            while time.monotonic() < until and "down" not in testbed.slurm(
                "sinfo", "-h", "-n", fault.node, "-o", "%T"
            ):
                time.sleep(2)
            testbed.start(f"slurmd {fault.node}")


def slurmctld(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """The controller is ended or killed, and started again."""
    testbed.restart(
        "slurmctld", number=rng.choice([signal.SIGTERM, signal.SIGKILL]), away_s=rng.uniform(1, 5)
    )


def slurmdbd(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """Accounting is ended or killed, and started again."""
    testbed.restart("slurmdbd", number=rng.choice([signal.SIGTERM, signal.SIGKILL]), away_s=rng.uniform(1, 8))


def postgres(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """The store's server loses every connection, and is back after some seconds."""
    with testbed.lock("postgres"):
        testbed.postgres.stop()
        time.sleep(rng.uniform(0.5, 4))
        testbed.postgres.start()


def disk_full(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """The disk on which the study lies is full for some seconds."""
    testbed.fill_disk(rng.uniform(2, 4))


def bad_node(testbed: Testbed, fault: Fault, rng: random.Random, running: Sequence[TrialRow]) -> None:
    """A node that fails every trial with an ECC error for a while."""
    nodes = {row.worker.host for row in running if row.worker}
    fault.node = "n3" if "n3" in nodes else next(iter(sorted(nodes)), None)
    fault.struck = fault.node is not None
    if fault.node:
        with testbed.lock("bad node"):
            testbed.bad_node.write_text(fault.node)
            time.sleep(15)
            testbed.bad_node.unlink()


# The order is that in which a short schedule takes one of each. A cancelled, preempted or timed-out worker that is
# asked in time puts its trial back itself; a limit that is cut while it runs looks to it as a preemption does.
# Orders to end the jobs of a lost node reach it when it is back, and may end the next life of a requeued job.
KINDS: dict[str, Kind] = {
    "kill_worker": Kind(share=8, causes=causes("killed"), strike=kill_worker, slow_s=60),
    "kill_rank": Kind(share=9, causes=causes("killed"), strike=kill_rank),
    "postgres": Kind(share=5, causes=causes("store"), strike=postgres, slow_s=60),
    "disk_full": Kind(share=3, causes=causes("store"), strike=disk_full),
    "two_submits": Kind(share=2, causes=causes(), strike=site.two_submits),
    "garbage": Kind(share=3, causes=causes(), strike=site.garbage),
    "planted": Kind(share=2, causes=causes(), strike=site.planted),
    "scancel": Kind(share=6, causes=causes("paused", "killed"), strike=scancel, slow_s=60),
    "preempt": Kind(share=5, causes=causes("paused", "preempted"), strike=preempt, slow_s=60),
    "bad_node": Kind(share=1, causes=causes("node"), strike=bad_node),
    "slurmctld": Kind(share=3, causes=causes(), strike=slurmctld),
    "full_limit": Kind(share=2, causes=causes(), strike=site.full_limit),
    "stopped": Kind(share=3, causes=causes("killed"), strike=site.stopped, slow_s=60),
    "raised": Kind(share=2, causes=causes(), strike=site.raised),
    "cancelled": Kind(share=2, causes=causes("paused", "killed"), strike=site.cancelled, slow_s=60),
    "node_death": Kind(share=1, causes=causes("node", "killed", "preempted"), strike=node_death, slow_s=90),
    "kill_trial": Kind(share=6, causes=causes("killed"), strike=kill_trial),
    "timeout": Kind(share=3, causes=causes("paused", "timeout", "preempted"), strike=timeout, slow_s=150),
    "slurmd": Kind(share=2, causes=causes(), strike=slurmd),
    "slurmdbd": Kind(share=2, causes=causes(), strike=slurmdbd),
}


def schedule(count: int, rng: random.Random, *, without: Sequence[str] = ()) -> list[str]:
    """Kinds in the order in which they strike: every kind by its share, as far as `count` reaches."""
    kinds = {name: kind for name, kind in KINDS.items() if name not in without}
    drawn = list(kinds)[:count]
    whole = sum(kind.share for kind in kinds.values())
    for name, kind in kinds.items():
        drawn += [name] * (round(kind.share / whole * count) - 1)
    by_share = sorted(kinds, key=lambda name: -kinds[name].share)
    drawn += [by_share[index % len(kinds)] for index in range(count - len(drawn))]
    drawn = drawn[:count]
    rng.shuffle(drawn)
    return drawn


@dataclass(kw_only=True)
class Ledger:
    """Every fault that struck, in the order in which they began."""

    faults: list[Fault] = field(default_factory=list)

    def strike(self, testbed: Testbed, name: str, rng: random.Random, running: Sequence[TrialRow]) -> Fault:
        """Lets one strike; returns when all it does is over."""
        fault = Fault(kind=name, at=time.time())
        self.faults.append(fault)
        try:
            KINDS[name].strike(testbed, fault, rng, running)
        finally:
            fault.until = time.time()
        return fault
