"""Studies that an earlier version made (tests/data/old_studies), put back on disk and into a store as they were."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "old_studies"
BINARY = ".db"


@dataclass(frozen=True, kw_only=True, slots=True)
class OldStudy:
    """One of them, at home in a folder of its own."""

    name: str
    home: Path
    store: str
    """As optuna takes it: a URL, or the path of a journal."""

    @property
    def file(self) -> Path:
        return self.home / "study.yaml"

    @property
    def folder(self) -> Path:
        return self.home / "descent"

    @property
    def expected(self) -> dict[str, Any]:
        """What the verbs of the version that made it said of it."""
        return json.loads(
            _shown((DATA / self.name / "expected.json").read_text(), _places(self.home, self.store))
        )

    def checkpoint(self, number: int) -> int:
        """The step at which a trial was interrupted; 0 where that was before its first."""
        file = self.folder / "trials" / str(number) / "checkpoint" / "state.json"
        return json.loads(file.read_text())["step"] if file.is_file() else 0

    def begins(self, number: int) -> list[int]:
        """The steps at which the calls of a trial began."""
        lines = (self.folder / "trials" / str(number) / "log.txt").read_text().splitlines()
        return [int(line.split()[-1]) for line in lines if line.startswith("begins at step ")]


def put_back(name: str, home: Path, *, postgres: str = "") -> OldStudy:
    """The study in `home`; of a PostgreSQL study the tables go into the empty database `postgres`."""
    places = _places(home, postgres)
    for file in sorted((DATA / name / "home").rglob("*")):
        copy = home / file.relative_to(DATA / name / "home")
        if file.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif file.suffix == BINARY:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
            _show_in_database(copy, places)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_shown(file.read_text(), places))
    if postgres:
        _load(postgres, _shown((DATA / name / "store.sql").read_text(), places))
        store = postgres.replace("postgresql://", "postgresql+psycopg://", 1)
    elif (home / "descent" / "store.journal").is_file():
        store = str(home / "descent" / "store.journal")
    else:
        store = f"sqlite:///{home / 'descent' / 'store.db'}"
    return OldStudy(name=name, home=home, store=store)


def hpotune(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One verb, by the command line."""
    command = [sys.executable, "-m", "hpotune", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env or dict(os.environ))


def told(*words: object, env: dict[str, str] | None = None) -> Any:
    """What a verb prints with --json; it must succeed."""
    done = hpotune(*words, "--json", env=env)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return json.loads(done.stdout)


def loss(scratch: Path, monkeypatch: pytest.MonkeyPatch, *, budget: float, params: dict[str, Any]) -> float:
    """What the objective comes to in one call, without any interruption."""
    scratch.mkdir(parents=True)
    monkeypatch.setenv("HPOTUNE_TRIAL_DIR", str(scratch))
    loader = importlib.util.spec_from_file_location("descent", DATA / "descent.py")
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    given = {key.removeprefix("params."): value for key, value in params.items()}
    return module.descent(budget=budget, **given)["loss"]


def _places(home: Path, store: str) -> dict[str, str]:
    return {
        "@HOME@": str(home),
        "@BIN@": str(Path(sys.executable).parent),
        "@REPO@": str(ROOT),
        "@STORE@": store,
    }


def _shown(text: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        text = text.replace(name, path)
    return text


def _show_in_database(file: Path, places: dict[str, str]) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for table in ("study_user_attributes", "trial_user_attributes", "trial_system_attributes"):
            for name, path in places.items():
                connection.execute(f"UPDATE {table} SET value_json = replace(value_json, ?, ?)", (name, path))
        connection.commit()


def _load(url: str, text: str) -> None:
    """The tables, in the schema that is first in the URL's search path."""
    with psycopg.connect(url) as connection:
        connection.execute(text.encode())
