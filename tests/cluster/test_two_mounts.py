"""One study on several nodes, each with its own network mount of the folder, its own clock, and processes of its own.

HPOTUNE_MOUNTS=4:120:60:20 pytest tests/cluster/test_two_mounts.py: four nodes, 120 trials, a mount that stalls for
60 s or more, 20 rounds of preparation; CI has 2:32:0:2.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.network_mounts import Node, child, missing, nodes

pytestmark = pytest.mark.mounts
NODES, TRIALS, STALL_S, ROUNDS = map(int, os.environ.get("HPOTUNE_MOUNTS", "2:32:0:2").split(":"))
PATIENCE_S = 300
OBJECTIVE = """\
import os, time


def bowl(x):
    with open({log!r}, "a") as log:
        log.write(f"start {{x!r}} {{os.uname().nodename}}\\n")
    time.sleep(0.8)
    with open({log!r}, "a") as log:
        log.write(f"end {{x!r}} {{os.uname().nodename}}\\n")
    return {{"value": (x - 1) ** 2}}
"""
STUDY = {
    "name": "bowl",
    "python": "own.py:bowl",
    "params": {"x": {"float": [-3.0, 3.0]}},
    "score": {"objective": {"metric": "value", "direction": "minimize"}},
    "search": {"algorithm": "sobol"},
    "budget": {"trials": TRIALS, "parallel": 4},
    "execution": {"mode": "batch", "lease_s": 10},  # in rounds the workers themselves see who is stale
}
PREPARE = """
import sys, time
from pathlib import Path
from hpotune.launch.prepare import prepare
home, gate = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while not gate.exists():
    time.sleep(0.001)
ready = prepare(home / "study.yaml", chosen=None, data_root=None)
print(len(ready.store.rows()), ready.store_url.partition(":")[0], flush=True)
"""


@pytest.fixture(autouse=True)
def _needs_mounts() -> None:
    if why := missing():
        pytest.skip(why)


def study(served: Path, log: Path, **sections: object) -> None:
    """The study file and its function, in a folder that all nodes see."""
    served.mkdir(exist_ok=True)
    (served / "own.py").write_text(OBJECTIVE.format(log=str(log)))
    (served / "study.yaml").write_text(yaml.safe_dump({**STUDY, **sections}))


def start_worker(node: Node, number: int, gate: Path) -> subprocess.Popen[str]:
    """A worker that begins when the gate is there."""
    begin = f"while [ ! -e {gate} ]; do sleep 0.01; done; exec {sys.executable} -m hpotune worker study.yaml"
    return node.start("sh", "-c", f"cd {node.folder}; {begin}", log=gate.parent / f"{node.name}-{number}.log")


def wait_for(log: Path, seen: Callable[[list[list[str]]], object]) -> None:
    """Return once it is seen in the log of evaluations: lines of start or end, point, node."""
    deadline = time.monotonic() + PATIENCE_S
    while not seen(lines(log)):
        assert time.monotonic() < deadline, f"{lines(log)} after {PATIENCE_S} s"
        time.sleep(0.02)


def lines(log: Path) -> list[list[str]]:
    """The log of evaluations."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def ended(count: int) -> Callable[[list[list[str]]], bool]:
    """Whether so many evaluations have ended."""
    return lambda found: sum(line[0] == "end" for line in found) >= count


def running(found: list[list[str]], node: str) -> list[str]:
    """Points that are evaluated on a node."""
    over = [point for what, point, where in found if what == "end" and where == node]
    return [point for what, point, where in found if what == "start" and where == node and point not in over]


def stall(node: Node, log: Path) -> None:
    """Stall a node's mount while it evaluates a point, until another node evaluates it too; STALL_S at least."""
    stalled = False
    while not stalled:  # the evaluation may end before the mount stalls
        wait_for(log, lambda found: running(found, node.name))
        with node.stalled():
            stalled = _is_taken_over(node, log)


