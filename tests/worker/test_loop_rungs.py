"""Trials that workers train from rung to rung: functions and commands, in real processes, killed ones too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from hpotune.records.trial import Worker

LOCAL = Worker(job="local", host="h", pid=os.getpid())
OWN = """\
import json, os, pathlib, time

def bowl(x, budget):
    own = pathlib.Path(os.environ["HPOTUNE_TRIAL_DIR"])
    with (own / "stages.jsonl").open("a") as file:
        file.write(json.dumps([int(os.environ["HPOTUNE_RUNG"]), budget]) + "\\n")
    if pathlib.Path("slow").exists() and budget == 1:
        time.sleep(60)
    return (x - 1) ** 2 + (1 - budget) * 0.2 * (x % 0.7)
"""


def study(new_study, budget: dict, **sections):
    """A study of a function that takes `budget`, in its folder."""
    folder, store = new_study(python="own.py:bowl", search={"algorithm": "asha"}, budget=budget, **sections)
    home = folder.path.parent / "home"
    (home / "own.py").write_text(OWN)
    return folder, store, home


def stages(folder) -> dict[int, list]:
    return {
        int(file.parent.name): [json.loads(line) for line in file.read_text().splitlines()]
        for file in folder.path.glob("trials/*/stages.jsonl")
    }


def start(folder) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hpotune", "run", str(folder.path)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_function_gets_each_rung_once(new_study, work):
    folder, store, _ = study(new_study, {"trials": 9})
    assert work(folder, worker=LOCAL).trials == sum(map(len, stages(folder).values()))
    for row in store.rows():
        reached = stages(folder)[row.number]
        assert reached == [[0, 1 / 9], [1, 1 / 3], [2, 1.0]][: len(row.rung_scores)]
    states = [row.state for row in store.rows()]
    assert states.count("finished") + states.count("stopped") == 9
    assert states.count("finished") >= 1


def test_command_gets_rung_budget(new_study, work):
    command = 'echo "{{\\"value\\": {x}}}" {budget} $HPOTUNE_RUNG_BUDGET >> $HPOTUNE_TRIAL_DIR/said; echo {x}'
    search = {"algorithm": "asha", "rungs": {"unit": "steps", "at": [10, 30]}}
    folder, _ = new_study(python=None, command=command, search=search, budget={"trials": 1})
    work(folder, worker=LOCAL)
    said = (folder.trial(0) / "said").read_text().splitlines()
    assert [line.split()[-2:] for line in said] == [["10", "10"], ["30", "30"]]


def test_pruned_trial_keeps_no_checkpoint(new_study, work):
    command = "mkdir -p $HPOTUNE_TRIAL_DIR/checkpoint; touch $HPOTUNE_TRIAL_DIR/checkpoint/state; echo {x}"
    folder, store = new_study(
        python=None, command=command, search={"algorithm": "asha"}, budget={"trials": 4}
    )
    work(folder, worker=LOCAL)
    kept = [n for n in range(4) if (folder.trial(n) / "checkpoint").exists()]
    assert kept == [row.number for row in store.rows() if row.state == "finished"]


def test_killed_run_gives_same_result(new_study, work, until):
    straight, store, _ = study(new_study, {"trials": 9}, name="one")
    work(straight, worker=LOCAL)
    folder, again, home = study(new_study, {"trials": 9}, name="two", folder_name="again")
    (home / "slow").touch()
    run = start(folder)
    assert until(lambda: any([2, 1.0] in reached for reached in stages(folder).values()))
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
    assert stages(folder)[running.number] == [[0, 1 / 9], [1, 1 / 3], [2, 1.0], [2, 1.0]]


def test_parallel_workers_keep_budget(new_study):
    folder, store, _ = study(new_study, {"trials": 12, "parallel": 3})
    assert start(folder).wait(240) == 0
    rows = store.rows()
    assert sum(row.decided for row in rows) == len(rows) == 12
    assert {row.number: len(row.rung_scores) for row in rows} == {
        n: len(reached) for n, reached in stages(folder).items()
    }
    best = min(rows, key=lambda row: (row.params["params.x"] - 1) ** 2)
    assert best.state == "finished"
