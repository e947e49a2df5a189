"""Secrets in a study's environment and file are in no file, log, store or process list of it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.planted_secrets import SECRETS

PROGRAM = """\
import os, subprocess
def loss(x):
    listed = subprocess.run(["ps", "-eo", "args", "ww"], capture_output=True, text=True).stdout
    open(os.environ["LISTING"], "a").write(listed)
    return x
"""
STUDY = """\
name: planted
OBJECTIVE
params: {x: {float: [0, 1]}}
score: {objective: {metric: loss}}
budget: {trials: 2}
store: sqlite
"""
OBJECTIVES = {"function": "python: own.py:loss", "command": "command: ps -eo args ww >> $LISTING; echo {x}"}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    secrets = {f"PLANTED_{i}_TOKEN": secret.text for i, secret in enumerate(SECRETS)}
    env = os.environ | secrets | {"LISTING": str(folder.parent / "listing")}
    command = [sys.executable, "-m", "hpotune", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def written(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_environment_secrets_are_not_written(tmp_path, objective):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "own.py").write_text(PROGRAM)
    (folder / "study.yaml").write_text(STUDY.replace("OBJECTIVE", OBJECTIVES[objective]))
    done = run(folder, "run", "study.yaml")
    assert done.returncode == 0, done.stderr
    found = written(tmp_path) + (done.stdout + done.stderr).encode()
    assert b"hpotune" in (tmp_path / "listing").read_bytes()
    assert [secret.name for secret in SECRETS if secret.core.encode() in found] == []


def test_refused_secrets_leave_nothing(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    text = STUDY.replace("OBJECTIVE", OBJECTIVES["command"])
    text += "env:\n  setup:\n" + "".join(
        f"    - {secret.text!r}\n" for secret in SECRETS if "\n" not in secret.text
    )
    (folder / "study.yaml").write_text(text)
    done = run(folder, "run", "study.yaml")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == len(SECRETS) - 1
    assert [secret.name for secret in SECRETS if secret.core in done.stdout + done.stderr] == []
    assert [path.name for path in folder.iterdir()] == ["study.yaml"]
