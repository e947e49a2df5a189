"""Many workers racing for one budget: forked from one process that has imported everything, each with its own store.

For tests and for scripts/bench/store.py. The workers of a round start together; at the end the storage is checked.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.load import Study
from hpotune.records.trial import Failure, TrialResult, TrialRow, Worker
from hpotune.storage import TrialOutput, TrialQueue


@dataclass(frozen=True, kw_only=True)
class Fates:
    """Shares of the trials that do not finish, and of the racers that are killed from outside."""

    failed: float = 0.0
    paused: float = 0.0
    killed: float = 0.0
    """Racers struck by kill -9 somewhere in the first KILL_S seconds: while they take, draw, tell or hold a lock."""
    kill_s: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Race:
    """What came of it."""

    recorded: Sequence[int]
    """Numbers of the trials that racers finished, as they say."""
    rows: Sequence[TrialRow]
    seconds: float
    killed: int
    broken: int
    """Racers that ended by an error."""

    def faults(self, trials: int) -> list[str]:
        """What is wrong in the storage; a killed worker may have recorded a trial without reporting it."""
        states = Counter(row.state for row in self.rows)
        finished = [row for row in self.rows if row.state == "finished"]
        numbers = [row.number for row in finished]
        points = {json.dumps(dict(row.params)) for row in finished}
        twice = [number for number, times in Counter(self.recorded).items() if times > 1]
        found = {
            f"{states['finished']} finished of {trials}": states["finished"] != trials,
            f"left over: {dict(states)}": bool(set(states) - {"finished", "failed"}),
            f"recorded twice: {twice}": bool(twice),
            "recorded and not finished": not set(self.recorded) <= set(numbers),
            f"{len(numbers) - len(self.recorded)} finished by nobody": len(numbers) - len(self.recorded)
            > self.killed,
            "a number twice": len({row.number for row in self.rows}) != len(self.rows),
            "a point twice": len(points) != len(finished),
            f"{self.broken} racers ended by an error": bool(self.broken),
        }
        return [fault for fault, is_so in found.items() if is_so]


def race(
    url: str, study: Study, folder: Path, *, racers: int, fates: Fates | None = None, rounds: int = 30
) -> Race:
    """Rounds of workers until the budget is spent; the parent requeues the trials of killed workers."""
    fates = fates or Fates()
    folder.mkdir(parents=True, exist_ok=True)
    start, killed, broken = time.monotonic(), 0, 0
    for round_ in range(rounds):
        ended = _round(url, study, folder / f"recorded-{round_}", racers=racers, fates=fates, seed=round_)
        killed += sum(status == signal.SIGKILL for status in ended)
        broken += sum(status not in (0, signal.SIGKILL) for status in ended)
        store = TrialQueue.open(url, study, patient=True)
        store.requeue_stale(_stale_failure, read_output=_nothing, unowned_s=1e-6)
        if broken or sum(row.state == "finished" for row in store.rows()) >= study.config.budget.trials:
            break
    recorded = [
        int(line) for path in sorted(folder.glob("recorded-*")) for line in path.read_text().splitlines()
    ]
    return Race(
        recorded=recorded,
        rows=TrialQueue.open(url, study).rows(),
        seconds=time.monotonic() - start,
        killed=killed,
        broken=broken,
    )


def _round(url: str, study: Study, recorded: Path, *, racers: int, fates: Fates, seed: int) -> list[int]:
    """The wait statuses of racers that went off together; no store is open here when they fork."""
    recorded.touch()
    ready, go = os.pipe()
    living = set()
    for index in range(racers):
        pid = os.fork()
        if pid == 0:
            os.close(go)
            _child(url, study, recorded, ready, fates=fates, seed=seed * 1000 + index)
        living.add(pid)
    os.close(ready)
    os.close(go)  # they wait for this
    return _watched(url, study, living, fates=fates, rng=random.Random(seed))


def _child(url: str, study: Study, recorded: Path, ready: int, *, fates: Fates, seed: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.read(ready, 1)
        run(url, study, recorded, fates=fates, rng=random.Random(seed))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _watched(url: str, study: Study, living: set[int], *, fates: Fates, rng: random.Random) -> list[int]:
    doomed = rng.sample(sorted(living), round(fates.killed * len(living)))
    strikes = sorted((time.monotonic() + rng.uniform(0.05, fates.kill_s), pid) for pid in doomed)
    ended: list[int] = []
    store = TrialQueue.open(url, study, patient=True) if doomed else None
    while living:
        time.sleep(0.02)
        while strikes and strikes[0][0] < time.monotonic():
            victim = strikes.pop(0)[1]
            if victim in living:
                os.kill(victim, signal.SIGKILL)
        for pid in list(living):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                living.discard(pid)
                ended.append(status)
        if store is not None and rng.random() < 0.2:
            store.requeue_stale(_stale_failure, read_output=_nothing)
    return ended


def run(url: str, study: Study, recorded: Path, *, fates: Fates, rng: random.Random) -> None:
    """One racer: takes trials until none is left for it."""
    store = TrialQueue.open(url, study, patient=True)
    me = Worker(job="local", host="here", pid=os.getpid())
    while claim := store.claim(me):
        number, fate = claim.row.number, rng.random()
        if fate < fates.failed:
            store.record_failure(claim.trial_id, Failure(cause="user", message="as planned"), owner=me)
        elif fate < fates.failed + fates.paused:
            store.pause(claim.trial_id, owner=me)
        elif store.complete(
            claim.trial_id, TrialResult(number=number, state="finished", values=[rng.random()])
        ):
            with recorded.open("a") as out:
                out.write(f"{number}\n")


def _stale_failure(row: TrialRow) -> Failure | None:
    if row.worker is None or Path(f"/proc/{row.worker.pid}").exists():
        return None
    return Failure(cause="preempted", message="it was killed")


def _nothing(_: int) -> TrialOutput:
    return TrialOutput()
