"""Ranges, their order, and points put in."""

from __future__ import annotations

import pytest

from hpotune.config.space.range_parsing import CircleError, ordered, parse_range, range_kind
from hpotune.config.space.ranges import (
    Range,
    leaves,
    put_point,
    without,
)

OPTIM = Range(where=("train", "optim"), kind="choice", options=("adamw_torch", "sgd"))
MOMENTUM = Range(
    where=("train", "sgd_momentum"), kind="float", low=0.5, high=0.9, when={"train.optim": ("sgd",)}
)
NESTEROV = Range(
    where=("train", "nesterov"), kind="choice", options=(True, False), when={"train.sgd_momentum": (0.5, 0.9)}
)
RANK = Range(where=("lora", "r"), kind="int", low=4, high=64, log=True)
ALPHA = Range(where=("lora", "lora_alpha"), kind="expr", text="2 * lora.r")
SCALE = Range(where=("params", "scale"), kind="expr", text="lora.lora_alpha / lora.r")
TEMPLATE = {
    "lora": {"r": {"int": [4, 64]}, "lora_alpha": {"expr": "2 * lora.r"}, "bias": "none"},
    "train": {"optim": {"choice": []}, "sgd_momentum": {"float": []}, "nesterov": {"choice": []}},
    "params": {"scale": {"expr": ""}},
}


def ranges(value: object) -> Range:
    assert isinstance(value, dict)
    return parse_range(value, ("lora", "r"))


def test_range_kind_follows_key():
    assert [range_kind(v) for v in ({"float": []}, {"int": []}, {"choice": []}, {"expr": ""}, {"a": 1}, 3, None)] == [
        "float", "int", "choice", "expr", None, None, None,
    ]  # fmt: skip


def test_an_interval_keeps_its_options():
    r = ranges({"float": [1e-5, 1e-2], "log": True, "prior": 1e-3, "when": {"a.b": [1, 2], "c": "x"}})
    assert (r.name, r.kind, r.low, r.high, r.log, r.prior) == ("lora.r", "float", 1e-5, 1e-2, True, 1e-3)
    assert r.when == {"a.b": (1, 2), "c": ("x",)}


def test_int_corners_are_whole():
    assert all(isinstance(corner, int) for corner in ranges({"int": [4.0, 64]}).corners)


def test_labels_of_scalars_and_lists():
    assert ranges({"choice": ["a", 1, None]}).labels == ("a", 1, None)
    assert ranges({"choice": [["q", "v"], "all-linear"]}).labels == ('["q", "v"]', '"all-linear"')


def test_equal_values_of_different_types():
    assert ranges({"choice": [1, "1", True]}).options == (1, "1", True)


def test_ranges_come_after_those_they_read():
    names = [r.name for r in ordered([SCALE, ALPHA, NESTEROV, MOMENTUM, OPTIM, RANK]).ranges]
    for before, after in [("lora.r", "lora.lora_alpha"), ("lora.lora_alpha", "params.scale")]:
        assert names.index(before) < names.index(after)
    assert names.index("train.optim") < names.index("train.sgd_momentum") < names.index("train.nesterov")


def test_expression_cycle_is_named():
    one = Range(where=("a",), kind="expr", text="b")
    two = Range(where=("b",), kind="expr", text="a")
    tail = Range(where=("c",), kind="expr", text="a")
    with pytest.raises(CircleError, match=r"\(a -> b -> a\)"):
        ordered([tail, one, two])


def test_point_has_drawn_and_computed_values():
    space = ordered([SCALE, ALPHA, NESTEROV, MOMENTUM, OPTIM, RANK])
    point = put_point(
        TEMPLATE,
        space,
        {"lora.r": 8, "train.optim": "sgd", "train.sgd_momentum": 0.9, "train.nesterov": True},
    )
    assert point == {
        "lora": {"r": 8, "lora_alpha": 16, "bias": "none"},
        "train": {"optim": "sgd", "sgd_momentum": 0.9, "nesterov": True},
        "params": {"scale": 2.0},
    }


def test_unmet_condition_omits_dependents():
    space = ordered([SCALE, ALPHA, NESTEROV, MOMENTUM, OPTIM, RANK])
    drawn = {"lora.r": 8, "train.optim": "adamw_torch", "train.sgd_momentum": 0.9, "train.nesterov": True}
    assert put_point(TEMPLATE, space, drawn)["train"] == {"optim": "adamw_torch"}


def test_point_keeps_template_unchanged():
    before = repr(TEMPLATE)
    put_point(TEMPLATE, ordered([RANK]), {"lora.r": 8})
    assert repr(TEMPLATE) == before


def test_range_in_a_list():
    inside = Range(where=("lora", "layers", 1), kind="int", low=1, high=3)
    values = {"lora": {"layers": [0, {"int": [1, 3]}]}}
    assert put_point(values, ordered([inside]), {"lora.layers.1": 2}) == {"lora": {"layers": [0, 2]}}


def test_leaves_have_dotted_names():
    assert dict(leaves({"a": {"b": 1}, "c": [{"d": 2}, 3]})) == {"a.b": 1, "c": [{"d": 2}, 3], "c.0.d": 2}


def test_without_copies_the_rest():
    values = {"a": {"b": 1, "c": 2}, "d": 3}
    assert without(values, [("a", "b"), ("d",), ("absent", "x")]) == {"a": {"c": 2}}
    assert values == {"a": {"b": 1, "c": 2}, "d": 3}
