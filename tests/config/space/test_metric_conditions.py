"""Conditions on measured numbers: names with slashes, divisions, and texts that are none."""

from __future__ import annotations

import pytest

from hpotune.config.space.metric_conditions import holds, names_of

VALUES = {
    "hellaswag/acc_norm": 0.6,
    "gsm8k/exact_match,strict-match": 0.2,
    "a-b/acc": 0.5,
    "mem": 8.0,
    "n": 2.0,
}


@pytest.mark.parametrize(
    ("text", "names", "held"),
    [
        ("mem <= 8", {"mem"}, True),
        ("hellaswag/acc_norm > 0.6", {"hellaswag/acc_norm"}, False),
        (
            "gsm8k/exact_match,strict-match >= 0.2 and mem < 9",
            {"gsm8k/exact_match,strict-match", "mem"},
            True,
        ),
        ("mem / n == 4", {"mem", "n"}, True),
        ("mem/2 == 4", {"mem"}, True),
        ("16/mem == n", {"mem", "n"}, True),
        ("a-b/acc - 0.5 == 0", {"a-b/acc"}, True),
        ("max(hellaswag/acc_norm, a-b/acc)>0.55", {"hellaswag/acc_norm", "a-b/acc"}, True),
        ("not hellaswag/acc_norm < a-b/acc", {"hellaswag/acc_norm", "a-b/acc"}, True),
    ],
)
def test_slash_joins_task_and_metric(text: str, names: set[str], held: bool) -> None:
    assert names_of(text) == names
    assert holds(text, VALUES) is held


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hellaswag/acc_norm", "is not a condition"),
        ("1 < 2", "reads no measured number"),
        ("hellaswag/acc_norm <", "is not an expression"),
        ("open(hellaswag/acc) < 1", "calls open(hellaswag/acc)"),
        ("mem[0] < 1", "holds 'mem[0]'"),
        ("", "is not an expression"),
    ],
)
def test_other_texts_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="^(is|reads|calls|holds) ") as caught:
        names_of(text)
    assert reason in str(caught.value)


def test_failed_arithmetic_is_an_error() -> None:
    with pytest.raises(ValueError, match="division by zero"):
        holds("1 / mem < 2", {"mem": 0.0})
