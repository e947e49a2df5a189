"""The text of a drafted study: every value reads back, every key says its argument."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.api.katib.study_draft import StudyDraft
from hpotune.config.yaml_source import parse_source
from hpotune.errors import StudyFileError

ODD = ["", "1e-5", "yes", "null", "a: b # c", 'ä\n"x"', "it's", "{x}", "-", "0x10", " ", "@", "train[:10]"]


@pytest.mark.parametrize(
    "value", [*ODD, 1e-5, 1.0, 3, True, None, [], {}, ["a", [1, 2.5]], {"a": {"b": None}}]
)
def test_values_read_back(value) -> None:
    draft = StudyDraft()
    draft.put("name", "s", "name")
    draft.put("params.x", value, "parameters['x']")
    draft.put("params.y", [value], "a long argument " * 10)
    text = draft.text(title="title")
    assert parse_source(text, path=Path("s.yaml")).values == draft.values
    assert text.startswith("# title\n")
    assert "name: s  # name\n" in text
    assert "# parameters['x']" in text


def test_merge_keeps_other_keys() -> None:
    draft = StudyDraft()
    draft.put("train.learning_rate", {"float": [0.1, 0.2]}, "a")
    draft.put("train.lr_scheduler_kwargs", {"num_cycles": 1, "min_lr": 0.1}, "b")
    draft.merge(
        {
            "train": {"learning_rate": {"choice": [1, 2]}, "lr_scheduler_kwargs": {"num_cycles": 2}},
            "store": "journal",
        },
        "study",
    )
    assert draft.values == {
        "train": {
            "learning_rate": {"choice": [1, 2]},
            "lr_scheduler_kwargs": {"num_cycles": 2, "min_lr": 0.1},
        },
        "store": "journal",
    }
    assert draft.sources["train.learning_rate"] == "study"


def test_merge_refuses_what_yaml_lacks() -> None:
    with pytest.raises(StudyFileError, match="study: cannot be written as YAML"):
        StudyDraft().merge({"params": {"x": object()}}, "study")  # type: ignore[dict-item]
