#!/usr/bin/env python3
"""`hpotune status --json` on a study of 10,000 trials, as a process and in its parts, for each kind of store.

python scripts/bench/status.py [TRIALS] [sqlite|journal|postgres ...]   (PostgreSQL where its programs are installed)
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages._rdb.models import TrialModel, TrialParamModel, TrialUserAttributeModel, TrialValueModel
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState, create_trial
from sqlalchemy import insert
from sqlalchemy.orm import Session

from hpotune.config.load import load_study
from hpotune.records.trial import Attempt, Worker
from hpotune.storage.backends.connect import connect
from hpotune.storage.readers.trial_record import stored_attempts
from hpotune.workspace.folder import StudyFolder, make_folder

ROOT = Path(__file__).resolve().parents[2]
RUNS = 5
FUNCTION = "def f(**point):\n    return {'acc': 0.5}\n"
FILE = """name: many
python: own.py:f
params:
  learning_rate: {{float: [1.0e-6, 1.0e-2], log: true}}
  dropout: {{float: [0.0, 0.5]}}
  r: {{int: [2, 256], log: true}}
  alpha: {{int: [2, 512]}}
  optimizer: {{choice: [adamw, sgd, lion]}}
  targets: {{choice: [[q_proj, v_proj], all-linear]}}
score: {{objective: {{metric: acc, direction: maximize}}}}
budget: {{trials: {trials}, parallel: 16, max_failed: 1000, max_equal_failures: 1000}}
resources: {{gpus: 4}}
store: {url}
"""
SPACE: dict[str, BaseDistribution] = {
    "params.learning_rate": FloatDistribution(1e-6, 1e-2, log=True),
    "params.dropout": FloatDistribution(0.0, 0.5),
    "params.r": IntDistribution(2, 256, log=True),
    "params.alpha": IntDistribution(2, 512),
    "params.optimizer": CategoricalDistribution(["adamw", "sgd", "lion"]),
    "params.targets": CategoricalDistribution(['["q_proj", "v_proj"]', '"all-linear"']),
}
TEXTS = {name: distribution_to_json(distribution) for name, distribution in SPACE.items()}
STATES = {
    "finished": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "waiting": TrialState.WAITING,
}
FIRST_START = datetime(2026, 11, 1).timestamp()


class Memory(BaseJournalBackend):
    """A journal that is written to its file in one go."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


def attributes(number: int, state: str, rng: random.Random) -> dict[str, Any]:
    """What a worker would have recorded for the trial."""
    worker = Worker(
        job=f"{1000 + number // 100}_{number % 100}", host=f"n{number % 50:03d}", pid=4000 + number
    )
    start = FIRST_START + 40.0 * number
    end = start + 600 * rng.random()
    attempt = Attempt(
        worker=worker, start=start, end=end, outcome="failed" if state == "failed" else "finished",
        cause="nan" if state == "failed" else None, gpus=4,
    )  # fmt: skip
    attrs: dict[str, Any] = {"kind": "trial", "worker": asdict(worker), "beat": end}
    if state == "running":
        return attrs
    attrs["attempts"] = stored_attempts([attempt])
    metrics = {f"metric_{n}": rng.random() for n in range(10)} | {"gpu_hours": 0.2, "seconds": end - start}
    if state == "failed":
        return attrs | {
            "metrics": metrics,
            "failure": {"cause": "nan", "message": f"loss is nan at step {number}"},
        }
    return attrs | {"metrics": metrics, "stderrs": [0.01], "checks": {"moved": {"ok": True}}}


def point(rng: random.Random) -> dict[str, float]:
    """One drawn point, as Optuna stores it."""
    return {
        "params.learning_rate": 10 ** -rng.uniform(2, 6), "params.dropout": rng.uniform(0, 0.5),
        "params.r": float(rng.randint(2, 256)), "params.alpha": float(rng.randint(2, 512)),
        "params.optimizer": float(rng.randint(0, 2)), "params.targets": float(rng.randint(0, 1)),
    }  # fmt: skip


def states(trials: int, rng: random.Random) -> list[str]:
    """Nine tenths finished, some failed, at the end sixteen that run and sixteen that wait."""
    done = ["failed" if rng.random() < 0.03 else "finished" for _ in range(max(0, trials - 32))]
    return [*done, *["running"] * 16, *["waiting"] * 16]


