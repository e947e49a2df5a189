"""Start points in a study file: their forms, and the error of each invalid one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import Study, build_study
from hpotune.config.space.ranges import Range
from hpotune.config.space.start_from import absolute_items, fault, items, near_value, option
from hpotune.config.yaml_source import parse_source
from hpotune.errors import StudyFileError

TEXT = """\
name: s
python: f.py:f
params:
  lr: {float: [1.0e-5, 1.0e-2], log: true}
  n: {int: [1, 9], step: 2}
  kind: {choice: [a, 1, true, [q, v]]}
  twice: {expr: "2 * params.n"}
  ten: 10
constraints: ["params.n <= 5 or params.lr < 1.0e-3"]
search:
  start_from:
    - ITEM
score: {objective: {metric: loss}}
budget: {trials: 9}
"""


def load(item: str) -> Study:
    return build_study(parse_source(TEXT.replace("ITEM", item), path=Path("s.yaml")))


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (
            "{params.lr: 1}",
            "params.lr=1 is outside the range from 1e-05 to 0.01; give a value inside, or widen",
        ),
        ("{params.lr: fast}", 'params.lr="fast" needs a number'),
        ("{params.n: 4}", "params.n=4 is between two values of the range; the nearest is 5"),
        ("{params.n: 2.5}", "params.n=2.5 is between two values of the range; the nearest is 3"),
        ("{params.kind: b}", 'params.kind="b" is not one of the choices ["a", 1, true, ["q", "v"]]'),
        ('{params.kind: "1"}', 'params.kind="1" is not one of the choices'),
        ("{params.twice: 4}", "params.twice=4 is computed (expr '2 * params.n'); leave it out"),
        (
            "{params.ten: 11}",
            "params.ten=11 is not searched: the file sets it to 10; remove it, or make it a range",
        ),
        ("{params.l: 1}", "params.l=1 is not a range of this file; did you mean 'params.lr'?"),
        (
            "{params.n: 9, params.lr: 0.01}",
            "the point breaks the constraint 'params.n <= 5 or params.lr < 1.0e-3'",
        ),
        ("3", "3 is neither a point, nor a path, nor {path: …, take: n}"),
        ("{}", "{} is neither a point, nor a path, nor {path: …, take: n}"),
        ("{path: old, best: 3}", "'best' is not allowed beside path; valid: path, take"),
        ("{path: 3}", "path: 3 needs the folder of a study or a .csv file"),
        ("{path: old, take: 0}", "take: 0 needs a whole number from 1"),
    ],
)
def test_wrong_start_point_is_one_error(item, says):
    with pytest.raises(StudyFileError) as raised:
        load(item)
    (line,) = raised.value.mistakes
    assert line.startswith("s.yaml:12: search.start_from: ")
    assert says in line


def test_every_wrong_name_is_reported():
    with pytest.raises(StudyFileError) as raised:
        load("{params.lr: 1, params.n: 4}")
    assert [line.split("from: ")[1].split("=")[0] for line in raised.value.mistakes] == [
        "params.lr",
        "params.n",
    ]


def test_forms_of_start_items():
    study = load("{params.lr: 1.0e-3, params.kind: [q, v]}\n    - ../old\n    - {path: good.csv, take: 2}")
    found = items(study.template)
    assert [(item.point.get("params.kind"), item.path, item.take) for item in found] == [
        (["q", "v"], "", None), (None, "../old", None), (None, "good.csv", 2),
    ]  # fmt: skip


def test_a_single_item_needs_no_list():
    text = TEXT.replace("\n    - ITEM", " ../old")
    assert [item.path for item in items(build_study(parse_source(text, path=Path("s.yaml"))).template)] == [
        "../old"
    ]


def test_paths_start_at_the_study_file():
    values = load("../old\n    - {path: a/../good.csv}\n    - {params.n: 3}\n    - /else/where").template
    absolute_items(values, home=Path("/home/me/new"), found={})
    assert values["search"]["start_from"] == [
        "/home/me/old", {"path": "/home/me/new/good.csv"}, {"params.n": 3}, "/else/where",
    ]  # fmt: skip


def test_choice_is_value_and_type():
    r = Range(where=("x",), kind="choice", options=("a", 1, True, ["q", "v"], None))
    assert [option(r, value) for value in ("a", 1, 1.0, True, ["q", "v"], None, "1", False)] == [
        0, 1, 1, 2, 3, 4, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("r", "value", "near"),
    [
        (Range(where=("x",), kind="float", low=0.0, high=1.0), 3, 1.0),
        (Range(where=("x",), kind="float", low=0.0, high=0.5, step=0.1), 0.34, 0.3),
        (Range(where=("x",), kind="int", low=1, high=9, step=3), 9, 7),
        (Range(where=("x",), kind="int", low=1, high=9), 3.4, 3),
        (Range(where=("x",), kind="int", low=1, high=9), "3", None),
    ],
)
def test_nearest_value_is_in_range(r, value, near):
    found = near_value(r, value)
    assert found == pytest.approx(near)
    assert near is None or not fault(r, found)
