"""Commit and changes of a study's folder, with a real git repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hpotune.config.text.secret_text import LONGEST
from hpotune.workspace.origin.git_state import git_commit, git_state, shown_diff
from hpotune.workspace.provenance import read_provenance, write_provenance

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF"


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "-C", str(folder), *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one file, lab/train.py."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "train.py").write_text("lr = 1\n")
    (tmp_path / "other.py").write_text("a\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_no_repository_has_no_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    assert git_commit(tmp_path / "missing") is None


def test_clean_folder_has_no_diff(repository: Path) -> None:
    state = git_state(repository / "lab")
    assert state is not None
    assert (len(state.commit), state.diff, state.untracked) == (40, "", ())


def test_changes_of_the_folder_only(repository: Path) -> None:
    (repository / "lab" / "train.py").write_text("lr = 2\n")
    (repository / "lab" / "new é.py").write_text("")
    (repository / "other.py").write_text("b\n")
    (repository / "lab" / "study").mkdir()
    (repository / "lab" / "study" / "x").write_text("")
    state = git_state(repository / "lab", without=repository / "lab" / "study")
    assert state is not None
    assert "+lr = 2" in state.diff
    assert "other.py" not in state.diff
    assert state.untracked == ("new é.py",)


def test_repository_runs_nothing_of_its_own(repository: Path) -> None:
    mark = repository / "mark"
    (repository / "lab" / "train.py").write_text("lr = 2\n")
    program = repository / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py diff=own\n")
    for key in ("core.fsmonitor", "diff.external", "diff.own.textconv", "diff.own.command"):
        git(repository, "config", key, str(program))
    state = git_state(repository)
    assert state is not None
    assert "+lr = 2" in state.diff
    assert not mark.exists()


def test_secrets_in_diff_are_masked(repository: Path) -> None:
    (repository / "lab" / "train.py").write_text(f"login('{TOKEN}')\nHF_TOKEN=abc12345secret\n")
    state = git_state(repository)
    assert state is not None
    assert "login(" in state.diff
    assert TOKEN not in state.diff
    assert "abc12345secret" not in state.diff


def test_long_diffs_are_named_only() -> None:
    long = f"diff --git a/x b/x\n{'+' + 'y' * 99 + chr(10)}" * 1 + "+z\n" * LONGEST
    short = "diff --git a/u b/u\n+v\n"
    shown = shown_diff(long + short)
    assert f"({len(long)} characters, left out)" in shown
    assert shown.endswith(short)
    assert len(shown_diff(short * 40_000)) < 500_000


def test_study_records_commit_and_diff(repository: Path) -> None:
    lab = repository / "lab"
    (lab / "train.py").write_text("lr = 3\n")
    (lab / "study").mkdir()
    file = lab / "study" / "provenance.json"
    write_provenance(file, home=lab, store="sqlite:///x")
    found = read_provenance(file)
    assert found.changed is True
    assert found.commit == git_commit(lab)
    assert "+lr = 3" in (lab / "study" / "git.diff").read_text()
    recorded = json.loads(file.read_text())
    for key in ("changed", "untracked", "own_commit"):
        del recorded[key]
    file.write_text(json.dumps(recorded))  # as earlier versions wrote it
    assert (read_provenance(file).changed, read_provenance(file).untracked) == (None, ())
