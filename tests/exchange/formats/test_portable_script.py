"""The exported program: it runs without hpotune and has the trial's losses to the last digits."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hpotune.exchange.setting_export import export_setting
from tests.exchange.conftest import Tuned


@pytest.fixture(scope="module")
def exported(tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program and the rows."""
    out = tmp_path_factory.mktemp("script") / "out"
    return export_setting(tuned.folder, tuned.study, tuned.rows, out=out, number=None, form="script").file


def test_program_gives_the_losses(tuned: Tuned, exported: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", exported.name]
        if sys.version_info >= (3, 11)
        else [sys.executable, exported.name],
        **{"cwd": exported.parent, "env": env, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout.splitlines()[-1])
    measured = tuned.rows[0].metrics
    for name in ("train_loss", "eval_loss"):  # float64: sums in the same order
        assert losses[name] == pytest.approx(measured[name], rel=1e-12)
    kept = load_file(tuned.folder.trial(1) / "adapter" / "adapter_model.safetensors")
    again = load_file(exported.parent / "adapter" / "adapter_model.safetensors")
    assert max(float((kept[name] - again[name]).abs().max()) for name in kept) < 1e-12


def test_program_imports_no_hpotune(exported: Path) -> None:
    tree = ast.parse(exported.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in nodes
    }
    assert names == {"json", "math", "numpy", "torch", "transformers", "peft"}
