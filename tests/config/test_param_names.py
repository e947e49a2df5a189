"""Names of params: how commands and the environment call a value."""

from __future__ import annotations

import pytest

from hpotune.config.param_names import environment, name_mistakes, values_by_name


def test_values_have_dotted_names():
    assert dict(values_by_name({"a": {"b": [1, 2]}, "c.d": 3})) == {
        "a": {"b": [1, 2]}, "a.b": [1, 2], "a.b.0": 1, "a.b.1": 2, "c.d": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "variables"),
    [
        ({"lr": 1e-05}, {"HPOTUNE_PARAM_LR": "1e-05"}),
        ({"optimizer.lr": 0.1}, {"HPOTUNE_PARAM_OPTIMIZER_LR": "0.1"}),
        ({"optimizer": {"lr": 0.1}}, {"HPOTUNE_PARAM_OPTIMIZER_LR": "0.1"}),
        ({"learning rate": "x y"}, {"HPOTUNE_PARAM_LEARNING_RATE": "x y"}),
        ({"none": None}, {}),
    ],
)
def test_environment_variables_of_params(params, variables):
    assert environment(params) == variables


def test_function_may_have_names_like_these():
    params = {"n": 1, "N": 2, "optimizer": {"lr": {"float": [0, 1]}}, "x.y": {"choice": [1, True]}}
    assert list(name_mistakes(params, by_command=False)) == []
