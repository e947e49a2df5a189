#!/usr/bin/env python3
"""What a trial costs in the store while thousands of trials rest between two rungs (asha, SQLite).

python scripts/bench/resting.py [--resting 500 5000] [--runs 12]

Prints CPU milliseconds, median: rows, claim of a promoted trial, record of its rung.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from optuna.distributions import FloatDistribution, distribution_to_json

from hpotune.config.load import Study, load_study
from hpotune.records.trial import TrialResult, Worker
from hpotune.storage import Claim, TrialQueue

FILE = """name: rest
python: own.py:f
params: {{x: {{float: [-3.0, 3.0]}}, y: {{float: [0.0, 1.0]}}}}
score: {{objective: {{metric: acc, direction: maximize}}}}
budget: {{trials: {trials}, parallel: 16}}
search: {{algorithm: asha}}
"""
SPACE = {"params.x": FloatDistribution(-3.0, 3.0), "params.y": FloatDistribution(0.0, 1.0)}
ME = Worker(job="1_1", host="h", pid=1)


def make(base: Path, resting: int) -> tuple[str, Study]:
    """A store whose trials have all reached their first rung and wait, the best first."""
    (base / "own.py").write_text("def f(**point):\n    return {'acc': 0.5}\n")
    (base / "study.yaml").write_text(FILE.format(trials=resting + 2000))
    study, url = load_study(base / "study.yaml"), f"sqlite:///{base / 'store'}"
    TrialQueue.create(url, study, folder=str(base))
    rng, worker = random.Random(0), {"job": "1_1", "host": "h", "pid": 1, "task": ""}
    ended = {
        "worker": worker, "start": 1.0, "end": 2.0, "outcome": "rung", "cause": None, "message": "", "gpus": 0,
        "swept": False, "checkpoint": None, "rung": 0,
    }  # fmt: skip
    with closing(sqlite3.connect(base / "store")) as database, database:
        database.execute("DELETE FROM trial_user_attributes")
        database.execute("DELETE FROM trials")
        for number in range(resting):
            score = {
                "rung": 0,
                "budget": 1 / 9,
                "values": [-number / resting],
                "stderrs": [],
                "breaks": False,
            }
            attrs = {"kind": "trial", "rung": 0, "rungs": [score], "worker": None, "attempts": [ended]}
            row = (number + 1, number, "WAITING", "2026-11-01 00:00:00.000001")
            database.execute(
                "INSERT INTO trials (trial_id, number, study_id, state, datetime_start) VALUES (?, ?, 1, ?, ?)",
                row,
            )
            database.executemany(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                [(number + 1, key, json.dumps(value)) for key, value in attrs.items()],
            )
            database.executemany(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
                [
                    (number + 1, name, rng.uniform(d.low, d.high), distribution_to_json(d))
                    for name, d in SPACE.items()
                ],
            )
    return url, study


def stage_s(queue: TrialQueue) -> float:
    """CPU seconds of one stage of a trial in the store."""
    started = time.process_time()
    queue.rows()
    claim = queue.claim(ME)
    assert isinstance(claim, Claim)
    number, rung = claim.row.number, claim.row.rung
    result = TrialResult(number=number, state="finished", values=[random.random() - 2], rung=rung)
    assert queue.record_rung(claim.trial_id, result, owner=ME)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resting", type=int, nargs="*", default=[500, 5000])
    parser.add_argument("--runs", type=int, default=12)
    args = parser.parse_args()
    for resting in args.resting:
        with tempfile.TemporaryDirectory(prefix="hpotune-bench-") as scratch:
            url, study = make(Path(scratch), resting)
            queue = TrialQueue.open(url, study, patient=True)
            took = [stage_s(queue) for _ in range(3 + args.runs)][3:]
            print(f"{resting} resting: {1000 * statistics.median(took):.1f} ms of CPU a stage", flush=True)


if __name__ == "__main__":
    main()
