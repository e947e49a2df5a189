"""A class of thirty students: copies of two studies that were really run, damaged ones among them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FUNCTION = """
def f(rate, layers):
    if layers == 3:
        raise ValueError("three layers are not supported")
    loss = (rate - 0.3) ** 2 + 0.01 * layers
    return {"loss": loss, "loss_stderr": 0.01}
"""
STUDY = """\
name: {name}
python: own.py:f
params: {{rate: {{float: [0.0, 1.0]}}, layers: {{int: [1, {layers}]}}}}
score: {{objective: {{metric: loss, direction: minimize}}}}
search: {{algorithm: random, seed: {seed}}}
budget: {{trials: 4, parallel: 1}}
store: sqlite
"""
MARKUP = "s30 <img src=x onerror=alert(1)>"
"""The name of a student's folder."""


def hpotune(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of hpotune, as a user calls it."""
    command = [sys.executable, "-m", "hpotune", *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )


@pytest.fixture(scope="session")
def two_studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A student's folder with a study that went well, and one with a study whose trials failed at times."""
    found = []
    for name, layers, seed in (("well", 2, 1), ("failing", 4, 3)):
        home = tmp_path_factory.mktemp(name)
        (home / "own.py").write_text(FUNCTION)
        (home / "study.yaml").write_text(STUDY.format(name=name, layers=layers, seed=seed))
        done = hpotune("run", "study.yaml", cwd=home)
        assert (home / name / "store.db").is_file(), done.stderr
        found.append(home)
    return found


@pytest.fixture(scope="session")
def class_folder(two_studies: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty students, six of them with a damaged study or none."""
    folder = tmp_path_factory.mktemp("class")
    for number in range(1, 31):
        name = MARKUP if number == 30 else f"s{number:02}"
        shutil.copytree(two_studies[number % 5 == 0], folder / name)
    (folder / "s01/well/store.db").write_bytes(b"no database" * 100)
    (folder / "s02/well/resolved.yaml").write_text("name: [unclosed\\n")
    (folder / "s03/well/provenance.json").unlink()
    (folder / "s04/well/store.db").unlink()
    shutil.rmtree(folder / "s06/well")
    shutil.rmtree(folder / "s07")
    (folder / "s07").mkdir()
    (folder / "a note.txt").write_text("not a student")
    return folder
