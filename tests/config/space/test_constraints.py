"""Constraints that are known before a trial: what they read, where they are wrong, which points they rule out."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import Study, build_study
from hpotune.config.yaml_source import parse_source
from hpotune.errors import StudyFileError

TEXT = """\
name: s
python: f.py:f
params:
  a: {int: [0, 9]}
  b: {int: [0, 9]}
  sum: {expr: "params.a + params.b"}
  kind: {choice: [x, y]}
  deep: {int: [1, 5], when: {params.kind: x}}
  ten: 10
constraints:
  - params.a <= params.b
  - CONSTRAINT
score: {objective: {metric: loss}}
budget: {trials: 2}
"""


def load(text: str) -> Study:
    return build_study(parse_source(text, path=Path("s.yaml")))


def errors_of(text: str) -> list[str]:
    with pytest.raises(StudyFileError) as error:
        load(text)
    return list(error.value.mistakes)


def breaks(constraint: str, **drawn: object) -> bool:
    study = load(TEXT.replace("CONSTRAINT", constraint))
    values = {
        f"params.{name}": value for name, value in {"a": 1, "b": 2, "kind": "x", "deep": 3, **drawn}.items()
    }
    return bool(study.space.violated(values))


@pytest.mark.parametrize(
    ("constraint", "drawn", "wrong"),
    [
        ("params.a < 5", {}, False),
        ("params.a < 1", {}, True),
        ("params.sum <= 3 and not params.sum == 0", {}, False),
        ("params.sum * params.ten < 30", {}, True),
        ("0 < params.a < params.b", {}, False),
        ("params.kind == 'y' or params.deep > 3", {"kind": "x"}, True),
        ("params.deep > 3", {"kind": "y"}, False),
        ("params.b / params.a > 1", {"a": 0}, True),
    ],
    ids=[
        "holds",
        "breaks",
        "tied value",
        "fixed value",
        "chain",
        "or",
        "an inactive name says nothing",
        "by zero",
    ],
)
def test_constraint_is_evaluated_at_point(constraint, drawn, wrong):
    assert breaks(constraint, **drawn) == wrong


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        ("params.aa < 3", "reads 'params.aa', which does not exist; did you mean 'params.a'?"),
        ("params.a + 3", "is not a condition; needs a comparison, such as a <= b"),
        ("params.a <", "is not an expression"),
        ("open('x') < params.a", "calls open('x')"),
        ("params.ten < 11", "reads no searched value"),
        ("params.a in [1]", "holds 'params.a in [1]'"),
    ],
)
def test_wrong_constraint_is_one_error(constraint, says):
    lines = errors_of(TEXT.replace("CONSTRAINT", constraint))
    assert len(lines) == 1
    assert lines[0].startswith("s.yaml:12: constraints: ")
    assert says in lines[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("constraints: 3", "s.yaml:8: constraints.0=3 needs text"),
        ("constraints: [3]", "s.yaml:8: constraints.0=3 needs text"),
        ("constraints: {a: b}", "s.yaml:8: constraints.0="),
    ],
)
def test_constraint_must_be_text(text, says):
    study = TEXT[: TEXT.index("constraints")].replace("  sum:", "  #sum:").replace("  ten: 10\n", "")
    study = study.replace('  #sum: {expr: "params.a + params.b"}\n', "").replace("  deep: ", "  deep: ")
    lines = errors_of(study + text + "\nscore: {objective: {metric: loss}}\nbudget: {trials: 2}\n")
    assert len(lines) == 1
    assert lines[0].startswith(says), lines


def test_a_single_constraint_needs_no_list():
    text = TEXT.replace(
        "constraints:\n  - params.a <= params.b\n  - CONSTRAINT\n", "constraints: params.a < params.b\n"
    )
    assert load(text).space.constraints == ("params.a < params.b",)


def test_infeasible_corner_is_valid():
    text = TEXT.replace('"params.a + params.b"', '"1 / (params.b - params.a)"')
    assert "division by zero" in "".join(errors_of(text.replace("  - CONSTRAINT\n", "")))
    assert load(text.replace("CONSTRAINT", "params.b > params.a")).config.params["b"] == 9


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("{metric: mem}", "score.constraints.0.metric: has neither min nor max; add one"),
        ("{metric: mem, min: 3, max: 2}", "score.constraints.0.min: 3 is above max: 2"),
        ("{metric: mem, max: much}", "score.constraints.0.max='much' needs a number"),
        ("{metric: mem, maximum: 3}", "score.constraints.0.maximum: unknown key; did you mean 'max'?"),
        ("{max: 3}", "score.constraints.0.metric is missing"),
    ],
)
def test_wrong_limit_is_one_error(limit, says):
    text = TEXT.replace("  - CONSTRAINT\n", "").replace(
        "score: {objective: {metric: loss}}\n",
        f"score:\n  objective: {{metric: loss}}\n  constraints:\n    - {limit}\n",
    )
    lines = errors_of(text)
    assert len(lines) == 1
    assert lines[0].startswith(f"s.yaml:15: {says}"), lines
