"""Optuna studies: the imported trials are equal to Optuna's own, and what is no readable storage is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpotune.config.load import load_study
from hpotune.config.yaml_source import plain
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.exchange.imports.import_study import import_study
from hpotune.exchange.imports.optuna_storage import import_optuna
from hpotune.warm_start.past_studies import read_csv_points
from tests.fixtures.trained_study import hpotune

optuna.logging.set_verbosity(optuna.logging.WARNING)


def objective(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("opt", ["adam", "sgd", "1", "true"])
    rate = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    size = trial.suggest_int("size", 2, 10, step=2)
    trial.suggest_categorical("flag", [True, None, 1.5])
    trial.suggest_float("drop.out", 0.0, 0.5, step=0.1)
    if kind == "sgd":
        trial.suggest_float("momentum", 0.0, 0.9)
    if trial.number == 3:
        raise optuna.TrialPruned
    if trial.number == 4:
        raise ValueError("the fifth fails")
    return rate * size


def storage_url(folder: Path, kind: str) -> Any:
    if kind == "sqlite":
        return f"sqlite:///{folder / 'store.db'}"
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(str(folder / "store.journal")))


def run(folder: Path, kind: str = "sqlite", name: str = "my bowl", trials: int = 12) -> optuna.Study:
    made = optuna.create_study(
        study_name=name,
        storage=storage_url(folder, kind),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(1),
    )
    made.optimize(objective, n_trials=trials, catch=ValueError)
    return made


@pytest.mark.parametrize(("kind", "file"), [("sqlite", "store.db"), ("journal", "store.journal")])
def test_trials_are_equal(kind: str, file: str, tmp_path: Path) -> None:
    theirs = run(tmp_path, kind).trials
    before = (tmp_path / file).read_bytes()
    ours = import_optuna(str(tmp_path / file), study=None).trials
    states = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    assert [(t.number, t.state, dict(t.params), t.values) for t in ours] == [
        (
            t.number,
            states[t.state.name],
            t.params,
            tuple(t.values or ()) if t.state.name == "COMPLETE" else (),
        )
        for t in theirs
    ]
    assert (tmp_path / file).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if "lock" not in path.name) == [file]


@pytest.mark.postgres
def test_postgres_study_is_imported(postgres: str, tmp_path: Path) -> None:
    """By the verb, beside a second study of the same database; its password is in PGPASSWORD only."""
    storage = optuna.storages.RDBStorage(postgres.replace("postgresql://", "postgresql+psycopg://"))
    made = optuna.create_study(
        study_name="my bowl", storage=storage, sampler=optuna.samplers.RandomSampler(1)
    )
    made.optimize(objective, n_trials=12, catch=ValueError)
    optuna.create_study(study_name="other", storage=storage)
    out = tmp_path / "new.yaml"
    done = hpotune("import", postgres, "-o", out)
    assert (done.returncode, "choose one with --study: my bowl, other" in done.stderr) == (2, True)
    done = hpotune("import", postgres, "--study", "my bowl", "-o", out)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new_trials.csv").read_text())))
    theirs = {trial.number: trial for trial in made.trials}
    assert len(rows) == len(theirs) == 12
    for row in rows:
        trial = theirs[int(row["number"])]
        assert row["value"] == ("" if trial.state.name != "COMPLETE" else str(trial.value))
        assert row["params.lr"] == str(trial.params["lr"])
    assert [one.name for one in load_study(out).space.searched]
    assert os.environ["PGPASSWORD"] not in done.stdout + done.stderr + out.read_text()
    assert len(made.trials) == 12


def test_written_trials_are_equal(tmp_path: Path) -> None:
    theirs = {trial.number: trial for trial in run(tmp_path, trials=40).trials}
    written = import_study(str(tmp_path / "store.db"), out=tmp_path / "new.yaml")
    study = load_study(written.file)
    assert written.trials_file is not None
    points, errors = read_csv_points(written.trials_file, study)
    rows = list(csv.DictReader(io.StringIO(written.trials_file.read_text())))
    assert errors == []
    assert len(points) == len(rows) == 40
    for (_, point), row in zip(points, rows, strict=True):
        trial = theirs[int(row["number"])]
        own = {name.removeprefix("params."): value for name, value in point.items()}
        expected = {name: value for name, value in trial.params.items() if value is not None}
        assert {k: v for k, v in own.items() if v is not None} == expected
        assert all(type(own[name]) is type(value) for name, value in expected.items())
        assert ([float(row["value"])] if row["value"] else None) == (
            trial.values if trial.state.name == "COMPLETE" else None
        )
    values = [float(row["value"]) for row in rows if row["value"]]
    assert values == sorted(values, reverse=True)


def test_space_and_condition_are_taken_over(tmp_path: Path) -> None:
    run(tmp_path, trials=40)
    study = load_study(import_study(str(tmp_path / "store.db"), out=tmp_path / "new.yaml").file)
    found = {r.name: r for r in study.space.searched}
    assert found["params.lr"].log
    assert (found["params.lr"].low, found["params.lr"].high) == (1e-5, 1e-1)
    assert (found["params.size"].kind, found["params.size"].step) == ("int", 2)
    assert found["params.drop.out"].step == 0.1
    assert found["params.opt"].options == ("adam", "sgd", "1", "true")
    assert found["params.flag"].options == (True, None, 1.5)
    assert found["params.momentum"].when == {"params.opt": ("sgd",)}
    assert study.config.score.objective[0].sense == "maximize"


def test_several_studies_need_a_name(tmp_path: Path) -> None:
    run(tmp_path, name="one", trials=2)
    run(tmp_path, name="two", trials=3)
    source = str(tmp_path / "store.db")
    with pytest.raises(StudyFileError, match="holds 2 studies; choose one with --study: one, two"):
        import_optuna(source, study=None)
    with pytest.raises(StudyFileError, match="has no study 'tow'; did you mean 'two'"):
        import_optuna(source, study="tow")
    assert len(import_optuna(f"sqlite:///{source}", study="two").trials) == 3


def test_changed_ranges_become_the_widest(tmp_path: Path) -> None:
    made = optuna.create_study(study_name="s", storage=storage_url(tmp_path, "sqlite"))
    made.optimize(lambda trial: trial.suggest_float("x", 0, 1 + trial.number), n_trials=3)
    found = import_optuna(str(tmp_path / "store.db"), study=None)
    assert found.ranges["x"] == {"float": [0.0, 3.0]}
    assert found.notes == ("x: had 3 distributions, of which the widest range is written",)


def test_several_objectives_are_kept(tmp_path: Path) -> None:
    made = optuna.create_study(
        study_name="s", storage=storage_url(tmp_path, "sqlite"), directions=["minimize", "maximize"]
    )
    made.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 2.0), n_trials=3)
    written = import_study(str(tmp_path / "store.db"), out=tmp_path / "new.yaml")
    assert [o.sense for o in load_study(written.file).config.score.objective] == ["minimize", "maximize"]
    assert (tmp_path / "new_trials.csv").read_text().startswith("number,state,value_0,value_1,params.x\n")


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table a (b)")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut.db": (lambda path: path.write_bytes(b"SQLite format 3\0" + b"x" * 50), "cannot be read as SQLite|malformed"),
    "other.db": (other_database, "other.db: is a database of something else"),
    "bad.journal": (lambda path: path.write_text('{"op_code": 99, "worker_id": "a"}\n{"op_code":'), "bad|journal|copy"),
    "deep.journal": (lambda path: path.write_text('{"op_code":' + "[" * 100_000), "copy|journal|nested"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_damaged_storages_are_refused(name: str, tmp_path: Path) -> None:
    make, text = WRONG[name]
    make(tmp_path / name)
    with pytest.raises(HpotuneError, match=text):
        import_optuna(str(tmp_path / name), study=None)


def test_passwords_are_not_shown() -> None:
    with pytest.raises(StudyFileError) as error:
        import_optuna("mysql://ann:Vq3Vq3Vq3Vq3@host/db", study=None)
    assert "Vq3" not in str(error.value)
    assert json.dumps(plain("x")) == '"x"'
