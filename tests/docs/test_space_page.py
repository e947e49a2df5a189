"""The examples of docs/space.md are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpotune.config.load import build_study
from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import parse_source

PAGE = (Path(__file__).parents[2] / "docs" / "space.md").read_text(encoding="utf-8")
STUDY = {
    "name": "name: s\n",
    "model": "model: {path: some/model}\n",
    "data": "data: {path: some/data}\n",
    "lora": "lora: {r: {int: [4, 64]}}\n",
    "train": (
        "train: {learning_rate: {float: [1.0e-5, 1.0e-2]}, per_device_train_batch_size: {int: [1, 8]}, "
        "optim: {choice: [sgd, adamw_torch]}}\n"
    ),
    "score": "score: {objective: {metric: eval_loss}}\n",
    "budget": "budget: {trials: 9}\n",
}
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_its_examples():
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_valid(example):
    own = set(re.findall(r"^(\w+):", example, re.MULTILINE))
    text = "".join(line for key, line in STUDY.items() if key not in own) + example
    study = build_study(parse_source(text, path=Path("s.yaml")))
    assert own <= study.source.values.keys()


def test_every_form_is_a_range():
    forms = re.findall(r"^\| `(\{.*?\})`", PAGE, re.MULTILINE)
    kinds = [range_kind(parse_source(f"x: {form}", path=Path("s.yaml")).values["x"]) for form in forms]
    assert kinds == ["float", "int", "normal", "lognormal", "choice", "choice", "expr"]
