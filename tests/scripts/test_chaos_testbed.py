"""The test bed of scripts/chaos starts a controller that crashed by itself, and none that a fault will start."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "chaos"


@dataclass
class Cluster:
    """A cluster whose controller answers while it runs; it runs once it is started."""

    runs: bool = True
    conf: Path = Path("/slurm.conf")
    asked: list[str] = field(default_factory=list)

    def processes(self) -> dict[int, str]:
        return {7: "slurmctld"} if self.runs else {}

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(command[0])
        self.runs |= command[0] == "slurmctld"
        words = ("answer", "") if self.runs else ("", "Unable to contact slurm controller")
        return subprocess.CompletedProcess(command, 0 if self.runs else 1, *words)


@pytest.fixture
def testbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delitem(sys.modules, "testbed", raising=False)
    module = importlib.import_module("testbed")
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    yield module
    sys.modules.pop("testbed")  # others may have a module of this name


def test_crashed_controller_is_started(testbed: ModuleType) -> None:
    cluster = Cluster(runs=False)
    bed = testbed.Testbed(folder=Path("/x"), cluster=cluster, env={}, heard=5.0)
    assert bed.slurm("squeue") == "answer"
    assert cluster.asked == ["squeue", "slurmctld", "squeue"]
    assert [heard for heard, _ in bed.crashes] == [5.0]


def test_fault_starts_its_own_controller(testbed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(runs=False)
    bed = testbed.Testbed(folder=Path("/x"), cluster=cluster, env={})
    monkeypatch.setattr(testbed, "PATIENCE_S", -1)
    with bed.lock("slurmctld"):
        bed.revive()
        assert bed.slurm("squeue") == ""
    assert (cluster.asked, bed.crashes) == (["squeue"], [])
