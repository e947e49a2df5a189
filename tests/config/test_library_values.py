"""Fields of the libraries, read from their source or from the recorded list."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hpotune.config import library_values
from hpotune.config.library_values import field_types, named_values, type_error, value_error

RECORDED = json.loads(library_values._RECORDED.read_text(encoding="utf-8"))


def test_recorded_list_equals_recorded_versions():
    """Read in a process of its own, since reading the source anew empties the caches."""
    read = "from hpotune.config.library_values import installed_fields as read"
    code = f"import json; {read}; print(json.dumps(read()))"
    found = json.loads(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )
    assert found["versions"] != RECORDED["versions"] or found == RECORDED


@pytest.mark.parametrize("name", ["lora", "train"])
def test_recorded_fields_match_installed_library(name):
    pytest.importorskip("peft" if name == "lora" else "transformers")
    assert RECORDED[name].keys() <= field_types(name).keys()


def test_recorded_values_match_installed_library():
    transformers = pytest.importorskip("transformers")
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert transformers
    assert set(RECORDED["optim"]) <= {item.value for item in OptimizerNames}
    assert set(RECORDED["lr_scheduler_type"]) <= {item.value for item in SchedulerType}
    assert set(named_values("optim")) < {item.value for item in OptimizerNames}


def test_recorded_list_replaces_missing_libraries(monkeypatch):
    monkeypatch.setattr(library_values.importlib.util, "find_spec", lambda name: None)
    assert library_values.field_types.__wrapped__("lora")["r"] == "int"
    assert "cosine" in library_values.named_values.__wrapped__("lr_scheduler_type")


@pytest.mark.parametrize(
    ("value", "annotation", "says"),
    [
        (8, "int", None), (8.0, "int", "is a number; needs a whole number"), (True, "int", "is true/false"),
        ("8", "int", "is text"), (8, "float", None), (1e-4, "float", None), (None, "float", "is null; needs a number"),
        (None, "float | None", None), (None, "Optional[int]", None), ("a", "Union[list[str], str]", None),
        (["a"], "Optional[Union[list[str], str]]", None),
        (3, "Optional[Union[list[str], str]]", "needs a list or text or null"),
        ("all", "Literal['none', 'all']", None), ("al", "Literal['none', 'all']", "needs none | all"),
        (True, "bool | Literal['gaussian']", None), ({"a": 1}, "dict[str, Any] | str | None", None),
        ("cosine", "SchedulerType | str", None), ({"bits": 4}, "Union[LoftQConfig, dict]", None),
        ([1, 2], "int", "for a choice write {choice: [...]}"), (0, "bool", "is a whole number; needs true or false"),
        ("pissa_niter_4", "Literal['pissa', 'pissa_niter_[number of iters]']", None),
        ("pisa", "Literal['pissa', 'pissa_niter_[number of iters]']", "is text"),
    ],
)  # fmt: skip
def test_value_is_checked_by_annotation(value, annotation, says):
    error = type_error(value, annotation)
    assert error is None if says is None else error is not None and says in error


@pytest.mark.parametrize(
    ("section", "name", "good", "bad"),
    [
        ("lora", "r", 1, 0), ("lora", "lora_alpha", 1, -1), ("lora", "lora_dropout", 0.0, 1.0),
        ("train", "learning_rate", 1e-9, 0.0), ("train", "max_steps", -1, 0), ("train", "adam_beta2", 0.999, 1.0),
        ("train", "warmup_steps", 0.1, -1), ("train", "sgd_momentum", 0.0, 1.5), ("train", "global_batch_size", 1, 0),
        ("train", "optim", "adamw_torch", "adam"), ("train", "lr_scheduler_type", "cosine", "greedy"),
    ],
)  # fmt: skip
def test_limits_hold_at_their_edge(section, name, good, bad):
    assert value_error(section, name, good) is None
    assert value_error(section, name, bad) is not None
