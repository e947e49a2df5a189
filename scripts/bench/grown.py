"""Studies of many finished trials, written straight into a storage: through Optuna that takes minutes.

One as workers of hpotune leave it, one as a user of plain Optuna does; the same space, the same number of trials.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages._rdb.models import TrialModel, TrialParamModel, TrialUserAttributeModel, TrialValueModel
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

sys.path.append(str(Path(__file__).resolve().parents[2]))

from status import FIRST_START, SPACE, TEXTS, Memory, attributes, point

from tests.fixtures.postgres import Postgres

Attributes = Callable[[int, random.Random], dict[str, Any]]
FINITE = TrialValueModel.TrialValueType.FINITE


def ours(number: int, rng: random.Random) -> dict[str, Any]:
    """What a worker of hpotune tells of a trial."""
    return attributes(number, "finished", rng)


def plain(number: int, rng: random.Random) -> dict[str, Any]:
    """What a user of Optuna may note of a trial."""
    return {"loss": rng.random(), "seconds": 600 * rng.random(), "host": f"n{number % 50:03d}"}


def grow(url: str, storage: BaseStorage, name: str, trials: int, attrs: Attributes) -> None:
    """A study of so many finished trials in an empty storage."""
    if url.startswith("journal"):
        _grow_journal(Path(url.removeprefix("journal:///")), name, trials, attrs)
    else:
        _grow_tables(storage, name, trials, attrs)


def _grow_tables(storage: BaseStorage, name: str, trials: int, attrs: Attributes) -> None:
    rng = random.Random(0)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")._study_id
    tables: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (TrialModel, TrialValueModel, TrialParamModel, TrialUserAttributeModel)
    }
    for number in range(trials):
        id_ = number + 1
        at = datetime.fromtimestamp(FIRST_START + 40 * number, tz=timezone.utc).replace(tzinfo=None)
        row = {"trial_id": id_, "number": number, "study_id": study, "state": TrialState.COMPLETE}
        tables[TrialModel].append(row | {"_datetime_start_utc": at, "_datetime_complete_utc": at})
        value = {"trial_id": id_, "objective": 0, "value": rng.random(), "value_type": FINITE}
        tables[TrialValueModel].append(value)
        tables[TrialParamModel] += [
            {"trial_id": id_, "param_name": key, "param_value": inner, "distribution_json": TEXTS[key]}
            for key, inner in point(rng).items()
        ]
        tables[TrialUserAttributeModel] += [
            {"trial_id": id_, "key": key, "value_json": json.dumps(value)}
            for key, value in attrs(number, rng).items()
        ]
    with Session(storage._backend.engine) as session:  # type: ignore[attr-defined]
        for table, rows in tables.items():
            session.execute(insert(table), rows)
        if storage._backend.engine.name == "postgresql":  # type: ignore[attr-defined]
            session.execute(text(f"SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), {trials})"))
            session.execute(text("ANALYZE"))  # as the server itself does a minute after so many rows
        session.commit()


def _grow_journal(file: Path, name: str, trials: int, attrs: Attributes) -> None:
    rng, memory = random.Random(0), Memory()
    storage = JournalStorage(memory)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")._study_id
    waiting = create_trial(state=TrialState.WAITING)
    for number in range(trials):
        trial = storage.create_new_trial(study, template_trial=waiting)
        storage.set_trial_state_values(trial, TrialState.RUNNING)
        for key, inner in point(rng).items():
            storage.set_trial_param(trial, key, inner, SPACE[key])
        for key, value in attrs(number, rng).items():
            storage.set_trial_user_attr(trial, key, value)
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [rng.random()])
    lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in memory.logs]
    file.write_text("".join(lines), encoding="utf-8")


def plain_storage(url: str) -> BaseStorage | str:
    """What a user of plain Optuna opens: its own defaults."""
    if url.startswith("journal"):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal:///")))
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


@contextmanager
def servers() -> Iterator[Callable[[], Postgres]]:
    """Makes PostgreSQL servers of Debian's package, with 100 connections as it comes, that end with the block."""
    made: list[Postgres] = []

    def make() -> Postgres:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise SystemExit("PostgreSQL is not installed here: apt-get install postgresql")
        made.append(Postgres.make(found[-1].parent))
        server = made[-1]
        options = f"-p {server.port} -k {server.folder} -c listen_addresses=127.0.0.1 -c max_connections=100"
        log = f"{server.folder}/log"
        server._as_owner("pg_ctl", "-D", f"{server.folder}/data", "-l", log, "-o", options, "-w", "start")
        os.environ["PGPASSWORD"] = server.password
        return server

    try:
        yield make
    finally:
        for server in made:
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)
