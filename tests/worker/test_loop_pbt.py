"""Trials that continue from another trial's folder, with several workers, one of them lost between generations."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace

import pytest

from hpotune.records.trial import Worker

LOCAL = Worker(job="local", host="h", pid=os.getpid())
OWN = """\
import json, os, pathlib

def bowl(x, budget):
    own = pathlib.Path(os.environ["HPOTUNE_TRIAL_DIR"])
    parent = os.environ.get("HPOTUNE_PARENT_DIR")
    before = json.loads((pathlib.Path(parent) / "state.json").read_text()) if parent else []
    parts = [*before, [int(os.environ["HPOTUNE_RUNG"]), budget, x]]
    (own / "state.json").write_text(json.dumps(parts))
    return sum(abs(x - rung) for rung, _, x in parts)
"""
SEARCH = {"algorithm": "pbt", "options": {"population": 4, "generations": 3}}


def study(new_study, **sections):
    folder, store = new_study(**{"search": SEARCH, "budget": {"trials": 12, "parallel": 3}, **sections})
    (folder.path.parent / "home" / "own.py").write_text(OWN)
    return folder, store


def history(folder, number: int) -> list:
    return json.loads((folder.trial(number) / "state.json").read_text())


def check(folder, store) -> None:
    """Each trial went on from its parent, and one of the last has three parts behind it."""
    found = {row.number: row for row in store.rows()}
    for row in found.values():
        assert row.lineage is not None
        parent = row.lineage.parent
        before = [] if parent is None else history(folder, parent)
        assert history(folder, row.number)[:-1] == before
        part, budget, x = history(folder, row.number)[-1]
        assert (part, budget) == (row.generation, pytest.approx((row.generation + 1) / 3))
        assert x == row.params["params.x"]
        assert row.rung == row.generation
    assert [row.generation for row in found.values()] == [0] * 4 + [1] * 4 + [2] * 4


def test_function_gets_parent_folder(new_study, work):
    folder, store = study(new_study)
    assert work(folder, worker=LOCAL).trials == 12
    check(folder, store)
    assert {row.state for row in store.rows()} == {"finished"}


def test_command_gets_parent_folder(new_study, work):
    line = 'echo "$HPOTUNE_RUNG {budget} $HPOTUNE_PARENT_DIR" > "$HPOTUNE_TRIAL_DIR"/said; echo {{\\"value\\": {x}}}'
    folder, store = study(new_study, python=None, command=line)
    assert work(folder, worker=LOCAL, trials=6).trials == 6
    for row in store.rows()[:6]:
        parent = "" if row.lineage.parent is None else str(folder.trial(row.lineage.parent))
        said = (folder.trial(row.number) / "said").read_text()
        assert said.rstrip("\n") == f"{row.generation} {(row.generation + 1) / 3} {parent}".rstrip("\n")


def test_parallel_workers_continue_ended_trials(new_study, work):
    folder, store = study(new_study)
    workers = [
        threading.Thread(
            target=work,
            args=(folder,),
            kwargs={"worker": replace(LOCAL, task=f".{n}")},
        )
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    check(folder, store)


def test_unrecorded_result_is_recorded_later(new_study, work):
    """Its result.json lies there; the store has not heard of it."""
    folder, store = study(new_study)
    work(folder, worker=LOCAL, trials=5)
    claim = store.claim(replace(LOCAL, pid=2**22 + 1, host=os.uname().nodename))
    own = folder.trial(claim.row.number)
    own.mkdir(parents=True, exist_ok=True)
    parent = claim.row.lineage.parent
    (own / "state.json").write_text(
        json.dumps([*history(folder, parent), [1, 2 / 3, claim.row.params["params.x"]]])
    )
    (own / "result.json").write_text(
        json.dumps({"number": claim.row.number, "state": "finished", "values": [0.5], "rung": 1})
    )
    work(folder, worker=replace(LOCAL, host=os.uname().nodename))
    assert store.rows()[claim.row.number].values == (0.5,)
    check(folder, store)


def test_retried_child_keeps_parent(new_study, work):
    folder, store = study(new_study, retry={"killed": 1})
    work(folder, worker=LOCAL, trials=5)
    claim = store.claim(LOCAL)
    store.pause(claim.trial_id, owner=LOCAL)
    again = store.claim(LOCAL)
    assert again.row.number == claim.row.number
    assert (again.row.lineage, again.row.params) == (claim.row.lineage, claim.row.params)
