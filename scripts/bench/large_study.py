#!/usr/bin/env python3
"""A study of many short trials on a real Slurm to its end, many array elements at once; then the verbs that show it.

eval "$(scripts/slurm-cluster start)"
python scripts/bench/large_study.py [--trials 1000] [--elements 64] [--store sqlite|journal|URL] [--seconds 2]

Prints how long it took, what is in the store (exactly the budget, no number and no point twice, nothing left running),
and the seconds of each verb as a process of its own. Ends with exit code 1 where the study is not exact.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder

ROOT = Path(__file__).resolve().parents[2]
VERBS = (("status",), ("trials",), ("best",), ("plan",), ("plan", "--gantt", "gantt.svg"))
"""What shows a study: the verb, then its options after the folder."""
FUNCTION = """import time

def f(learning_rate, dropout, r, optimizer):
    time.sleep({seconds})
    return {{"acc": 1 - dropout - abs(r - 64) / 1000 - learning_rate}}
"""
FILE = """name: large
python: own.py:f
params:
  learning_rate: {{float: [1.0e-6, 1.0e-2], log: true}}
  dropout: {{float: [0.0, 0.5]}}
  r: {{int: [2, 256], log: true}}
  optimizer: {{choice: [adamw, sgd, lion]}}
score: {{objective: {{metric: acc, direction: maximize}}}}
budget: {{trials: {trials}, parallel: {elements}}}
search: {{algorithm: random}}
resources: {{cpus: 1, mem: 500M, time: "1:00:00", signal_delay_s: 20}}
store: {store}
"""


def hpotune(*arguments: str, cwd: Path = ROOT, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One process of the command line."""
    command = [sys.executable, "-m", "hpotune", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=env, check=check, text=True, capture_output=True)


def waited(folder: StudyFolder, url: str, *, trials: int, within_min: float) -> float:
    """Seconds until all trials have finished; prints a line every half a minute."""
    started, study = time.monotonic(), folder.load()
    while time.monotonic() - started < 60 * within_min:
        states = Counter(row.state for row in rows_of(url, study))
        print(
            f"{time.monotonic() - started:5.0f} s  {dict(states)}  load {os.getloadavg()[0]:.1f}", flush=True
        )
        if states["finished"] >= trials:
            return time.monotonic() - started
        time.sleep(30)
    raise SystemExit(
        f"not finished within {within_min} min: {hpotune('status', str(folder.path), check=False).stdout}"
    )


def faults(folder: StudyFolder, url: str, *, trials: int) -> list[str]:
    """What is wrong in the store."""
    rows = rows_of(url, folder.load())
    finished = [row for row in rows if row.state == "finished"]
    attempts = Counter(len(row.attempts) for row in rows)
    found = {
        f"{len(finished)} finished of {trials}": len(finished) != trials,
        f"left: {Counter(row.state for row in rows)}": len(finished) != len(rows),
        "a number twice": len({row.number for row in rows}) != len(rows),
        "a point twice": len({json.dumps(dict(row.params)) for row in finished}) != len(finished),
        f"attempts at a trial: {dict(attempts)}": set(attempts) != {1},
    }
    return [text for text, is_so in found.items() if is_so]


def verbs(folder: StudyFolder, *, runs: int = 3) -> None:
    """Prints the median seconds of each verb."""
    for verb, *options in VERBS:
        took = []
        for _ in range(runs):
            started, before = time.perf_counter(), os.times()
            done = hpotune(verb, str(folder.path), *options, cwd=folder.path.parent, check=False)
            after = os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            took.append((time.perf_counter() - started, cpu))
        wall, cpu = (statistics.median(column) for column in zip(*took, strict=True))
        print(
            f"{' '.join([verb, *options]):<14} {wall:6.2f} s, {cpu:5.2f} s of CPU, exit {done.returncode}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--elements", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a trial")
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--within", type=float, default=30, help="minutes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpotune-bench-") as scratch:
        base = Path(scratch)
        (base / "own.py").write_text(FUNCTION.format(seconds=args.seconds))
        file = base / "study.yaml"
        file.write_text(FILE.format(trials=args.trials, elements=args.elements, store=args.store))
        started = time.monotonic()
        print(hpotune("submit", str(file)).stdout, flush=True)
        print(f"submit: {time.monotonic() - started:.1f} s")
        folder = StudyFolder(path=base / "large")
        url = folder.provenance().store
        seconds = waited(folder, url, trials=args.trials, within_min=args.within)
        found = faults(folder, url, trials=args.trials)
        workers = {row.worker.job for row in rows_of(url, folder.load()) if row.worker}
        shortest = args.trials * args.seconds / args.elements
        print(
            f"{args.trials} trials of {args.seconds} s, {args.elements} elements at once, {len(workers)} had trials: "
            f"{seconds:.0f} s ({shortest:.0f} s of trials each); {'; '.join(found) or 'exact'}"
        )
        verbs(folder)
        return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
