"""Rungs as workers climb them: functions and commands that are told how far to go, real processes, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

from hpotune.records.trial import Worker
from hpotune.worker import work
from hpotune.worker.rival import surely_worse_than
from tests.worker.test_loop import until

LOCAL = Worker(job="local", host="h", pid=os.getpid())
OWN = """\
import json, os, pathlib, time

def climb(x, budget):
    own = pathlib.Path(os.environ["HPOTUNE_TRIAL_DIR"])
    with (own / "turns.jsonl").open("a") as file:
        file.write(json.dumps([int(os.environ["HPOTUNE_RUNG"]), budget]) + "\\n")
    if pathlib.Path("slow").exists() and budget == 1:
        time.sleep(60)
    return (x - 1) ** 2 + (1 - budget) * 0.2 * (x % 0.7)
"""


def study(place, budget: dict, **sections):
    """A study of a function that takes `budget`, in its folder."""
    folder, store = place(python="own.py:bowl", search={"algorithm": "asha"}, budget=budget, **sections)
    home = folder.path.parent / "home"
    (home / "own.py").write_text(OWN.replace("def climb", "def bowl"))
    return folder, store, home


def turns(folder) -> dict[int, list]:
    return {
        int(file.parent.name): [json.loads(line) for line in file.read_text().splitlines()]
        for file in folder.path.glob("trials/*/turns.jsonl")
    }


def start(folder) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hpotune", "run", str(folder.path)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_a_function_is_told_its_budget_and_each_rung_once(place):
    folder, store, _ = study(place, {"trials": 9})
    assert work(folder, me=LOCAL, trials=None, env=os.environ).taken == sum(map(len, turns(folder).values()))
    for row in store.rows():
        told = turns(folder)[row.number]
        assert told == [[0, 1 / 9], [1, 1 / 3], [2, 1.0]][: len(row.rung_scores)]
    states = [row.state for row in store.rows()]
    assert states.count("finished") + states.count("stopped") == 9
    assert states.count("finished") >= 1


def test_a_command_reads_its_budget(place):
    command = 'echo "{{\\"value\\": {x}}}" {budget} $HPOTUNE_RUNG_BUDGET >> $HPOTUNE_TRIAL_DIR/said; echo {x}'
    search = {"algorithm": "asha", "rungs": {"unit": "steps", "at": [10, 30]}}
    folder, _ = place(python=None, command=command, search=search, budget={"trials": 1})
    work(folder, me=LOCAL, trials=None, env=os.environ)
    said = (folder.trial(0) / "said").read_text().splitlines()
    assert [line.split()[-2:] for line in said] == [["10", "10"], ["30", "30"]]


def test_a_stopped_trial_leaves_no_checkpoint(place):
    command = "mkdir -p $HPOTUNE_TRIAL_DIR/checkpoint; touch $HPOTUNE_TRIAL_DIR/checkpoint/state; echo {x}"
    folder, store = place(python=None, command=command, search={"algorithm": "asha"}, budget={"trials": 4})
    work(folder, me=LOCAL, trials=None, env=os.environ)
    kept = [n for n in range(4) if (folder.trial(n) / "checkpoint").exists()]
    assert kept == [row.number for row in store.rows() if row.state == "finished"]


def test_killed_with_9_in_a_rung_and_run_again_it_comes_to_the_same(place):
    straight, store, _ = study(place, {"trials": 9}, name="one")
    work(straight, me=LOCAL, trials=None, env=os.environ)
    folder, again, home = study(place, {"trials": 9}, name="two", folder_name="again")
    (home / "slow").touch()
    run = start(folder)
    assert until(lambda: any([2, 1.0] in told for told in turns(folder).values()))
    [running] = [row for row in again.rows() if row.state == "running"]
    assert running.rung == 2
    for pid in (run.pid, running.worker.pid):
        os.kill(pid, signal.SIGKILL)
    run.wait()
    (home / "slow").unlink()
    time.sleep(1)
    assert start(folder).wait(120) == 0
    one, two = store.rows(), again.rows()
    assert [(r.number, r.state, r.values, r.rung_scores) for r in two] == [
        (r.number, r.state, r.values, r.rung_scores) for r in one
    ]
    assert [a.outcome for a in two[running.number].attempts] == ["rung", "rung", "paused", "finished"]
    assert turns(folder)[running.number] == [[0, 1 / 9], [1, 1 / 3], [2, 1.0], [2, 1.0]]


def test_workers_side_by_side_decide_exactly_the_budget(place):
    folder, store, _ = study(place, {"trials": 12, "parallel": 3})
    assert start(folder).wait(240) == 0
    rows = store.rows()
    assert sum(row.decided for row in rows) == len(rows) == 12
    assert {row.number: len(row.rung_scores) for row in rows} == {
        n: len(told) for n, told in turns(folder).items()
    }
    best = min(rows, key=lambda row: (row.params["params.x"] - 1) ** 2)
    assert best.state == "finished"


def test_items_of_two_trials_are_held_against_each_other(place):
    search = {"algorithm": "random", "pruner": "median"}
    folder, store = place(search=search)
    score = store.config.score.model_copy(
        update={
            "objective": [store.config.score.objective[0].model_copy(update={"task": "t", "metric": "acc"})]
        }
    )
    config = store.config.model_copy(
        update={"score": score, "search": store.config.search.model_copy(update={"pruner": "wilcoxon"})}
    )
    good, bad = np.ones(40), np.ones(40)
    bad[:12] = 0
    for number, items in ((1, good), (2, bad)):
        folder.trial(number).mkdir(parents=True)
        np.savez(folder.trial(number) / "items-0.npz", **{"t/acc": items, "t/doc_id": np.arange(40)})
    up = score.objective[0].model_copy(update={"direction": "maximize"})
    config = config.model_copy(update={"score": score.model_copy(update={"objective": [up]})})
    assert surely_worse_than(folder, config, 2, 1, 0)
    assert not surely_worse_than(folder, config, 1, 2, 0)
    assert not surely_worse_than(folder, config, 2, 3, 0)
