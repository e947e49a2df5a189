"""`resources.gpus: auto`: one GPU where the largest trial fits on one, more where it does not, and the number stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpotune.checks.study_file import check
from hpotune.errors import StudyFileError
from hpotune.workspace.folder import make_folder
from tests.config.memory.conftest import LLAMA_3B

LLAMA_8B = LLAMA_3B | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
LLAMA_8B |= {"num_attention_heads": 32, "tie_word_embeddings": False}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a study with these resources; `train` and `model` replace keys."""
    monkeypatch.setenv("HPOTUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n' * 40)

    def written(resources: dict, *, train: dict | None = None, model: dict = LLAMA_3B) -> Path:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "config.json").write_text(json.dumps(model))
        values = {
            "name": "s",
            "model": {"path": "model"},
            "data": {"path": "rows.jsonl", "validation": 0.5},
            "lora": {"r": {"int": [4, 64]}},
            "train": {
                "learning_rate": 1e-4,
                "per_device_train_batch_size": 8,
                "activation_checkpointing": "auto",
            }
            | (train or {}),
            "score": {"objective": {"metric": "eval_loss"}, "record": []},
            "budget": {"trials": 2},
            "resources": resources,
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "s.yaml"

    return written


@pytest.mark.parametrize(
    ("gpus", "model", "number"),
    [("a100:auto", LLAMA_3B, "a100:1"), ("3090:auto", LLAMA_3B, "3090:1"), ("3090:auto", LLAMA_8B, "3090:2")],
)
def test_fewest_gpus_are_taken(write, gpus: str, model: dict, number: str) -> None:
    file = write({"gpus": gpus}, train={"global_batch_size": 16}, model=model)
    checked = check(file)
    assert checked.study.config.resources.gpus == number
    assert "the largest trial needs about" in checked.notes[0]
    given = check(write({"gpus": "auto", "gpu_memory_gb": 80}, train={"global_batch_size": 16}))
    assert given.study.config.resources.gpus == 1


def test_number_stays_within_a_study(write) -> None:
    checked = check(write({"gpus": "a100:auto"}))
    values = checked.study.source.values
    values["resources"]["gpus"] = "a100:4"  # type: ignore[index, call-overload]
    make_folder(checked.folder, checked.study.source, home=checked.home, store_url="sqlite:///x")
    assert check(write({"gpus": "a100:auto"})).study.config.resources.gpus == "a100:4"


@pytest.mark.parametrize(
    ("resources", "train", "model", "advice"),
    [
        ({"gpus": "auto"}, {}, LLAMA_3B, "resources.gpu_memory_gb"),
        ({"gpus": "mystery:auto"}, {}, LLAMA_3B, "resources.gpu_memory_gb"),
        ({"gpus": "a100:auto", "processes": 2}, {}, LLAMA_3B, "remove processes"),
        ({"gpus": "3090:auto"}, {}, LLAMA_8B, "train.global_batch_size"),
        ({"gpus": "a100:auto"}, {}, {"model_type": "mamba"}, "write a number"),
        ({"gpus": "1g.10gb:auto"}, {"global_batch_size": 16}, LLAMA_8B, "lower data.max_length"),
    ],
)
def test_unknown_numbers_are_refused(write, resources, train, model, advice) -> None:
    with pytest.raises(StudyFileError, match=rf"s\.yaml:\d+: resources\.gpus=.*{advice}"):
        check(write(resources, train=train, model=model))
