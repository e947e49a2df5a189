"""Commands of Slurm that say what a test wants."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a command, the only ones on PATH, and counts how often each is called."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", str(bin_))

    def made(name: str, says: str = "", *, code: int = 0) -> None:
        (bin_ / f"{name}.says").write_text(says)
        out = ">&2" if code else ""
        script = f"#!/bin/sh\necho x >> {bin_}/{name}.calls\n/bin/cat {bin_}/{name}.says {out}\nexit {code}\n"
        (bin_ / name).write_text(script)
        (bin_ / name).chmod(0o755)

    def calls(name: str) -> int:
        log = bin_ / f"{name}.calls"
        return len(log.read_text().split()) if log.exists() else 0

    made.calls = calls
    return made


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A machine on which no command of Slurm is found; the shell is."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("sh", "env", "git"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{folder}")