def _is_taken_over(node: Node, log: Path) -> bool:
    """Wait until another node evaluates what this one does, STALL_S at least; false where it does nothing."""
    began, points = time.monotonic(), running(lines(log), node.name)
    if points:
        wait_for(log, lambda found: any(line[1] in points and line[2] != node.name for line in found))
        time.sleep(max(0.0, began + STALL_S - time.monotonic()))
    return bool(points)


def test_workers_on_their_own_mounts(tmp_path: Path) -> None:
    log, gate = tmp_path / "evaluations", tmp_path / "gate"
    with nodes(tmp_path, NODES, clocks=("+60s",)) as cluster:
        study(tmp_path / "served", log)
        first = {node.name: [start_worker(node, k, gate) for k in range(4 // NODES or 1)] for node in cluster}
        gate.touch()
        wait_for(log, ended(4))
        for node in cluster:
            os.kill(child(first[node.name][0].pid), signal.SIGKILL)
            start_worker(node, 9, gate)  # as Slurm does with a job that failed
        wait_for(log, ended(6))  # in the last round nobody would wait for the stalled node
        stall(cluster[-1], log)
        workers = [process for node in cluster for process in node.processes]
        codes = Counter(process.wait(timeout=PATIENCE_S) for process in workers)
        logs = "\n".join(f"== {file}\n{file.read_text()}" for file in tmp_path.glob("mount*-*.log"))
    assert codes == {0: len(workers) - NODES, -signal.SIGKILL: NODES}, logs
    folder = StudyFolder(path=tmp_path / "served" / "bowl")
    assert folder.provenance().store.startswith("journal:")
    url = f"journal:///{folder.path}/store.journal"
    rows = TrialQueue.open(url, folder.load(), read_only=True).rows()
    assert [(row.number, row.state) for row in rows] == [(number, "finished") for number in range(TRIALS)], (
        logs
    )
    assert all(row.values == ((row.params["params.x"] - 1) ** 2,) for row in rows)
    attempts = [attempt for row in rows for attempt in row.attempts]
    lost = [attempt for attempt in attempts if attempt.outcome != "finished"]
    assert len(attempts) - len(lost) == TRIALS
    # nobody but the killed workers and those behind the stalled mount lost a trial
    assert {attempt.cause for attempt in lost} == {"killed"}, lost
    silent = [attempt for attempt in lost if "sent no heartbeat for 10 s" in (attempt.message or "")]
    assert cluster[-1].name in {attempt.worker.host for attempt in silent}, (lost, logs)
    assert len(lost) <= NODES + 4 // NODES + 1, (lost, logs)
    started = Counter(line.split()[1] for line in log.read_text().splitlines() if line.startswith("start"))
    assert len(started) == TRIALS
    assert sum(started.values()) <= TRIALS + len(lost), (started, lost, logs)


def test_nodes_prepare_one_study(tmp_path: Path) -> None:
    with nodes(tmp_path, max(NODES, 3)) as cluster:
        for number in range(ROUNDS):
            home, gate = tmp_path / "served" / str(number), tmp_path / f"gate{number}"
            study(home, tmp_path / "none", store="journal")
            words = (sys.executable, "-c", PREPARE, cluster[0].folder / str(number), gate)
            started = [
                subprocess.Popen(
                    node.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
                for node in cluster
            ]
            assert [process.stdout and process.stdout.readline() for process in started] == ["ready\n"] * len(
                cluster
            )
            gate.touch()
            answers = [process.communicate(timeout=PATIENCE_S) for process in started]
            assert [out for out, _ in answers] == [f"{min(TRIALS, 64)} journal\n"] * len(cluster), answers
            made = {
                ".hpotune-lock",
                "code",
                "provenance.json",
                "resolved.yaml",
                "store.journal",
                "study.yaml",
            }
            assert {path.name for path in (home / "bowl").iterdir()} == made
