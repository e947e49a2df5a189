"""`hpotune lab`: its verbs, their JSON and exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.fixtures.hub_study import hpotune

ENV = dict(os.environ)


def test_handout_is_prepared_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "ann"
    done = hpotune("lab", "prepare", "1", "--folder", str(folder), env=ENV)
    assert "Job arrays and random search: wrote README.md" in done.stdout
    checked = hpotune("lab", "check", str(folder), env=ENV)
    assert checked.returncode == 0
    assert "no study was started; study files: grid.yaml" in checked.stdout
    [found] = json.loads(hpotune("lab", "check", str(folder), "--json", env=ENV).stdout)
    assert list(found) == ["student", "study", "folder", "hints"]
    assert found["student"] == "ann"
    page = tmp_path / "class.html"
    shown = hpotune("lab", "overview", str(tmp_path), "-o", str(page), "--json", env=ENV)
    assert [row["state"] for row in json.loads(shown.stdout)["rows"]] == ["not run"]
    assert page.read_text().startswith("<!doctype html>")


def test_handouts_are_listed_as_json() -> None:
    [first, *_] = json.loads(hpotune("lab", "prepare", "--json", env=ENV).stdout)
    assert list(first) == ["number", "title", "minutes", "needs_slurm", "files"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("prepare", "99"), 2, "handout 99: there is none"),
        (("check", "nowhere"), 2, "nowhere: is not there"),
        (("overview", "nowhere", "elsewhere"), 2, "nowhere, elsewhere: no such folder; give folders of"),
        (("overview",), 2, "Missing argument"),
        (("sart",), 2, "No such command"),
    ],
)
def test_mistake_is_one_line(words: tuple[str, ...], code: int, said: str) -> None:
    done = hpotune("lab", *words, env=ENV)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_real_slurm_is_used(tmp_path: Path) -> None:
    (tmp_path / "sinfo").write_text("#!/bin/sh\nprintf 'main*\\nlong\\n'\n")
    (tmp_path / "sinfo").chmod(0o755)
    env = {key: word for key, word in ENV.items() if key != "SLURM_CONF"}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    done = hpotune("lab", "start", env=env)
    assert done.stdout.strip() == (
        "a Slurm answers here already (partitions main*, long): nothing was started, use it"
    )
    found = json.loads(hpotune("lab", "start", "--json", env=env).stdout)
    assert found == {"slurm": "real", "started": False, "partitions": ["main*", "long"], "export": None}
