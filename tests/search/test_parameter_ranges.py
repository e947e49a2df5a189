"""Ranges as values of a program, inside the real classes of transformers and peft."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest

from hpotune import search
from hpotune.errors import StudyFileError
from hpotune.search.parameter_ranges import held_ranges


@pytest.mark.parametrize(
    ("made", "spec", "value"),
    [
        (search.double(0.5, 1.5), {"float": [0.5, 1.5]}, 1.0),
        (search.double(min=1e-4, max=1e-2, log=True), {"float": [1e-4, 1e-2], "log": True}, 1e-3),
        (search.double(0, 1, step=0.25), {"float": [0.0, 1.0], "step": 0.25}, 0.5),
        (search.double(0.0, 1.0, prior=0.1), {"float": [0.0, 1.0], "prior": 0.1}, 0.1),
        (search.int(8, 32), {"int": [8, 32]}, 20),
        (search.int(min=2, max=128, log=True), {"int": [2, 128], "log": True}, 16),
        (search.int(0, 8, step=2, prior=4), {"int": [0, 8], "step": 2, "prior": 4}, 4),
        (search.int(0, 8, step=1), {"int": [0, 8]}, 4),
        (search.categorical(["sgd", "adam"]), {"choice": ["sgd", "adam"]}, "sgd"),
        (search.categorical(["a", "b"], prior="b"), {"choice": ["a", "b"], "prior": "b"}, "b"),
        (search.categorical(["a", "b"], ordered=True), {"choice": ["a", "b"], "ordered": True}, "a"),
        (search.categorical([["q"], "all-linear"]), {"choice": [["q"], "all-linear"]}, ["q"]),
        (search.categorical([None, 4]), {"choice": [None, 4]}, 4),
        (search.categorical([True, False]), {"choice": [True, False]}, 1),
    ],
)  # fmt: skip
def test_range_has_spec_and_value(made, spec, value) -> None:
    assert made.study_value == spec
    assert made == pytest.approx(value) if isinstance(value, float) else made == value
    assert copy.deepcopy(made).study_value == spec
    assert pickle.loads(pickle.dumps(made)).study_value == spec


def test_range_of_one_value_is_it() -> None:
    assert search.double(3, 3).study_value == 3.0
    assert search.int(3, 3).study_value == 3
    assert search.categorical(["x"]).study_value == "x"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: search.double(2, 1), "search.double(min=2, max=1): min is above max"),
        (lambda: search.double(0, 1, log=True), "needs a min above 0"),
        (lambda: search.double(0.1, 1, step=0.1, log=True), "step and log exclude each other"),
        (lambda: search.double("1e-5", 1), "'1e-5' is no number"),
        (lambda: search.double(float("nan"), 1), "nan is no number"),
        (lambda: search.int(1, 2.5), "2.5 is no whole number"),
        (lambda: search.categorical([]), "at least one option"),
        (lambda: search.categorical("abc"), "needs a list"),
        (lambda: 2 * search.int(8, 32), "'expr': '2 * lora.r'"),
        (lambda: -search.double(0, 1), "is a range, which has no value yet"),
    ],
)
def test_wrong_range_is_one_line(make, said: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_range_prints_as_its_call() -> None:
    assert repr(search.double(1e-5, 5e-5, log=True)) == "search.double(min=1e-05, max=5e-05, log=True)"
    assert json.dumps(search.int(8, 32)) == "20"


def test_replaced_range_is_noted_on_holder() -> None:
    from peft import LoraConfig
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        optim=search.categorical(["adamw_torch", "sgd"]),
        lr_scheduler_type=search.categorical(["cosine", "linear"]),
    )
    held = held_ranges(arguments)
    assert {name: one.study_value for name, one in held.items()} == {
        "optim": {"choice": ["adamw_torch", "sgd"]},
        "lr_scheduler_type": {"choice": ["cosine", "linear"]},
    }
    lora = LoraConfig(target_modules=search.categorical([["q_proj", "v_proj"], "all-linear"]))
    assert lora.target_modules == {"q_proj", "v_proj"}
    assert held_ranges(lora)["target_modules"].study_value == {"choice": [["q_proj", "v_proj"], "all-linear"]}


def test_search_loads_nothing_heavy() -> None:
    code = (
        "import sys; import hpotune; hpotune.search.double(0, 1); "
        "print({m.split('.')[0] for m in sys.modules} & {'torch', 'optuna', 'numpy', 'pydantic', 'yaml'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
