"""The shape of a base model from its config.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpotune.config.memory.model_shape import UnknownMemory, config_file, read_shape, shape_of_config
from tests.config.memory.conftest import LLAMA_3B


def test_published_parameters_are_counted() -> None:
    assert shape_of_config(LLAMA_3B).parameters == 3_212_749_824  # the card of Llama-3.2-3B: 3.21B


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "mamba"}, "model type is mamba"),
        ({"hidden_size": None}, "no hidden_size"),
        ({"num_hidden_layers": "28"}, "no num_hidden_layers"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
    ],
)
def test_other_configs_are_not_estimated(change: dict, reason: str) -> None:
    with pytest.raises(UnknownMemory, match=reason):
        shape_of_config(LLAMA_3B | change)


def test_models_are_found_without_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HPOTUNE_CACHE", str(tmp_path / "own"))
    cached = tmp_path / "hub" / "models--meta--x"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc" / "config.json").write_text(json.dumps(LLAMA_3B))
    assert read_shape("meta/x", revision=None).hidden == 3072
    assert config_file("package:p/m.gguf", revision=None) is None
    with pytest.raises(UnknownMemory, match="not on this machine"):
        read_shape("meta/other", revision=None)
