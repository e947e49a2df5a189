"""Reading a store without Optuna returns exactly what Optuna's own reading returns."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpotune.config.load import Study
from hpotune.errors import StoreError
from hpotune.records.trial import Failure, TrialResult
from hpotune.storage import Claim, TrialOutput, TrialQueue
from hpotune.storage.readers import read_only
from hpotune.storage.readers.read_only import rows_of
from hpotune.storage.readers.sql_tables import Unreadable
from tests.fixtures.store_workers import finish, worker

SECTIONS: dict[str, Any] = {
    "params": {
        "x": {"float": [1e-3, 3.0], "log": True},
        "n": {"int": [1, 9]},
        "kind": {"choice": ["a", "b"]},
        "flag": {"choice": [True, None, 3]},
        "list": {"choice": [["q", "v"], "all"]},
        "only": {"float": [0.0, 1.0], "when": {"params.kind": "a"}},
    },
    "budget": {"trials": 40, "max_failed": 100, "max_equal_failures": 100},
    "retry": {"node": 1},
}
DIED = Failure(cause="killed", message="its worker died")
MakeStudy = Callable[..., Study]


def played(store: TrialQueue, *, seed: int, take: int = 25) -> None:
    """A study in the middle of its life: finished, failed, paused, tried again, running, waiting trials."""
    rng = random.Random(seed)
    fates = [rng.choice(["finished", "failed", "node", "paused", "running", "swept"]) for _ in range(take)]
    for number, fate in enumerate(["finished", "failed", "running", *fates, "paused"]):
        me = worker(str(number), job=f"{number}_0")
        claim = store.claim(me)
        assert isinstance(claim, Claim)
        if fate == "finished":
            metrics = {
                "acc": rng.random(),
                "words": "ä \"quoted\" 'text' %s",
                "nothing": None,
                "deep": {"a": [1, 2.5]},
            }
            result = TrialResult(
                number=claim.row.number,
                state="finished",
                values=[rng.random()],
                stderrs=[None],
                metrics=metrics,
            )
            store.complete(claim.trial_id, result)
        elif fate in ("failed", "node"):
            cause = "node" if fate == "node" else "user"
            store.record_failure(
                claim.trial_id, Failure.model_validate({"cause": cause, "message": "bad 'luck'"}), owner=me
            )
        elif fate == "paused":
            store.pause(claim.trial_id, owner=me, checkpoint=12.5)
        elif fate == "swept":
            store.requeue_stale(
                lambda row, me=me: DIED if row.worker == me else None, read_output=lambda _: TrialOutput()
            )
        else:
            store.renew_heartbeat(claim.trial_id, owner=me)


@pytest.mark.parametrize("seed", range(3))
def test_rows_equal_those_of_the_queue(
    url: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    study = make_study(**SECTIONS)
    store = TrialQueue.create(url, study, folder="/studies/bowl")
    played(store, seed=seed)
    failed = next(row.number for row in store.rows() if row.state == "failed")
    store.retry([failed])
    expected = store.rows()
    monkeypatch.setattr(TrialQueue, "open", lambda *_, **__: pytest.fail("Optuna's way was gone"))
    assert rows_of(url, study) == expected
    assert {row.state for row in expected} == {"waiting", "running", "finished", "failed"}
    assert any(row.forgiven for row in expected)
    assert any(row.retry_of is not None for row in expected)
    assert any(row.state == "waiting" and row.attempts for row in expected)


def test_rows_have_lineages(url: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    search = {"algorithm": "pbt", "options": {"population": 2, "generations": 3}}
    study = make_study(budget={"trials": 6}, search=search)
    store = TrialQueue.create(url, study, folder="/studies/bowl")
    for _ in range(4):
        claim = store.claim(worker("0", job="0_0"))
        assert isinstance(claim, Claim)
        store.complete(claim.trial_id, TrialResult(number=claim.row.number, state="finished", values=[1.0]))
    expected = store.rows()
    monkeypatch.setattr(TrialQueue, "open", lambda *_, **__: pytest.fail("Optuna's way was gone"))
    assert rows_of(url, study) == expected
    assert [row.lineage.parent for row in expected[:4] if row.lineage] == [None, None, 0, 1]


def test_two_objectives_and_infinities_are_read(
    url: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {
        "score": {
            "objective": [{"metric": "a", "direction": "maximize"}, {"metric": "b", "direction": "minimize"}]
        },
        "name": "two",
    }
    TrialQueue.create(url, make_study(), folder="/studies/bowl")
    study = make_study(**both)
    store = TrialQueue.create(url, study, folder="/studies/two")
    claim = store.claim(worker())
    assert isinstance(claim, Claim)
    store.complete(
        claim.trial_id, TrialResult(number=0, state="finished", values=[float("-inf"), float("inf")])
    )
    expected = store.rows()
    monkeypatch.setattr(TrialQueue, "open", lambda *_, **__: pytest.fail("Optuna's way was gone"))
    assert expected[0].values == (float("-inf"), float("inf"))
    assert rows_of(url, study) == expected


def test_rows_beyond_budget_are_left_out(url: str, make_study: MakeStudy) -> None:
    TrialQueue.create(url, make_study(), folder="/studies/bowl")
    fewer = make_study(budget={"trials": 2})
    assert [row.number for row in rows_of(url, fewer)] == [0, 1]


def test_missing_storage_raises_store_error(url: str, make_study: MakeStudy) -> None:
    with pytest.raises(StoreError, match=r"store is missing; put it back|has no study 'bowl', so"):
        rows_of(url, make_study())


def test_unknown_tables_are_read_by_optuna(
    url: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    expected = TrialQueue.create(url, study, folder="/studies/bowl").rows()

    def strange(*_: object) -> None:
        raise Unreadable("a newer Optuna")

    monkeypatch.setattr(read_only, "_read", strange)
    assert rows_of(url, study) == expected


def test_incomplete_journal_line_is_ignored(tmp_path: Path, make_study: MakeStudy) -> None:
    study, file = make_study(), tmp_path / "store"
    expected = TrialQueue.create(f"journal:///{file}", study, folder="/studies/bowl").rows()
    with file.open("a") as journal:
        journal.write('{"op_code":6,"trial_id":0,"state"')
    assert rows_of(f"journal:///{file}", study) == expected


def test_operations_after_end_are_ignored(tmp_path: Path, make_study: MakeStudy) -> None:
    study, file = make_study(), tmp_path / "store"
    store = TrialQueue.create(f"journal:///{file}", study, folder="/studies/bowl")
    claim = store.claim(worker())
    assert isinstance(claim, Claim)
    store.complete(claim.trial_id, TrialResult(number=0, state="finished", values=[1.0]))
    line = f'"worker_id":"other","trial_id":{claim.trial_id}'
    with file.open("a") as journal:
        journal.write(f'{{"op_code":8,{line},"user_attr":{{"metrics":{{"a":1}}}}}}\n')
        journal.write(f'{{"op_code":6,{line},"state":4,"values":null}}\n')
        journal.write(
            f'{{"op_code":6,{line},"state":0,"values":null,"datetime_start":"2026-01-01T00:00:00+00:00"}}\n'
        )
    expected = TrialQueue.open(f"journal:///{file}", study).rows()
    assert expected[0].state == "finished"
    assert rows_of(f"journal:///{file}", study) == expected


def test_reading_writes_nothing(tmp_path: Path, make_study: MakeStudy) -> None:
    study, file = make_study(), tmp_path / "store"
    TrialQueue.create(f"sqlite:///{file}", study, folder="/studies/bowl")
    before = file.read_bytes()
    rows_of(f"sqlite:///{file}", study)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "store"]


def test_reading_does_not_import_optuna(tmp_path: Path, make_study: MakeStudy) -> None:
    study, file = make_study(), tmp_path / "store"
    TrialQueue.create(f"sqlite:///{file}", study, folder="/studies/bowl")
    code = (
        "import sys; from pathlib import Path; from hpotune.storage.readers.read_only import rows_of; "
        "from hpotune.config.load import load_study; import hpotune.launch.stale_workers; "
        f"print(len(rows_of('sqlite:///{file}', load_study(Path({str(study.source.path)!r}))))); "
        "print(sorted({'optuna', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["6", "[]"]


def test_readers_open_while_writer_works(make_store, url, make_study):
    store = make_store()
    claim = store.claim(worker())
    reader = TrialQueue.open(url, make_study(), read_only=True)
    assert reader.rows()[0].state == "running"
    finish(store, claim)
    assert reader.rows()[0].state == "finished"


def test_sqlite_reader_ignores_write_lock(make_study, tmp_path):
    import sqlite3

    url = f"sqlite:///{tmp_path}/s.db"
    TrialQueue.create(url, make_study(), folder="f")
    holder = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    code = (
        "import sys; from pathlib import Path; from hpotune.storage import TrialQueue; "
        "from hpotune.config.load import load_study; "
        "print(len(TrialQueue.open(sys.argv[1], load_study(Path(sys.argv[2])), read_only=True).rows()))"
    )
    command = [sys.executable, "-c", code, url, str(make_study().source.path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    holder.close()
    assert answer.stdout.strip() == "6"
