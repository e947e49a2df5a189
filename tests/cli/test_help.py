"""`hpotune --help`: every verb on one line of an 80-column terminal, in its panel."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import typer

from hpotune.cli import app
from hpotune.cli.common import PANELS

VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ENV = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}


def help_of(*words: str) -> str:
    command = [sys.executable, "-m", "hpotune", *words, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ENV).stdout


@pytest.fixture(scope="module")
def overview() -> str:
    return help_of()


def test_no_help_line_is_cut(overview: str) -> None:
    assert "…" not in overview
    assert "..." not in overview.replace("[ARGS]...", "")
    assert max(map(len, overview.splitlines())) <= 80


def test_each_verb_is_one_whole_line(overview: str) -> None:
    verbs = overview[overview.index(f"{PANELS[0]}:") :]
    lines = [line for line in verbs.splitlines() if line.startswith("  ")]
    named = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert set(named) == {name for name, verb in VERBS.items() if not verb.hidden}
    assert {name for name, text in named.items() if not text.endswith(".")} == set()


def test_verbs_stand_in_their_panels(overview: str) -> None:
    panels: dict[str, list[str]] = {}
    for line in overview.splitlines():
        if line.rstrip(":") in PANELS:
            panels[line.rstrip(":")] = []
        elif panels and (verb := re.match(r"  (\S+)  ", line)):
            panels[list(panels)[-1]].append(verb[1])
    assert panels == {
        "Set up": ["init", "check", "fetch", "bundle", "env", "preview", "sites", "doctor", "plan"],
        "Run": ["run", "submit", "cancel", "resume", "extend", "retry", "test"],
        "Look": ["status", "wait", "trials", "best", "why", "logs", "provenance"],
        "Results": ["report", "plot", "dashboard", "sync", "export", "rerun", "import"],
        "Search without a study": ["algorithms", "ask-tell"],
        "Courses": ["lab"],
        "Jobs": ["worker", "follow-up", "rehearse"],
    }


def test_step_is_the_hidden_old_name(overview: str) -> None:
    """Job scripts that are already in a queue call it."""
    assert re.search(r"^  step\b", overview, re.MULTILINE) is None
    options = [[option.opts for option in VERBS[name].params] for name in ("step", "follow-up")]
    assert options[0] == options[1]
