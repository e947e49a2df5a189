"""Metric collectors: each kind, each strategy, attempts that continue, and what is said where nothing is found."""

from __future__ import annotations

import pytest

MIN = [{"metric": "loss", "take": "min"}]
MAX = [{"metric": "loss", "take": "max"}]
LAST = [{"metric": "loss"}]
LINES = "echo step 1 loss=0.5; echo step 2 loss=0.25; echo step 3 loss=0.75"
NAMED = r"step (?P<step>\d+) loss=(?P<loss>\S+)"


@pytest.mark.parametrize(("objective", "value"), [(LAST, 0.75), (MIN, 0.25), (MAX, 0.75)])
@pytest.mark.parametrize("pattern", [[], [NAMED], [r"(loss)=(\S+)"], [r"nothing (?P<loss>x)", NAMED]])
def test_stdout_by_filter(evaluate, objective, value, pattern):
    result = evaluate(LINES, objective=objective, collect={"kind": "stdout", "filter": pattern})
    assert result.values == [value], result.failure


def test_file_of_text(evaluate):
    line = f"({LINES}) > $HPOTUNE_TRIAL_DIR/out.txt"
    assert evaluate(line, objective=MIN, collect={"kind": "file", "path": "out.txt"}).values == [0.25]


def test_file_of_json_lines(evaluate):
    text = '{{\\"step\\": $l, \\"loss\\": $l, \\"loss_stderr\\": 0.$l}}'
    line = f'for l in 3 1 2; do echo "{text}"; done > $HPOTUNE_TRIAL_DIR/m'
    result = evaluate(line, objective=MIN, collect={"kind": "file", "path": "m", "format": "json"})
    assert (result.values, result.stderrs) == ([1.0], [0.1])


@pytest.mark.parametrize(("objective", "value"), [(LAST, 2.0), (MIN, 1.0), (MAX, 3.0)])
def test_json_lines_of_output(evaluate, objective, value):
    line = """for l in 3 1 2; do echo "{{\\"loss\\": $l}}"; echo text; done"""
    assert evaluate(line, objective=objective).values == [value]


PUSH = "import hpotune; [hpotune.report({'loss': x}, step=n) for n, x in enumerate((3, 1, 2))]; "


@pytest.mark.parametrize(("objective", "value"), [(LAST, 2.0), (MIN, 1.0), (MAX, 3.0)])
@pytest.mark.parametrize("kind", ["auto", "push"])
def test_pushed_reports(evaluate, objective, value, kind):
    command = f'python3 -c "{PUSH}"'.replace("{", "{{").replace("}", "}}")
    assert evaluate(command, objective=objective, collect={"kind": kind}).values == [value]
    assert evaluate(function=PUSH, objective=objective, collect={"kind": kind}).values == [value]


@pytest.mark.parametrize(("objective", "value"), [(LAST, 1.5), (MIN, 1.0), (MAX, 3.0)])
def test_returned_value_is_one_more(evaluate, objective, value):
    assert evaluate(function=f"{PUSH}return 1.5", objective=objective).values == [value]


@pytest.mark.parametrize("style", [True, False], ids=["tensor", "simple value"])
def test_tensorboard_events(evaluate, style):
    body = (
        "import os; from torch.utils.tensorboard import SummaryWriter\n"
        "    with SummaryWriter(os.environ['HPOTUNE_TRIAL_DIR'] + '/runs/eval') as w:\n"
        f"        for n, x in enumerate((3, 1, 2)): w.add_scalar('eval/loss', x, n, new_style={style})"
    )
    objective = [{"metric": "eval/loss", "direction": "minimize", "take": "min"}]
    collect = {"kind": "tensorboard", "path": "runs"}
    assert evaluate(function=body, objective=objective, collect=collect).values == [1.0]


def test_lost_steps_do_not_count(evaluate):
    """An attempt was killed after step 3; the next one continues after step 1, whose report still counts."""
    push = "import hpotune; [hpotune.report({{{{'loss': x}}}}, step=n) for n, x in {}]; "
    first = evaluate(f'python3 -c "{push}"; exit 1'.format("((1, 2), (2, 0.5), (3, 0.1))"))
    assert "exit code 1" in first.failure.message
    result = evaluate(f'python3 -c "{push}"'.format("((2, 3), (3, 4))"), objective=MIN)
    assert result.values == [2.0]


@pytest.mark.parametrize("kind", ["stdout", "file"])
def test_values_without_steps_are_forgotten(evaluate, kind):
    collect = {"kind": kind} | ({"path": "out"} if kind == "file" else {})
    out = " | tee -a $HPOTUNE_TRIAL_DIR/out"
    assert evaluate(f"echo loss=1{out}; exit 1", collect=collect).state == "failed"
    assert evaluate(f"echo loss=2{out}", objective=MIN, collect=collect).values == [2.0]
    assert evaluate("true", collect=collect).failure.cause == "user"


@pytest.mark.parametrize(
    ("command", "collect", "words"),
    [
        ("echo lss=1", {"kind": "stdout", "filter": r"loss=(?P<loss>\S+)"}, "its output has no loss by the filter"),
        ("echo lss=1", {"kind": "stdout"}, "it reported lss"),
        ("true", {"kind": "file", "path": "m.txt"}, "it wrote no m.txt, which score.collect reads; write it to"),
        ("true", {"kind": "push"}, "nothing called hpotune.report() with loss (score.collect: push)"),
        ("mkdir $HPOTUNE_TRIAL_DIR/r", {"kind": "tensorboard", "path": "r"}, "no event file in r has the tag loss"),
        ("echo '[' > $HPOTUNE_TRIAL_DIR/m", {"kind": "file", "path": "m", "format": "json"}, "m has no line of JSON"),
    ],
)  # fmt: skip
def test_missing_metric_is_named(evaluate, command, collect, words):
    failure = evaluate(command, collect=collect).failure
    assert failure.cause == "user"
    assert words in failure.message
    assert "{" not in failure.message.replace("({'loss': NUMBER})", "")


def test_nan_is_passed_over_by_min(evaluate):
    assert evaluate(
        "echo loss=nan; echo loss=2; echo loss=nan", objective=MIN, collect={"kind": "stdout"}
    ).values == [2]
    assert evaluate("echo loss=nan", objective=MIN, collect={"kind": "stdout"}).failure.cause == "nan"
