"""`resources.gpus: auto`: one GPU where the largest trial fits on one, more where it does not, and the number stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpotune.checks.auto_gpus import _numbers, with_decided_number
from hpotune.checks.doctor import _config
from hpotune.checks.study_file import check
from hpotune.config.load import load_study
from hpotune.errors import StudyFileError
from hpotune.workspace.folder import folder_of, make_folder
from tests.config.memory.conftest import LLAMA_3B

LLAMA_12B = LLAMA_3B | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 48}
LLAMA_12B |= {"num_attention_heads": 32, "tie_word_embeddings": False}


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
    [
        ("a100:auto", LLAMA_3B, "a100:1"),
        ("3090:auto", LLAMA_3B, "3090:1"),
        ("3090:auto", LLAMA_12B, "3090:2"),
    ],
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
    undecided = load_study(write({"gpus": "a100:auto"}))
    assert undecided.config.resources.gpus_per_node == 1
    stored = checked.folder.read_resolved().values
    assert with_decided_number(undecided, stored).config.resources.gpus_per_node == 4
    assert with_decided_number(undecided, None) is undecided


NODES = "gpu*|7-00:00:00|gpu:3090:{count}|idle|3|up\nbig|7-00:00:00|gpu:3090:8|idle|1|up\n"


@pytest.mark.parametrize(("count", "number"), [(8, "3090:2"), (3, "3090:2"), (1, None)])
def test_node_limits_the_number(write, fake, count: int, number: str | None) -> None:
    fake("sinfo", NODES.format(count=count))
    file = write({"gpus": "3090:auto"}, train={"global_batch_size": 16}, model=LLAMA_12B)
    if number is None:
        with pytest.raises(
            StudyFileError, match="1 GPUs, all that a node of the partition has.*more resources.nodes"
        ):
            check(file)
    else:
        assert check(file).study.config.resources.gpus == number


def test_whole_node_is_tried() -> None:
    assert list(_numbers(6)) == [1, 2, 4, 6]
    assert list(_numbers(None)) == [1, 2, 4, 8]


def test_doctor_counts_decided_gpus(write, fake) -> None:
    file = write({"gpus": "3090:auto"}, train={"global_batch_size": 16}, model=LLAMA_12B)
    found = _config(file, folder_of(file))
    assert found is not None
    assert found.resources.gpus == "3090:2"


@pytest.mark.parametrize(
    ("resources", "train", "model", "advice"),
    [
        ({"gpus": "auto"}, {}, LLAMA_3B, "resources.gpu_memory_gb"),
        ({"gpus": "mystery:auto"}, {}, LLAMA_3B, "resources.gpu_memory_gb"),
        ({"gpus": "a100:auto", "processes": 2}, {}, LLAMA_3B, "remove processes"),
        ({"gpus": "3090:auto"}, {}, LLAMA_12B, "train.global_batch_size"),
        ({"gpus": "a100:auto"}, {}, {"model_type": "mamba"}, "write a number"),
        ({"gpus": "1g.10gb:auto"}, {"global_batch_size": 16}, LLAMA_12B, "lower data.max_length"),
    ],
)
def test_unknown_numbers_are_refused(write, resources, train, model, advice) -> None:
    with pytest.raises(StudyFileError, match=rf"s\.yaml:\d+: resources\.gpus=.*{advice}"):
        check(write(resources, train=train, model=model))
