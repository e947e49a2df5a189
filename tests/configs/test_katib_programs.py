"""The shipped Katib programs write the studies that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import load_study
from tests.fixtures.katib_rows import value_at

PROGRAMS = Path(__file__).parents[2] / "configs" / "katib"


def written(name: str, client: str, rest: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Run a program up to the line that waits, with a client that only writes the study file."""
    text = (PROGRAMS / name).read_text()
    assert client in text
    assert rest in text
    monkeypatch.chdir(folder)
    started = text.partition(rest)[0].replace(
        client, client.replace("()", "(where=None)").replace('")', '", where=None)')
    )
    exec(compile(started, name, "exec"), {})


def test_llama_program_is_a_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written("llama_imdb.py", 'KatibClient(namespace="kubeflow")', "cl.wait_for", monkeypatch, tmp_path)
    study = load_study(tmp_path / "kubeflow" / "llama.yaml")
    wanted = {
        "model.path": "meta-llama/Llama-3.2-1B", "model.task": "sequence_classification",
        "data.path": "imdb", "data.split": "train[:1000]", "data.prompt": "text",
        "train.learning_rate": {"float": [1e-05, 5e-05]}, "lora.r": {"int": [8, 32]}, "lora.lora_alpha": None,
        "lora.lora_dropout": 0.1, "lora.target_modules": None,
        "search.algorithm": "random", "budget.trials": 11, "budget.parallel": 2,
        "resources.nodes": 2, "resources.processes": 2, "resources.gpus": 2, "resources.cpus": 4,
        "resources.mem": "9537M",
    }  # fmt: skip
    assert {key: value_at(study, key) for key in wanted} == wanted
    assert value_at(study, "score.objective.0.metric") == "train_loss"


def test_bert_program_is_a_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written("bert_yelp.py", "TrainingClient()", "job = ", monkeypatch, tmp_path)
    study = load_study(tmp_path / "fine-tune-bert.yaml")
    assert not study.space.ranges
    assert [value_at(study, key) for key in ("resources.nodes", "resources.processes", "budget.trials")] == [
        4,
        2,
        1,
    ]
    assert value_at(study, "data.split") == "train[:3000]"
