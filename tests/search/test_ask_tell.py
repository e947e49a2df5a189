"""The ask-tell protocol: every algorithm, errors, and the shared bench as the other program."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpotune.errors import StudyFileError
from hpotune.search.algorithms.registry import MODULES, algorithm
from hpotune.search.ask_tell import AskTellSearch, answers

BENCH = Path(os.environ.get("HPOTUNE_SEARCHBENCH", Path(__file__).parents[3] / "shared" / "searchbench"))
NUMBERS = [
    {"name": "lr", "type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    {"name": "rank", "type": "int", "low": 2, "high": 64, "log": True},
    {"name": "drop", "type": "float", "low": 0.0, "high": 0.5},
]
CATEGORY = {"name": "target", "type": "cat", "choices": ["qv", "all", [1, 2]], "ordered": False}
DEFAULT = {"lr": 2e-4, "rank": 16, "drop": 0.05, "target": "all"}
NEEDED = {"grid": {"points": {"lr": 5, "drop": 3}}}
"""Options that an algorithm needs."""
ASK, CLOSE = {"op": "ask"}, {"op": "close"}


def init(name: str = "random", **others: object) -> dict:
    space = [*NUMBERS, CATEGORY] if algorithm(name).categories else NUMBERS
    default = {entry["name"]: DEFAULT[entry["name"]] for entry in space}
    return {"op": "init", "space": space, "direction": "maximize", "default": default, **others}


def replies(*messages: dict | str, name: str = "random", options: dict | None = None) -> list[dict]:
    lines = [message if isinstance(message, str) else json.dumps(message) for message in messages]
    return list(answers(lines, algorithm=name, options=options or {}))


def played(name: str, *, seed: int = 0, asks: int = 20, pending: int = 4) -> list[dict]:
    """Points of a session in which `pending` trials run at a time; each fifth fails."""
    search = AskTellSearch(init(name, seed=seed), algorithm=name, options=NEEDED.get(name, {}))
    running, points = [], []
    for _ in range(asks):
        number, point = search.ask()
        points.append(point)
        running.append((number, point))
        if len(running) == pending:
            number, point = running.pop(0)
            score = -abs(point["lr"] - 1e-3) - point["drop"]
            search.tell({"id": number, "value": None if number % 5 == 4 else score, "stderr": 0.01})
    return points


ASKED = sorted(name for name in MODULES if not algorithm(name).assign_lineage)
"""The others continue from checkpoints, which answers cannot name."""


def test_pbt_is_refused():
    [said] = replies(init(), name="pbt")
    assert said["error"].startswith("init: pbt continues from checkpoints")


@pytest.mark.parametrize("name", ASKED)
def test_session_with_pending_trials(name):
    points = played(name)
    assert points[0] == {key: value for key, value in DEFAULT.items() if key in points[0]}
    for point in points:
        assert 1e-5 <= point["lr"] <= 1e-1
        assert point["rank"] in range(2, 65)
        assert 0 <= point["drop"] <= 0.5
        assert point.get("target", "qv") in CATEGORY["choices"]
    assert len({json.dumps(point) for point in points}) == len(points)


@pytest.mark.parametrize("name", ASKED)
def test_same_seed_repeats_session(name):
    assert played(name, seed=3, asks=10) == played(name, seed=3, asks=10)


def test_another_seed_gives_another_session():
    assert played("random", seed=3) != played("random", seed=4)


def test_start_from_precedes_default():
    first = [{"lr": 1e-3, "rank": 8, "drop": 0.0, "target": [1, 2]}, DEFAULT | {"rank": 32}]
    said = replies(init(start_from=first), ASK, ASK, ASK, ASK)
    assert [answer["params"] for answer in said[1:4]] == [*first, DEFAULT]
    assert said[4]["params"] not in [*first, DEFAULT]


def test_two_objectives_use_lists():
    said = replies(init(direction=["maximize", "minimize"]), ASK, {"op": "tell", "id": 0, "value": [1, 2.5]})
    assert said[2] == {"ok": True}


def test_range_accepts_study_file_keys():
    space = [
        CATEGORY,
        {"name": "x", "type": "float", "low": 0, "high": 1, "step": 0.5, "when": {"target": "qv"}},
    ]
    said = replies(init(space=space, default={}), *[ASK] * 6)
    assert {("x" in a["params"]) == (a["params"]["target"] == "qv") for a in said[1:]} == {True}
    assert {a["params"].get("x", 0.5) for a in said[1:]} <= {0.0, 0.5, 1.0}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (["rubbish"], "'rubbish' is not JSON"),
        (["[1]"], "'[1]' is not an object; needs one such as"),
        ([{"op": [1]}], "op=[1] is unknown; valid: init, ask, tell, close"),
        ([init(seeds=1)], "init: seeds: unknown key; did you mean 'seed'"),
        ([init(direction=None)], "init: direction is missing; needs maximize or minimize"),
        ([init(n_trials=0)], "n_trials=0 needs 1 or more"),
        ([init(), {"op": "tell", "value": 1}], "tell: id is missing; needs the id of an ask"),
        ([init(), {"op": "ask", "n": 2}], "ask: n: unknown key; it has none"),
        ([{"op": "aks"}], "op='aks' is unknown"),
        ([ASK], "ask: sent before init"),
        ([init(), init()], "init: sent twice"),
        ([init(space=[])], "init: space=[] needs a list"),
        ([init(space=[{"type": "int"}])], "needs an object with a name"),
        ([init(space=[{"name": "x", "type": "real"}])], "x: type='real' is unknown; valid: float, int, cat"),
        ([init(space=[NUMBERS[0], NUMBERS[0]], default={})], "has two ranges of one name"),
        ([init(space=[{**NUMBERS[0], "low": 0}], default={})], "lr: float[0]=0 with log: true"),
        ([init(space=[{**NUMBERS[0], "hihg": 0}], default={})], "'hihg' is not allowed beside 'float'"),
        ([init(default={"lrr": 1})], "default: 'lrr' is not a name of the space; did you mean 'lr'?"),
        ([init(default={"lr": 1})], "lr: prior: 1 needs a number from 1e-05 to 0.1"),
        ([init(direction="up")], "direction"),
        ([init(seed=-1)], "seed"),
        ([init(n_trials=0)], "trials"),
        ([init(options={"x": 1})], "options.x is not an option of random"),
        ([init(start_from=[3])], "start_from=[3] needs a list of objects"),
        ([init(start_from=[{"rank": 99}])], "start_from: rank=99 is outside the range from 2 to 64"),
        ([init(start_from=[{"target": "mlp"}])], 'start_from: target="mlp" is not one of the choices'),
        (
            [init(start_from=[{"ranks": 9}])],
            "start_from: ranks=9 is not a range of this file; did you mean 'rank'",
        ),
        ([init(), {"op": "tell", "id": 0, "value": 1}], "tell: id=0 is unknown"),
        ([init(), ASK, {"op": "tell", "id": 0, "value": "1"}], "tell: value='1' needs 1 number, or null"),
        ([init(), ASK, {"op": "tell", "id": 0, "value": [1, 2]}], "needs 1 number"),
        ([init(), ASK, *[{"op": "tell", "id": 0, "value": 1}] * 2], "tell: id=0 has a result already"),
    ],
    ids=str,
)
def test_error_is_one_line(messages, expected):
    error = replies(*messages)[-1]["error"]
    assert expected in error
    assert "\n" not in error


def test_unknown_algorithm_names_nearest():
    with pytest.raises(StudyFileError, match="'soboll' is unknown; did you mean 'sobol'"):
        AskTellSearch(init(), algorithm="soboll", options={})


def test_session_continues_after_error():
    said = replies(init(), {"op": "tell", "id": 5, "value": 1}, ASK, CLOSE, ASK)
    assert [sorted(answer) for answer in said] == [["ok"], ["error"], ["id", "params"]]


def test_close_ignores_other_keys():
    assert replies(init(), {"op": "close", "id": 3}, ASK) == [{"ok": True}]


def test_user_names_are_not_translated():
    space = [{"name": "search.rate", "type": "float", "low": 0, "high": 1}]
    said = replies(init(space=space, default={"search.rate": 2}))
    assert said[0]["error"].startswith("search.rate: prior: 2 needs a number")


def test_infinite_value_fails_trial():
    said = replies(init(), ASK, '{"op": "tell", "id": 0, "value": NaN}', {"op": "tell", "id": 0, "value": 1})
    assert said[2] == {"ok": True}
    assert "has a result already" in said[3]["error"]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("surface", ["hartmann6", "func3c", "loracliff"])
def test_shared_bench_drives_command_line(surface, workers, monkeypatch):
    if not (BENCH / "bench.py").is_file():
        pytest.skip("needs the shared search bench; HPOTUNE_SEARCHBENCH names its folder")
    for module in ("sklearn", "pandas"):
        pytest.importorskip(module, reason=f"the shared search bench needs {module}")
    monkeypatch.syspath_prepend(str(BENCH))
    bench, objectives = importlib.import_module("bench"), importlib.import_module("objectives")
    surface = objectives.FACT[surface]()
    command = f"{sys.executable} -m hpotune ask-tell --algorithm random"
    tool = bench.Cmd(command, surface.space, 0, 12, workers, surface.default)
    try:
        trials, _ = bench.simulate(surface, tool, 0, 12, workers)
    finally:
        tool.close()
    points = [trial[5] for trial in sorted(trials, key=lambda trial: trial[0])]
    assert len(points) == 12
    assert points[0] == pytest.approx(surface.default)
    assert tool.p.returncode == 0


def test_error_exits_2_without_torch(tmp_path):
    lines = [json.dumps(message) for message in (init(), ASK, {"op": "tell", "id": 7, "value": 1}, CLOSE)]
    program = (
        "import sys, hpotune.cli as c\ntry: c.main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "ask-tell", "--algorithm", "sobol"]
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert [sorted(json.loads(line)) for line in done.stdout.splitlines()] == [
        ["ok"],
        ["id", "params"],
        ["error"],
    ]
    assert (done.returncode, done.stderr.strip()) == (2, "False")
