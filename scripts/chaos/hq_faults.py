"""Strikes a study whose workers are tasks of HyperQueue with faults, and holds hpotune to its word: nothing is lost.

python scripts/chaos/hq_faults.py [--trials 100] [--faults 40] [--parallel 6] [--seed 0] [--minutes 15] [--json]

First the study runs undisturbed, then again while workers, tasks, trials, HyperQueue's own workers and its server are
killed; then trials, values and points are compared. A user says `hpotune resume` where nothing runs any more. The
server and its workers are real, from HyperQueue's Python package (scripts/hyperqueue/hq). Exit codes: 0 all held, 1
something did not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import trial as objective

from hpotune.errors import HpotuneError
from hpotune.records.trial import TrialRow
from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "hyperqueue" / "hq"
HQ_WORKERS = 2
LEASE_S = 10
IDLE_S = 6.0
"""A user looks again after so long, and says `resume` where no worker is active."""
STUDY = """\
name: {name}
command: "{python} -S -E {root}/scripts/chaos/trial.py"
params: {{x: {{float: [0.0, 1.0]}}, y: {{float: [0.0, 1.0]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
search: {{algorithm: sobol, seed: {seed}}}
budget: {{trials: {trials}, parallel: {parallel}, max_failed: 0}}
execution: {{place: hyperqueue, lease_s: {lease_s}}}
retry: {{killed: 50}}
resources: {{time: "30:00", signal_delay_s: 20}}
store: {store}
"""


@dataclass(kw_only=True)
class Testbed:
    """A server, its workers and a study, all processes of this one."""

    folder: Path
    parallel: int
    rng: random.Random
    server: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    resumes: int = 0

    def __post_init__(self) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "HQ_"))}
        self.env = clean | {
            "HQ_SERVER_DIR": str(self.folder / "server"),
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "HPOTUNE_POLL_S": "0",
        }

    def hq(self, *arguments: str) -> bool:
        """Whether the verb succeeds."""
        done = subprocess.run([PROGRAM, *arguments], env=self.env, capture_output=True, check=False)
        return done.returncode == 0

    def start_server(self) -> None:
        self.server = self._run("server", "start")
        until(lambda: self.hq("server", "info"), "the server answers")

    def start_workers(self) -> None:
        """As many as there should be; those that have ended are forgotten."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < HQ_WORKERS:
            self.workers.append(self._run("worker", "start", "--cpus", str(self.parallel)))

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "hq.log").open("ab") as log:
            return subprocess.Popen([PROGRAM, *arguments], env=self.env, stdout=log, stderr=log)

    def hpotune(self, verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """One verb, as a user types it."""
        command = [sys.executable, "-m", "hpotune", verb, *map(str, arguments)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def stop(self) -> None:
        """End the server and its workers."""
        for process in [*self.workers, *([self.server] if self.server else [])]:
            process.kill()
            process.wait()


def until(holds: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"after {seconds:.0f} s it is not so that {what}")
        time.sleep(0.2)


def kill(pid: int, number: int = signal.SIGKILL, *, group: bool = False) -> bool:
    """Whether there was such a process."""
    with suppress(ProcessLookupError):
        os.killpg(os.getpgid(pid), number) if group else os.kill(pid, number)
        return True
    return False


def is_worker(row: TrialRow) -> bool:
    """Whether the row's worker runs: its number may belong to another process by now."""
    with suppress(OSError):
        return row.worker is not None and b"worker" in Path(f"/proc/{row.worker.pid}/cmdline").read_bytes()
    return False


def kill_worker(testbed: Testbed, row: TrialRow) -> bool:
    """kill -9 of a worker of hpotune; the script around it stays."""
    return row.worker is not None and kill(row.worker.pid)


def kill_task(testbed: Testbed, row: TrialRow) -> bool:
    """kill -9 of a task: the worker and the script around it."""
    return row.worker is not None and kill(row.worker.pid, group=True)


def kill_trial(testbed: Testbed, row: TrialRow) -> bool:
    """kill -9 of the process that runs a trial."""
    assert row.worker is not None, "the row of a running trial"
    mine = Path(f"/proc/{row.worker.pid}/task/{row.worker.pid}/children")
    with suppress(OSError):
        children = [int(word) for word in mine.read_text().split()]
        found = [pid for pid in children if b"trial.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return bool(found) and kill(testbed.rng.choice(found))
    return False


def kill_hq_worker(testbed: Testbed, row: TrialRow) -> bool:
    """kill -9 of a worker of HyperQueue, with its node as it were; another one starts."""
    victim = testbed.rng.choice(testbed.workers)
    victim.kill()
    victim.wait()
    time.sleep(testbed.rng.uniform(0, 2))
    testbed.start_workers()
    return True


def kill_server(testbed: Testbed, row: TrialRow) -> bool:
    """kill -9 of the server, which has no journal; another one starts, with workers, and knows nothing."""
    assert testbed.server is not None, "it was started"
    testbed.server.kill()
    testbed.server.wait()
    for worker in testbed.workers:
        worker.wait(timeout=60)
    time.sleep(testbed.rng.uniform(0, 2))
    testbed.start_server()
    testbed.start_workers()
    return True


KINDS: dict[str, tuple[Callable[[Testbed, TrialRow], bool], int]] = {
    "kill_worker": (kill_worker, 12),
    "kill_task": (kill_task, 6),
    "kill_trial": (kill_trial, 10),
    "kill_hq_worker": (kill_hq_worker, 8),
    "kill_server": (kill_server, 4),
}
"""Kind -> what it does, and about how many of 40 faults are of it."""


def plan(count: int, rng: random.Random, kinds: Sequence[str]) -> list[str]:
    """So many faults in a random order, each kind about in its share and at least once."""
    every = [name for name in kinds for _ in range(KINDS[name][1])]
    found = [*kinds, *rng.choices(every, k=max(0, count - len(kinds)))][:count]
    rng.shuffle(found)
    return found


@dataclass(kw_only=True)
class Run:
    """One run, ended."""

    rows: Sequence[TrialRow]
    faults: Counter[str]
    wall_s: float
    resumes: int
    words: str = ""


def run(testbed: Testbed, name: str, options: argparse.Namespace, faults: list[str]) -> Run:
    """Submit, watch, strike; the rows at the end."""
    file = testbed.folder / f"{name}.yaml"
    file.write_text(
        STUDY.format(
            name=name, python=sys.executable, root=ROOT, seed=options.seed, trials=options.trials, lease_s=LEASE_S,
            parallel=options.parallel, store=options.store,
        )
    )  # fmt: skip
    began, testbed.resumes, struck = time.monotonic(), 0, Counter[str]()
    done = testbed.hpotune("submit", file)
    if done.returncode:
        raise RuntimeError(done.stderr)
    folder = StudyFolder(path=testbed.folder / name)
    store = TrialQueue.open(folder.provenance().store, folder.load(), read_only=True)
    step = 0.9 * options.trials / max(1, len(faults))
    looked = time.monotonic()
    words = ""
    while not words:
        rows = rows_of(store)
        finished = sum(row.state == "finished" for row in rows)
        running = [row for row in rows if row.state == "running" and is_worker(row)]
        if faults and running and finished >= sum(struck.values()) * step:
            kind = faults.pop(0)
            if KINDS[kind][0](testbed, testbed.rng.choice(running)):
                struck[kind] += 1
                say(f"{name}: {finished} finished, fault {sum(struck.values())}: {kind}")
            else:
                faults.insert(testbed.rng.randrange(len(faults) + 1), kind)
        if time.monotonic() - looked > IDLE_S:
            looked = time.monotonic()
            if look(testbed, file) and finished >= options.trials:
                break
        if time.monotonic() - began > options.minutes * 60:
            words = f"not done after {options.minutes:g} minutes"
        time.sleep(0.2)
    return Run(
        rows=rows_of(store),
        faults=struck,
        wall_s=time.monotonic() - began,
        resumes=testbed.resumes,
        words=words,
    )


def rows_of(store: TrialQueue) -> list[TrialRow]:
    try:
        return store.rows()
    except (HpotuneError, OSError):
        return []


def look(testbed: Testbed, file: Path) -> bool:
    """What a user does now and then: `status`, and `resume` where nothing runs. Whether the study is done."""
    done = testbed.hpotune("status", file, "--json")
    if done.returncode:
        say(f"hpotune status: {done.stderr.strip()}")
        return False
    status: dict[str, Any] = json.loads(done.stdout)
    active = any(job["state"] in ("PENDING", "RUNNING", "UNKNOWN") for job in status["jobs"])
    if status["state"] != "done" and not active:
        testbed.resumes += 1
        if (again := testbed.hpotune("resume", file)).returncode:
            say(f"hpotune resume: {again.stderr.strip()}")
    return bool(status["state"] == "done" and not active)


def report(calm: Run | None, storm: Run, *, trials: int, faults: int) -> dict[str, Any]:
    """Every check with what it found, and the figures."""
    finished = [row for row in storm.rows if row.state == "finished"]
    points = {row.number: dict(row.params) for row in (calm or storm).rows}
    wrong = [
        row.number
        for row in finished
        if row.values != (objective.value({key[-1]: float(str(value)) for key, value in row.params.items()}),)
        or dict(row.params) != points.get(row.number)
    ]
    numbers = sorted(row.number for row in storm.rows)
    attempts = Counter(
        a.cause or a.outcome for row in storm.rows for a in row.attempts if a.outcome != "finished"
    )
    checks = {
        "the study ended": (not storm.words, storm.words),
        f"{faults} faults struck": (storm.faults.total() == faults, str(storm.faults.total())),
        f"exactly {trials} trials finished": (len(finished) == trials, str(len(finished))),
        "every point and value is the undisturbed one": (not wrong, str(wrong or len(finished))),
        "no number stands twice, is missing or too many": (
            numbers == list(range(trials)),
            str(numbers[trials:]),
        ),
    }
    return {
        "ok": all(ok for ok, _ in checks.values()),
        "checks": {name: {"ok": ok, "found": found} for name, (ok, found) in checks.items()},
        "faults": dict(storm.faults),
        "lost_attempts": dict(attempts),
        "wall_s": {"calm": round(calm.wall_s, 1) if calm else None, "struck": round(storm.wall_s, 1)},
        "resumes": storm.resumes,
    }


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Runs calm and storm, prints the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--parallel", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=15, help="after so many a run is given up")
    parser.add_argument("--store", choices=["sqlite", "journal"], default="sqlite")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds of faults")
    parser.add_argument(
        "--calm", action=argparse.BooleanOptionalAction, default=True, help="run undisturbed first"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="hpotune-hq-chaos-", ignore_cleanup_errors=True) as scratch:
        testbed = Testbed(folder=Path(scratch), parallel=options.parallel, rng=rng)
        try:
            testbed.start_server()
            testbed.start_workers()
            calm = run(testbed, "calm", options, []) if options.calm else None
            storm = run(testbed, "storm", options, plan(options.faults, rng, options.only.split(",")))
        finally:
            testbed.stop()
    result = report(calm, storm, trials=options.trials, faults=options.faults)
    lines = [
        f"{'ok    ' if c['ok'] else 'FAILED'} {name}: {c['found']}" for name, c in result["checks"].items()
    ]
    lines += [f"{name}: {result[name]}" for name in ("faults", "lost_attempts", "wall_s", "resumes")]
    print(json.dumps(result, indent=1) if options.json else "\n".join(lines))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
