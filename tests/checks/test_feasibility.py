"""A whole study with everything that a space can hold, run here; and what its verbs say of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpotune.config.load import load_study

OLD = """\
name: old
python: own.py:score
params: {x: {float: [-9.0, 9.0]}, kind: plain, size: 8}
score: {objective: {metric: value, direction: minimize}}
search: {algorithm: random, seed: 1}
budget: {trials: 6, parallel: 2}
"""
NEW = """\
name: new
python: own.py:score
params:
  x: {normal: [0, 1]}
  size: {choice: [8, 16, 32], ordered: true, prior: 16, confidence: strong}
  kind: {choice: [plain, deep]}
  layers: {int: [1, 4], when: {params.kind: deep}}
  width: {lognormal: [3, 0.5], int: true, when: {params.layers: [3, 4]}}
  twice: {expr: "2 * params.x"}
constraints:
  - params.x < 2
  - params.layers * params.width <= 120
score:
  objective: {metric: value, direction: minimize}
  constraints:
    - {metric: memory, max: 40}
    - {metric: seconds, max: 3600}
search:
  algorithm: ALGORITHM
  seed: 3
  start_from:
    - {params.kind: deep, params.layers: 4}
    - good.csv
    - {path: old, take: 2}
budget: {trials: 14, parallel: 2}
"""
PROGRAM = """\
def score(x, kind, size, layers=0, width=0, twice=None):
    assert twice is None or twice == 2 * x
    assert (layers > 0) == (kind == "deep") or twice is None
    result = {"value": (x - 1) ** 2 + size / 100 + layers * width / 1000}
    return result if kind == "plain" and size == 8 else {**result, "memory": 30 + 20 * (x > 0.5)}
"""
ENV = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}


def call(verb: str, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "hpotune", verb, *map(str, words)]
    done = subprocess.run(line, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def written(home: Path, algorithm: str) -> Path:
    (home / "own.py").write_text(PROGRAM)
    (home / "old.yaml").write_text(OLD)
    (home / "good.csv").write_text("params.x,params.size,params.kind,value\n1.25,32,plain,7\n-0.5,,plain,9\n")
    (home / "new.yaml").write_text(NEW.replace("ALGORITHM", algorithm))
    return home / "new.yaml"


def json_of(verb: str, *words: object) -> Any:
    return json.loads(call(verb, *words, "--json").stdout)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "sobol", "auto"])
def test_study_with_every_range_finishes(tmp_path, algorithm):
    file = written(tmp_path, algorithm)
    call("run", tmp_path / "old.yaml")
    old = sorted(json_of("trials", tmp_path / "old.yaml"), key=lambda row: row["values"]["value"])
    old = [row for row in old if row["params"]["params.x"] < 2][
        :2
    ]  # others break a constraint of the new one
    ran = call("run", file)
    values = ", ".join(f"{row['values']['value']:.4g}" for row in old)
    rest = f"6 start points: 1 from the file, 2 from good.csv, 2 from old ({values}), 1 from `prior`"
    assert rest in ran.stderr

    rows = json_of("trials", file)
    assert len(rows) == 14
    assert {row["state"] for row in rows} == {"finished"}
    points = [row["params"] for row in rows]
    assert {key: points[0][key] for key in ("params.kind", "params.layers")} == {
        "params.kind": "deep",
        "params.layers": 4,
    }
    assert points[1] == {"params.x": 1.25, "params.size": 32, "params.kind": "plain"}
    assert points[2]["params.x"] == -0.5
    for row, before in zip(points[3:5], old, strict=True):
        assert row["params.x"] == pytest.approx(min(max(before["params"]["params.x"], -3), 3))
        assert (row["params.size"], row["params.kind"]) == (8, "plain")
    assert points[5] == {"params.x": pytest.approx(0, abs=1e-12), "params.size": 16, "params.kind": "plain"}
    for point in points[5:] + points[:3]:
        assert -3 <= point["params.x"] < 2
        assert ("params.layers" in point) == (point["params.kind"] == "deep")
        assert ("params.width" in point) == (point.get("params.layers", 0) > 2)
        assert point.get("params.layers", 0) * point.get("params.width", 0) <= 120
    assert_limits(file, rows)


def assert_limits(file: Path, rows: list[dict[str, Any]]) -> None:
    """Trials beyond a limit carry it in words, and the best is the best of the others."""
    over = [row for row in rows if row["params"]["params.x"] > 0.5 and "memory" in row["metrics"]]
    assert [row["number"] for row in rows if row["breaks"]] == [row["number"] for row in over]
    assert {word for row in over for word in row["breaks"]} == {"memory 50 > 40"}
    best = json_of("best", file)
    kept = [row for row in rows if not row["breaks"]]
    assert best["best"]["number"] == min(kept, key=lambda row: row["values"]["value"])["number"]
    assert {int(number) for number in best["left_out"]} == {row["number"] for row in over}
    assert best["unmeasured"]["memory"] == [row["number"] for row in rows if "memory" not in row["metrics"]]
    shown = call("best", file).stdout
    assert "excluded by score.constraints: " in shown
    assert "memory 50 > 40" in shown
    assert "did not measure memory" in shown
    assert "violates memory 50 > 40" in call("trials", file).stdout
    call("export", file, file.parent / "out")
    setting = load_study(file.parent / "out" / "setting.yaml")
    assert (setting.space.ranges, setting.config.params["x"]) == ((), best["best"]["params"]["params.x"])


def test_check_lists_start_points_and_errors(tmp_path):
    file = written(tmp_path, "tpe")
    (tmp_path / "good.csv").write_text("params.x,params.size\n1.25,31\n7,32\n")
    done = call("check", file, code=2)
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "new.yaml:23: search.start_from: good.csv:2, column 2: params.size=31 is not one of" in lines[0]
    assert "new.yaml:23: search.start_from: good.csv:3, column 1: params.x=7 is outside" in lines[1]
    assert "new.yaml:24: search.start_from: 'old' is neither a study nor a .csv file" in lines[2]
    file.write_text(
        file.read_text().replace("    - {path: old, take: 2}\n", "").replace("    - good.csv\n", "")
    )
    assert "2 start points: 1 from the file, 1 from `prior`" in call("check", file).stdout


def test_no_best_without_feasible_trial(tmp_path):
    file = written(tmp_path, "random")
    text = NEW[: NEW.index("  start_from")].replace("ALGORITHM", "random").replace("max: 3600", "max: 1.0e-6")
    file.write_text(text + "budget: {trials: 2}\n")
    call("run", file)
    shown = call("best", file).stdout
    assert "no trial satisfies score.constraints yet" in shown
    assert "excluded by score.constraints: 2 trials, e.g. trial 0" in shown
