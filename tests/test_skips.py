"""Which skipped tests scripts/test counts as failures: those of Slurm and PostgreSQL, not those of real datasets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """\
import pytest

@pytest.fixture(scope="session")
def service():
    pytest.skip("the service is not installed")

@pytest.mark.slurm
def test_slurm(service): ...

@pytest.mark.postgres
def test_postgres(service): ...

@pytest.mark.mounts
def test_mounts(service): ...

@pytest.mark.slurm
def test_slurm_and_data(real_data): ...

@pytest.mark.slurm
def test_slurm_and_data_again(real_data): ...

@pytest.mark.slurm
def test_data_and_missing_slurm(service, real_data): ...

def test_data(real_data): ...

def test_other():
    pytest.skip("another reason")
"""
FAILED = {"test_slurm", "test_postgres", "test_mounts", "test_data_and_missing_slurm"}
SKIPPED = {"test_slurm_and_data", "test_slurm_and_data_again", "test_data", "test_other"}


@pytest.mark.parametrize("forbidden", [True, False])
def test_missing_service_is_a_failure(forbidden: bool, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    env = {name: value for name, value in os.environ.items() if name != "HPOTUNE_NO_SKIP"}
    env |= {"HPOTUNE_TEST_DATA": str(tmp_path / "none"), "PYTHONPATH": str(ROOT)}
    if forbidden:
        env["HPOTUNE_NO_SKIP"] = "1"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    command += ["-c", str(ROOT / "pyproject.toml"), "test_some.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    ends = dict(
        line.partition("::")[2].split()[:2]
        for line in done.stdout.splitlines()
        if line.startswith("test_some.py::") and "%]" in line
    )
    names = {
        end: {name for name, found in ends.items() if found == end} for end in ("SKIPPED", "FAILED", "ERROR")
    }
    assert names["FAILED"] | names["ERROR"] == (FAILED if forbidden else set()), done.stdout
    assert names["SKIPPED"] == (SKIPPED if forbidden else SKIPPED | FAILED)
    assert f"no datasets in {tmp_path / 'none'}; set HPOTUNE_TEST_DATA" in done.stdout
