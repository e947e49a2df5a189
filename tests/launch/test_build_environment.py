"""`hpotune env create`: packages from a local index, locked with hashes, used by trials; nothing half-made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.package_index import PackageIndex

STUDY = """
name: own
python: own.py:score
params: {{x: {{float: [0, 1]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
budget: {{trials: 1}}
env: {{packages_to_install: ["{package}"], pip_index_url: "{url}"}}
"""
OWN = "import greetlib, numpy\n\ndef score(x):\n    return greetlib.number()\n"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PackageIndex]:
    """greetlib 1.0, which needs greetbase, and 2.0."""
    index = PackageIndex(tmp_path / "index")
    index.publish("greetbase", "0.1", "VALUE = 40.625\n")
    code = "import greetbase\n\ndef number():\n    return greetbase.VALUE + 2\n"
    index.publish("greetlib", "1.0", code, requires="greetbase")
    yield index
    index.stop()


def hpotune(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpotune", *map(str, words)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**env, "PIP_CONFIG_FILE": os.devnull}
    )


def write_study(folder: Path, url: str, package: str = "greetlib>=1") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(OWN)
    (folder / "study.yaml").write_text(STUDY.format(url=url, package=package))
    return folder / "study.yaml"


def left(home: Path) -> set[str]:
    """Environments, without lock files."""
    return {one.name for one in home.glob("own.env/*") if one.is_dir()}


def test_trials_use_the_environment(index: PackageIndex, tmp_path: Path) -> None:
    file = write_study(tmp_path / "home", index.url)
    early = hpotune("check", file, "--static")
    assert (early.returncode, early.stderr) == (
        2,
        f"error: {file.name}:7: env.packages_to_install: is not installed yet; run `hpotune env create STUDY` on the "
        "login node\n",
    )
    made = hpotune("env", "create", file)
    assert made.returncode == 0, made.stderr
    assert [line.split() for line in made.stdout.splitlines()[:2]] == [
        ["greetbase", "0.1"],
        ["greetlib", "1.0"],
    ]
    lock = json.loads((file.parent / "own.env.lock.json").read_text())
    wheel = index.folder / "simple/greetlib/greetlib-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert lock["packages"][1] == {"name": "greetlib", "version": "1.0", "sha256": digest}
    ran = hpotune("run", file, "--json")
    assert ran.returncode == 0, ran.stderr
    assert "42.625" in ran.stdout
    index.requests.clear()
    again = hpotune("env", "create", file)
    assert (again.returncode, index.requests) == (0, [])
    assert "unchanged: " in again.stdout


def test_lock_file_gives_the_same_versions(index: PackageIndex, tmp_path: Path) -> None:
    file = write_study(tmp_path / "home", index.url)
    assert hpotune("env", "create", file).returncode == 0
    shutil.rmtree(file.parent / "own.env")
    index.publish("greetlib", "2.0", "def number():\n    return 0\n")
    made = json.loads(hpotune("env", "create", file, "--json").stdout)
    assert [one["version"] for one in made["packages"]] == ["0.1", "1.0"]
    shutil.rmtree(file.parent / "own.env")
    index.publish("greetlib", "1.0", "def number():\n    return -1\n")  # another file of the same name
    refused = hpotune("env", "create", file)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(
        "error: env.packages_to_install: pip installed nothing: "
    )
    assert left(file.parent) == set()


def test_missing_package_is_one_line(index: PackageIndex, tmp_path: Path) -> None:
    file = write_study(tmp_path / "home", index.url, package="no-such-pkg")
    failed = hpotune("env", "create", file)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "error: env.packages_to_install: pip installed nothing: No matching distribution found for no-such-pkg"
    )
    assert left(file.parent) == set()
    assert not (file.parent / "own.env.lock.json").exists()


def test_killed_build_is_not_used(index: PackageIndex, tmp_path: Path) -> None:
    file = write_study(tmp_path / "home", index.url)
    process = subprocess.Popen([sys.executable, "-m", "hpotune", "env", "create", str(file)])
    while not left(file.parent):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(left(file.parent)) == 1
    assert hpotune("check", file, "--static").returncode == 2
    made = hpotune("env", "create", file)
    assert made.returncode == 0, made.stderr
    assert hpotune("check", file, "--static").returncode == 0


def test_study_without_packages_is_an_error(tmp_path: Path) -> None:
    file = write_study(tmp_path / "home", "https://index.example/simple")
    file.write_text(file.read_text().partition("env:")[0])
    done = hpotune("env", "create", file)
    assert (done.returncode, "has no env.packages_to_install" in done.stderr) == (2, True)
