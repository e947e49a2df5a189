"""One run of the chaos study on a test bed: submitted, watched, struck if there are faults, waited for to its end."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import faults as faults_
from fault import Fault
from testbed import LEASE_S, ROOT, Testbed, answer

from hpotune.errors import HpotuneError
from hpotune.records.trial import TrialRow
from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import read_heartbeat

POLL_S = 0.5
LOOK_S = 10.0
"""Between two looks of the user and the administrator."""
AT_ONCE = 6
"""Faults that may be at work at the same time."""
PHANTOM_S = 60.0
"""A job that signed its end so long ago and still runs, says Slurm, does not."""
SPARED_S = 12.0
"""A trial is struck by name once in so long, so that it is clear what ended it."""
SHARE = 0.9
"""The last fault strikes when this share of the trials has finished."""

COMMAND = """\
command: "{python} -S -E {root}/scripts/chaos/trial.py"
params: {{x: {{float: [0.0, 1.0]}}, y: {{float: [0.0, 1.0]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
"""
WARM = """\
model: {{path: {folder}/model, dtype: float64}}
data: {{path: {folder}/task/train.jsonl, max_length: 256, rows: 24, validation: 4}}
lora: {{r: {{choice: [2, 4, 8]}}, lora_alpha: 8, lora_dropout: 0.1, target_modules: [q_proj, v_proj]}}
train:
  learning_rate: {{float: [1.0e-3, 1.0e-2], log: true}}
  global_batch_size: 2
  max_steps: 30
  save_steps: 5
score: {{objective: {{metric: eval_loss}}}}
checks: {{baseline: false}}
keep: {{best: 0}}
"""
FILE = """\
name: {name}
{objective}search: {{algorithm: sobol, seed: {seed}}}
budget: {{trials: {trials}, parallel: {parallel}, max_failed: 20}}
execution: {{mode: async, trials_per_job: {trials_per_job}, lease_s: {lease_s}}}
resources: {{partition: a100, gpus: "a100:1", cpus: 1, mem: 2G, time: "20:00", signal_delay_s: 20}}
store: "{store}"
"""


@dataclass(frozen=True, kw_only=True)
class Account:
    """One life of a worker's job, as Slurm's accounting tells it."""

    job: str
    state: str
    node: str
    start: float
    end: float

    @property
    def gpu_s(self) -> float:
        """GPU-seconds it held: a job has one."""
        return max(0.0, self.end - self.start)

    def overlap_s(self, node: str, death: float) -> float:
        """Seconds that Slurm let it hold a GPU of a node which had died."""
        lost = self.node == node and self.start <= death <= self.end <= death + 180
        return self.end - death if lost and self.state != "COMPLETED" else 0.0


@dataclass(kw_only=True)
class Study:
    """One run of it."""

    testbed: Testbed
    file: Path
    trials: int
    minutes: float
    seed: int = 0
    plan: list[str] = field(default_factory=list)
    """Kinds of faults still to strike, next first."""
    ledger: faults_.Ledger = field(default_factory=faults_.Ledger)
    submits: int = 0
    """How often a user said `hpotune submit` again, where the study was idle."""
    resumes: int = 0
    """How often a user said `hpotune resume`, where he had cancelled the last worker."""
    repairs: list[str] = field(default_factory=list)
    words: str = ""
    _threads: list[threading.Thread] = field(default_factory=list)
    _store: TrialQueue | None = None
    _struck: int = 0
    _over: bool = False
    """Whether every trial has finished and no fault is at work."""
    _ended: bool = False
    """Whether its jobs have ended too."""

    @property
    def folder(self) -> StudyFolder:
        """Where it lies."""
        return StudyFolder(path=self.file.parent / self.file.stem)

    def run(self) -> None:
        """Returns when all is done, or when it is given up; `words` say why."""
        began, count = time.monotonic(), len(self.plan)
        self.testbed.study = self.file
        self._submit(first=True)
        threading.Thread(target=self._look_now_and_then, daemon=True).start()
        said = -1
        while not self.words and not self._ended:
            if time.monotonic() - began > self.minutes * 60:
                self.words = f"not done after {self.minutes:g} minutes"
            rows = self.rows()
            finished = sum(row.state == "finished" for row in rows)
            if finished // 10 != said:
                said = finished // 10
                say(f"{self.file.stem}: {finished} finished, {self._struck} faults")
            if finished >= self.trials:
                self.plan.clear()  # nobody is left to be struck
            self._strike(rows, finished, step=SHARE * self.trials / max(1, count))
            self._over = finished >= self.trials and not self._busy()
            time.sleep(POLL_S)
        for thread in self._threads:
            thread.join(60)

    def _look_now_and_then(self) -> None:
        while not self.words and not self._ended:
            time.sleep(2 if self._over else LOOK_S)
            over = self._over
            self._ended = self._look() and over

    def rows(self) -> list[TrialRow]:
        """Every trial; none while the store is away."""
        try:
            if self._store is None:
                ours, url = self.folder.load(), self.folder.provenance().store
                self._store = TrialQueue.open(url, ours, read_only=True)
            return self._store.rows()
        except (HpotuneError, OSError):
            return []

    def _busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _strike(self, rows: Sequence[TrialRow], finished: int, *, step: float) -> None:
        """Lets the next fault strike where its time has come; one that found nobody comes again."""
        at_work = sum(thread.is_alive() for thread in self._threads)
        if not self.plan or not rows or at_work >= AT_ONCE or finished < self._struck * step:
            return
        lately = {f.trial for f in self.ledger.faults if time.time() - f.at < SPARED_S}
        old = time.time() - 0.3
        running = [r for r in rows if r.state == "running" and r.worker and r.start and r.start < old]
        chosen = [row for row in running if row.number not in lately]
        if chosen:
            name, self._struck = self.plan.pop(0), self._struck + 1
            rng = random.Random(f"{self.seed} {len(self.ledger.faults)}")
            self._threads.append(threading.Thread(target=self._one, args=(name, rng, chosen), daemon=True))
            self._threads[-1].start()

    def _one(self, name: str, rng: random.Random, running: Sequence[TrialRow]) -> None:
        try:
            fault = self.ledger.strike(self.testbed, name, rng, running)
        except Exception as error:  # a fault that breaks the test bed breaks the run, and says so
            self.words = f"fault {name}: {type(error).__name__}: {error}"
            return
        if not fault.struck:
            self._struck -= 1
            self.plan.insert(rng.randrange(len(self.plan) + 1), name)

    def _look(self) -> bool:
        """What user and administrator do now and then; whether the study is over and all its jobs have ended."""
        self._repair()
        done = self.testbed.hpotune("status", self.file, "--json")
        status = answer(done.stdout)
        if status is None:
            say(f"hpotune status: {done.stderr.strip()}")
            return False
        live = [
            job for job in status["jobs"] if job["state"] in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED")
        ]
        if status["state"] == "idle":
            self._submit()
        elif status["state"] == "cancelled":
            self._resume()
        elif status["state"] == "stopped" and not live:
            self.words = f"the study stopped: {status['reason']}"
        return status["state"] == "done" and not live

    def _submit(self, *, first: bool = False) -> None:
        done = self.testbed.hpotune("submit", self.file, "--json")
        if not first:
            self.submits += 1
        if done.returncode:
            say(f"hpotune submit: {done.stderr.strip()}")
            if first:
                self.words = f"hpotune submit: {done.stderr.strip()}"
        elif not first:
            say(f"was idle; submitted again: {done.stdout.split()}")

    def _resume(self) -> None:
        """Continue the study after the user's own cancel took the last worker: it waits for him then."""
        self.resumes += 1
        done = self.testbed.hpotune("resume", self.file, "--json")
        say(f"was cancelled; resumed: {(done.stderr if done.returncode else done.stdout).split()}")

    def _repair(self) -> None:
        """Frees held jobs and takes nodes back into service, as an administrator would."""
        lines = self.testbed.slurm("squeue", "-h", "-r", "-t", "PD", "-o", "%i|%r").splitlines()
        for job, _, reason in (line.partition("|") for line in lines):
            if "held" in reason.lower():
                self.testbed.slurm("scontrol", "release", job)
                self.repairs.append(f"released {job} ({reason})")
        for job in self.testbed.slurm("squeue", "-h", "-r", "-t", "R", "-o", "%i").split():
            life = read_heartbeat(
                self.folder, job
            )  # a restarted controller may take an ended job for one that runs
            if life is not None and life.end is not None and time.time() - life.last_beat > PHANTOM_S:
                self.testbed.slurm("scancel", job)
                self.repairs.append(f"cancelled {job} (it had ended)")
        for line in self.testbed.slurm("sinfo", "-h", "-N", "-p", "a100", "-o", "%N|%T").splitlines():
            node, _, state = line.partition("|")
            if ("drain" in state or "down" in state) and self.testbed.daemon(f"slurmd {node}"):
                self.testbed.slurm("scontrol", "update", f"nodename={node}", "state=resume")
                self.repairs.append(f"resumed {node} ({state})")
        while self.testbed.crashes:
            heard, again = self.testbed.crashes.pop(0)
            self.repairs.append("started slurmctld, which had crashed by itself")
            self.ledger.faults.append(Fault(kind="slurmctld", at=heard, until=again, note="by itself"))

    def submitted(self) -> dict[str, float]:
        """When each job was submitted."""
        return {path.parent.name: path.stat().st_mtime for path in self.folder.jobs.glob("*/job.json")}

    def accounts(self) -> list[Account]:
        """Every life of the study's worker jobs, by Slurm's accounting once it has caught up."""
        ids = [
            path.parent.name for path in self.folder.jobs.glob("*/job.json") if '"worker"' in path.read_text()
        ]
        if not ids:
            return []
        command = [
            "sacct",
            "-D",
            "-X",
            "-n",
            "-P",
            "-j",
            ",".join(ids),
            "-o",
            "JobID,State,NodeList,Start,End",
        ]
        for _ in range(30):
            lines = [line.split("|") for line in self.testbed.slurm(*command).splitlines()]
            if lines and not any(line[1].split()[0] in ("RUNNING", "PENDING") for line in lines):
                break
            time.sleep(1)
        return [a for line in lines if (a := account(*line[:5]))]


def account(job: str, state: str, node: str, start: str, end: str) -> Account | None:
    """A line of sacct; None where it never started or has not ended."""
    with suppress(ValueError):
        times = [datetime.fromisoformat(word).timestamp() for word in (start, end)]
        return Account(job=job, state=state.split()[0], node=node, start=times[0], end=times[1])
    return None


def write_file(testbed: Testbed, name: str, *, store: str, warm: bool, **values: Any) -> Path:  # noqa: ANN401 - what FILE's holes take
    """The study file; each run has a store of its own. `warm`: its trials train a tiny model in warm processes."""
    url = testbed.postgres.database(name) if store == "postgres" else store
    if warm and not (testbed.folder / "model").exists():
        from tests.fixtures.tiny_model import tiny_model, topic_task  # imports torch

        tiny_model(testbed.folder / "model", dtype="float64", layers=2)
        topic_task(testbed.folder / "task")
    holes = {"python": sys.executable, "root": ROOT, "folder": testbed.folder}
    objective = (WARM if warm else COMMAND).format(**holes)
    file = testbed.disk / f"{name}.yaml"
    file.write_text(FILE.format(name=name, objective=objective, store=url, lease_s=LEASE_S, **values))
    return file


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
