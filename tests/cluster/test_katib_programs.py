"""The two programs of Kubeflow's pages on Slurm, two nodes with two ranks each: they print the best hyperparameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpotune.config.load import load_study
from tests.fixtures.katib_programs import bert_program, llama_program

pytestmark = pytest.mark.slurm


def run(program: str, folder: Path) -> str:
    """What a program prints, run in a folder."""
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def world_size(trial: Path) -> int:
    import json

    return int(json.loads((trial / "result.json").read_text())["metrics"]["world_size"])


def test_llama_program_prints_best_hyperparameters(slurm_cluster: Path, tmp_path: Path) -> None:
    printed = run(llama_program(tmp_path), tmp_path)
    assert "learning_rate" in printed
    assert "'name': 'r'" in printed
    assert "train_loss" in printed
    study = load_study(tmp_path / "kubeflow" / "llama.yaml")
    assert {r.name for r in study.space.searched} == {"train.learning_rate", "lora.r"}
    trials = tmp_path / "kubeflow" / "llama" / "trials"
    assert [world_size(trials / number) for number in ("0", "1", "2")] == [4, 4, 4]


def test_bert_program_trains_once(slurm_cluster: Path, tmp_path: Path) -> None:
    printed = run(bert_program(tmp_path), tmp_path)
    assert "'best_trial_name': 'fine-tune-bert-0'" in printed
    trial = tmp_path / "fine-tune-bert" / "trials" / "0"
    assert world_size(trial) == 4
    assert (trial / "adapter" / "adapter_model.safetensors").is_file()
