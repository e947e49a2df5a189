"""Starting points from .csv files, earlier studies and portfolios: what is taken, what is moved, what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hpotune.checks.study_file import check
from hpotune.cli import app
from hpotune.errors import StudyFileError
from hpotune.launch.prepare import PreparedStudy, prepare
from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.search.start_points import START_POINTS_KEY
from hpotune.storage import Claim

PARAMS = {
    "x": {"float": [-3.0, 3.0]},
    "n": {"int": [1, 9]},
    "kind": {"choice": ["a", 1, ["q", "v"]]},
    "only": {"float": [0, 1], "when": {"params.kind": "a"}},
}
Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path) -> Made:
    """Writes a study file of that name; `home` holds them all."""

    def write(name: str = "new", **sections: Any) -> Path:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        (home / "own.py").write_text("def bowl(**all):\n    return {'value': 0}\n")
        values = {
            "name": name, "python": "own.py:bowl", "params": PARAMS, "store": "sqlite", "budget": {"trials": 20},
            "score": {"objective": {"metric": "value", "direction": "minimize"}}, **sections,
        }  # fmt: skip
        (home / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        return home / f"{name}.yaml"

    return write


def ready(file: Path) -> PreparedStudy:
    return prepare(file, chosen=None, data_root=None)


def played(
    file: Path, *, trials: int = 8, value: Callable[[dict], float] = lambda p: p["params.x"] ** 2
) -> list[dict]:
    """The study with so many trials scored, the first of them failed; their points."""
    store, found = ready(file).store, []
    for number in range(trials):
        claim = store.claim(Worker(job=str(number), host="h", pid=1))
        assert isinstance(claim, Claim)
        if number == 0:
            store.record_failure(claim.trial_id, Failure(cause="user", message="no"))
            continue
        point = dict(claim.row.params)
        found.append(point | {"value": value(point)})
        metrics = {"memory": point.get("params.x")}
        result = TrialResult(
            number=claim.row.number, state="finished", values=[value(point)], metrics=metrics
        )
        store.complete(claim.trial_id, result)
    return found


def kept(file: Path) -> list[dict]:
    """The starts of a study, made where it is not yet."""
    store = ready(file).store
    found: list[dict] = store._storage.get_study_user_attrs(store._id)[START_POINTS_KEY]
    return found


def mistakes(file: Path) -> list[str]:
    with pytest.raises(StudyFileError) as raised:
        check(file)
    assert all("\n" not in line for line in raised.value.mistakes)
    return list(raised.value.mistakes)


CSV = 'params.x,params.n,params.kind,params.only,value\n-1.5,3,a,.5,9\n2,,1,,8\n0.25,7,"[""q"", ""v""]",,7\n'


def test_csv_rows_become_start_points(made):
    file = made(search={"start_from": "good.csv"})
    (file.parent / "good.csv").write_text(CSV)
    assert [one["params"] for one in kept(file)] == [
        {"params.x": -1.5, "params.n": 3, "params.kind": '"a"', "params.only": 0.5},
        {"params.x": 2.0, "params.kind": "1"},
        {"params.x": 0.25, "params.n": 7, "params.kind": '["q", "v"]'},
    ]
    assert {one["of"] for one in kept(file)} == {"from good.csv"}


def test_take_limits_csv_rows(made):
    file = made(search={"start_from": [{"path": "good.csv", "take": 2}]})
    (file.parent / "good.csv").write_text(CSV + "99,1,a,0,0\n")
    assert len(kept(file)) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("params.x,params.n\n1,2\n9,2\n", ["good.csv:3, column 1: params.x=9 is outside the range from -3 to 3"]),
        ("params.x,params.n\n1,2.5\n", ["good.csv:2, column 2: params.n=2.5 is between two values"]),
        ("params.x,params.kind\n1,b\n", ['good.csv:2, column 2: params.kind="b" is not one of the choices']),
        ("params.x\nhigh\n", ['good.csv:2, column 1: params.x="high" needs a number']),
        ("params.x,params.m\n1,2\n", ["good.csv:1, column 2: 'params.m' is not a range of the study; did you mean"]),
        ("params.x,params.x\n1,2\n", ["good.csv:1, column 2: 'params.x' is given twice; remove one"]),
        ("params.x,params.n\n1\n", ["good.csv:2: has 1 cell, and the header 2; needs equal numbers"]),
        ("value\n1\n", ["good.csv:1: has no range of the study in its header; needs some of params.x"]),
        ("params.x\n", ["'good.csv' has no row below its header"]),
        ("params.x,params.n\n1,5\n2,9\n", ["good.csv:3: the point breaks the constraint 'params.n < 8'"]),
        ("params.x,params.n\n9,0\n8,1\n", [
            "good.csv:2, column 1: params.x=9", "good.csv:2, column 2: params.n=0", "good.csv:3, column 1: params.x=8",
        ]),
        ("params.x\n" + "9" * 5000 + "\n", ["good.csv:2, column 1: params.x=Infinity is outside the range"]),
        ("params.kind\n" + "9" * 5000 + "\n", ["good.csv:2, column 1: params.kind=Infinity is not one of the choices"]),
        ('params.x\n"1\n', ["good.csv: cannot be read as .csv"]),
        (b"\xff\xfe\x00", ["good.csv: cannot be read as .csv"]),
    ],
)  # fmt: skip
def test_csv_errors_name_their_cell(made, text, says):
    file = made(search={"algorithm": "tpe", "start_from": ["good.csv"]}, constraints=["params.n < 8"])
    (file.parent / "good.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    found = mistakes(file)
    line = file.read_text().splitlines().index("  - good.csv") + 1
    assert len(found) == len(says)
    for line_text, wanted in zip(found, says, strict=True):
        assert line_text.startswith(f"new.yaml:{line}: search.start_from: {wanted}"), line_text


def test_past_study_gives_best_points(made):
    old = made("old")
    points = sorted(played(old), key=lambda point: point["value"])
    file = made(search={"start_from": ["old"], "algorithm": "random"})
    found = kept(file)
    assert [one["value"] for one in found] == [point["value"] for point in points[:3]]
    assert [one["params"]["params.x"] for one in found] == [point["params.x"] for point in points[:3]]
    assert {one["of"] for one in found} == {"from old"}


@pytest.mark.parametrize("path", ["old.yaml", "old", "./old/"])
def test_past_study_by_folder_or_file(made, path):
    played(made("old"))
    assert len(kept(made(search={"start_from": [{"path": path, "take": 5}], "portfolio": 0}))) == 5


def test_only_feasible_past_trials_count(made):
    score = {
        "objective": {"metric": "value", "direction": "maximize"},
        "constraints": [{"metric": "memory", "max": 0}],
    }
    played(made("old", score=score), value=lambda point: point["params.x"], trials=12)
    found = kept(made(search={"start_from": ["old"], "portfolio": 0}))
    assert found
    assert all(one["value"] <= 0 for one in found)


def test_past_points_include_fixed_values(made):
    params = {"x": {"expr": "params.half * 2"}, "half": {"float": [0.1, 0.2]}, "n": 4, "kind": "a"}
    played(made("old", params=params), value=lambda point: point["params.half"])
    first = kept(made(search={"start_from": ["old"]}))[0]
    assert first["params"] == {"params.x": first["value"] * 2, "params.n": 4, "params.kind": '"a"'}


def test_outside_points_are_moved(made):
    played(made("old"), value=lambda point: -point["params.x"])
    params = {"x": {"float": [-9.0, -4.0]}, "kind": {"choice": ["else"]}}
    checked = check(made(params=params, search={"start_from": [{"path": "old", "take": 1}]}))
    assert [start.params for start in checked.starts] == [{"params.x": -4.0}]
    (note,) = checked.notes
    assert note.startswith("old: the point with value -")
    assert "is outside this study's ranges and was moved to the nearest values" in note
    assert note.endswith("params.x, params.kind")


def test_next_best_replaces_infeasible_point(made):
    points = sorted(played(made("old"), trials=12), key=lambda point: point["value"])
    file = made(search={"start_from": [{"path": "old", "take": 2}]}, constraints=["params.x > 0"])
    right = [point["params.x"] for point in points if point["params.x"] > 0][:2]
    before = sum(point["params.x"] <= 0 and abs(point["params.x"]) < right[-1] for point in points)
    checked = check(file)
    assert [start.params["params.x"] for start in checked.starts] == right
    assert list(checked.notes) == [
        f"old: {before} of its best points are not possible in this study and are left out"
    ]


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("away", "'away' is neither a study nor a .csv file (", ),
        ("empty", "'empty' has no scored trial that satisfies its constraints"),
        ("other", "'other' has no range in common with this study; it has params.y, and this study has params.x"),
        ("away.csv", "'away.csv' does not exist; paths are relative to the study file"),
    ],
)  # fmt: skip
def test_useless_source_is_an_error(made, start, says):
    if start == "empty":
        ready(made("empty"))
    if start == "other":
        played(made("other", params={"y": {"float": [0, 1]}}), value=lambda _: 1.0, trials=2)
    file = made(search={"start_from": ["DOTS"]})
    file.write_text(file.read_text().replace("DOTS", start))
    (line,) = mistakes(file)
    number = file.read_text().splitlines().index(f"  - {start}") + 1
    assert line.startswith(f"new.yaml:{number}: search.start_from: {says}")


def test_study_continues_without_its_sources(made):
    file = made(search={"start_from": ["good.csv", "old"]})
    played(made("old"))
    (file.parent / "good.csv").write_text(CSV)
    before = kept(file)
    (file.parent / "good.csv").unlink()
    shutil.rmtree(file.parent / "old")
    assert kept(file) == before
    assert check(file).study.config.name == "new"


def test_interrupted_preparation_is_completed(made, monkeypatch):
    file = made(search={"start_from": ["good.csv"]})
    (file.parent / "good.csv").write_text(CSV)
    with monkeypatch.context() as patch:
        patch.setattr("hpotune.launch.prepare._store_start_points", lambda *_: [])
        ready(file)  # as one that was killed in the middle leaves it
    assert len(kept(file)) == 3


def test_portfolio_takes_from_siblings(made):
    best = sorted(played(made("old"), trials=9), key=lambda point: point["value"])
    played(made("few"), trials=4)
    played(made("other", params={"x": {"float": [-3.0, 3.0]}}))
    found = ready(made(search={"portfolio": "auto"}))
    starts = found.store._storage.get_study_user_attrs(found.store._id)[START_POINTS_KEY]
    assert {one["of"] for one in starts} == {"of the portfolio from old"}
    assert {one["params"]["params.x"] for one in starts} <= {point["params.x"] for point in best[:3]}
    assert len(starts) == 3
    assert found.notes[-1].startswith("3 start points: 3 of the portfolio from old (")


@pytest.mark.parametrize(
    ("search", "count"),
    [
        ({}, 0),
        ({"algorithm": "tpe", "portfolio": 2}, 2),
        ({"algorithm": "auto", "portfolio": "auto"}, 3),
    ],
)
def test_portfolio_size_is_configurable(made, search, count):
    played(made("old"))
    assert len(kept(made(search=search))) == count


def test_check_names_unused_studies(made):
    played(made("old"))
    played(made("few"), trials=4)
    shown = CliRunner().invoke(app, ["check", str(made())])
    assert shown.exit_code == 0
    assert "note: earlier studies over the same parameters: old; `search.portfolio: 3` begins" in shown.stderr
    assert (
        "earlier studies" not in CliRunner().invoke(app, ["check", str(made(search={"portfolio": 1}))]).stderr
    )


def test_portfolio_respects_constraints(made):
    played(made("old"), trials=16)
    starts = kept(made(search={"portfolio": 3}, constraints=["params.x > 0"]))
    assert starts
    assert all(one["params"]["params.x"] > 0 for one in starts)


def test_shared_store_gives_past_studies(made, tmp_path):
    shared = f"sqlite:///{tmp_path}/shared.db"
    old = made("old", store=shared)
    best = min(point["value"] for point in played(old))
    shutil.rmtree(old.parent / "old")
    starts = kept(made(store=shared, search={"algorithm": "auto", "portfolio": 1}))
    assert [(one["of"], one["value"]) for one in starts] == [("of the portfolio from old", best)]
    assert starts[0]["params"]["params.kind"] in ('"a"', "1", '["q", "v"]')


def test_unreadable_sibling_is_ignored(made):
    played(made("old"))
    broken = made("broken").parent / "broken"
    broken.mkdir()
    (broken / "resolved.yaml").write_text("name: [")
    os.utime(broken / "resolved.yaml")
    assert len(kept(made(search={"portfolio": "auto"}))) == 3


def test_start_points_keep_their_order(made):
    played(made("old"))
    params = {**PARAMS, "n": {"int": [1, 9], "prior": 2}}
    search = {"algorithm": "auto", "start_from": [{"params.n": 5}], "portfolio": 1}
    assert [one["of"].split()[:2] for one in kept(made(params=params, search=search))] == [
        ["from", "the"], ["of", "the"], ["from", "`prior`"],
    ]  # fmt: skip


def test_too_many_start_points_warn(made):
    file = made(search={"start_from": [{"params.n": n} for n in range(1, 4)]}, budget={"trials": 3})
    (warning,) = check(file).warnings
    assert "search.start_from gives 3 points for 3 trials, so that the algorithm proposes no point" in warning


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        (
            ["params.n < 5", "params.x > 4"],
            "new.yaml:30: constraints: no point of the space satisfies 'params.x > 4'",
        ),
        (
            ["params.n < 5", "params.n > 5"],
            "new.yaml:28: constraints: no point of the space satisfies all of them",
        ),
    ],
)
def test_infeasible_constraints_are_errors(made, constraints, says):
    file = made(constraints=constraints)
    (line,) = mistakes(file)
    first = file.read_text().splitlines().index("constraints:") + 1
    assert line.startswith(says.replace("28", str(first)).replace("30", str(first + 2))), line


def test_narrow_constraints_are_warned_of(made):
    (warning,) = check(made(constraints=["-0.01 < params.x < 0.01"])).warnings
    assert "of the points satisfy them; narrow the ranges" in warning


def test_very_narrow_constraints_only_warn(made):
    (warning,) = check(made(constraints=["-0.0002 < params.x < 0.0002"])).warnings
    assert (
        "constraints: about 0.009% of the points satisfy them, so few that the search may find none"
        in warning
    )
    (warning,) = check(made(constraints=["-0.002 < params.x < 0.002"])).warnings
    assert "% of the points satisfy them; narrow" in warning


@pytest.mark.parametrize(
    ("search", "params", "advice"),
    [
        ({"algorithm": "auto"}, {}, None),
        ({"algorithm": "tpe"}, {}, "tpe uses the prior as its first point only"),
        (
            {"algorithm": "auto"},
            {"m": {"int": [1, 9], "when": {"params.n": 2}}},
            "it is not used with conditions or several objectives",
        ),
    ],
)
def test_unused_confidence_is_warned_of(made, search, params, advice):
    own = {"n": {"int": [1, 9], "prior": 2, "confidence": "strong"}, **params}
    warnings = check(made(params=own, search=search)).warnings
    assert [str(advice) in warning for warning in warnings if "confidence" in warning] == [True] * bool(
        advice
    )


def test_limit_needs_a_measured_number(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    text = (
        "name: s\nmodel: {path: ./m}\ndata: {path: rows.jsonl}\nlora: {r: {int: [2, 64]}}\n"
        "budget: {trials: 9}\nscore:\n  objective: {metric: eval_loss}\n  constraints:\n"
        "    - {metric: peak_memory_gb, max: 40}\n    - {metric: seconds, max: 3600}\n"
        "    - {metric: memory_gb, max: 40}\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    (line,) = mistakes(tmp_path / "s.yaml")
    assert line.startswith(
        "s.yaml:11: score.constraints: metric='memory_gb' is not measured; did you mean 'peak_mem"
    )
    (tmp_path / "s.yaml").write_text(text[: text.index("    - {metric: memory_gb")])
    checked = check(tmp_path / "s.yaml")
    assert [(start.origin, start.params) for start in checked.starts] == [("recommended", {"lora.r": 16})]