def fill(storage: BaseStorage, trials: int) -> None:
    """Rows as workers leave them, written straight into Optuna's tables: through its storage it takes minutes."""
    rng = random.Random(0)
    study = optuna.create_study(storage=storage, study_name="many", direction="maximize")._study_id
    tables: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (TrialModel, TrialValueModel, TrialParamModel, TrialUserAttributeModel)
    }
    for number, state in enumerate(states(trials, rng)):
        began = time.time() - 60 if state == "running" else FIRST_START + 40 * number
        start = datetime.fromtimestamp(began, tz=timezone.utc).replace(tzinfo=None)
        started = {"_datetime_start_utc": start} if state != "waiting" else {}
        ended = {"_datetime_complete_utc": start} if state in ("finished", "failed") else {}
        row = {"trial_id": number + 1, "number": number, "study_id": study, "state": STATES[state]}
        tables[TrialModel].append(
            {"_datetime_start_utc": None, "_datetime_complete_utc": None} | row | started | ended
        )
        if state == "finished":
            finite = TrialValueModel.TrialValueType.FINITE
            value = {"trial_id": number + 1, "objective": 0, "value": rng.random(), "value_type": finite}
            tables[TrialValueModel].append(value)
        if state != "waiting":
            tables[TrialParamModel] += [
                {
                    "trial_id": number + 1,
                    "param_name": name,
                    "param_value": inner,
                    "distribution_json": TEXTS[name],
                }
                for name, inner in point(rng).items()
            ]
        attrs = {"kind": "trial"} if state == "waiting" else attributes(number, state, rng)
        tables[TrialUserAttributeModel] += [
            {"trial_id": number + 1, "key": key, "value_json": json.dumps(value)}
            for key, value in attrs.items()
        ]
    with Session(getattr(storage, "_backend", storage).engine) as session:  # type: ignore[attr-defined]
        for table, rows in tables.items():
            if rows:
                session.execute(insert(table), rows)
        session.commit()


def fill_journal(file: Path, trials: int) -> None:
    """The lines that workers write: a row, its take, its point, its attributes, its end."""
    rng, memory = random.Random(0), Memory()
    storage = JournalStorage(memory)
    id_ = optuna.create_study(storage=storage, study_name="many", direction="maximize")._study_id
    with file.open("w") as out:
        for number, state in enumerate(states(trials, rng)):
            row = create_trial(state=TrialState.WAITING, user_attrs={"kind": "trial"})
            trial = storage.create_new_trial(id_, template_trial=row)
            if state != "waiting":
                storage.set_trial_state_values(trial, TrialState.RUNNING)
                for name, inner in point(rng).items():
                    storage.set_trial_param(trial, name, inner, SPACE[name])
                for key, value in attributes(number, state, rng).items():
                    storage.set_trial_user_attr(trial, key, value)
            if state == "finished":
                storage.set_trial_state_values(trial, TrialState.COMPLETE, [rng.random()])
            if state == "failed":
                storage.set_trial_state_values(trial, TrialState.FAIL)
        out.writelines(json.dumps(log, separators=(",", ":")) + "\n" for log in memory.logs)


def make(base: Path, url: str, trials: int) -> StudyFolder:
    """A study's folder whose store holds so many trials."""
    home, folder = base / "home", StudyFolder(path=base / "many")
    home.mkdir(parents=True)
    (home / "own.py").write_text(FUNCTION)
    (home / "study.yaml").write_text(FILE.format(trials=trials, url=url))
    study = load_study(home / "study.yaml")
    values = {**study.source.values, "python": f"{home}/own.py:f"}
    make_folder(folder, replace(study.source, values=values), home=home, store_url=url)
    if url.startswith("journal"):
        fill_journal(Path(url.removeprefix("journal:///")), trials)
        return folder
    fill(connect(url), trials)
    return folder


def timed(call: Callable[[], object], *, runs: int = RUNS) -> float:
    """Seconds of the median run."""
    took = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def process(*arguments: str) -> float:
    """Seconds of one hpotune process; the cluster is not asked, for its commands are not found."""
    env = os.environ | {"PATH": "/nowhere"}
    return timed(
        lambda: subprocess.run(
            [sys.executable, "-m", "hpotune", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env=env,
        )
    )


def measure(kind: str, url: str, base: Path, trials: int) -> None:
    from hpotune.reporting.views.status import study_status
    from hpotune.storage import TrialQueue
    from hpotune.storage.readers.read_only import rows_of

    folder = make(base, url, trials)
    study = folder.load()
    rows = rows_of(url, study)
    assert len(rows) == trials, f"{len(rows)} rows of {trials}"
    parts = {
        "hpotune status --json": process("status", str(folder.path), "--json"),
        "hpotune --help": process("--help"),
        "read the study": timed(folder.load),
        "read the rows": timed(lambda: rows_of(url, study)),
        "read the rows through Optuna": timed(
            lambda: TrialQueue.open(url, study, read_only=True).rows(), runs=1
        ),
        "sum them up": timed(lambda: study_status(folder, study.config, rows, [], [], now=datetime.now())),
    }
    for name, seconds in parts.items():
        print(f"{kind:<9} {name:<30} {seconds * 1000:8.0f} ms")


def main(arguments: Sequence[str]) -> None:
    trials = int(arguments[0]) if arguments else 10_000
    kinds = list(arguments[1:]) or ["sqlite", "journal", "postgres"]
    print(f"{trials} trials, median of {RUNS}")
    with tempfile.TemporaryDirectory(prefix="hpotune-bench-") as scratch:
        for kind in kinds:
            base = Path(scratch, kind)
            if kind != "postgres":
                base.mkdir()
                measure(kind, f"{kind}:///{base / 'store'}", base, trials)
                continue
            found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
            if not found:
                print("postgres  is not installed here: apt-get install postgresql")
                continue
            sys.path.insert(0, str(ROOT))
            from tests.fixtures.postgres import Postgres

            server = Postgres.make(found[-1].parent)
            try:
                server.start()
                os.environ["PGPASSWORD"] = server.password
                measure(kind, server.database("bench"), base, trials)
            finally:
                server.stop()
                shutil.rmtree(server.folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
