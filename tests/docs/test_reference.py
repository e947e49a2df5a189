"""The reference pages match the code, and the README names every verb."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import typer

from hpotune.cli import app

ROOT = Path(__file__).parents[2]
VERBS = {n: verb for n, verb in typer.main.get_command(app).commands.items() if not verb.hidden}


def test_reference_pages_match_the_code() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "make-reference"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_verb_has_help() -> None:
    assert {name for name, verb in VERBS.items() if not (verb.help or "").strip().endswith(".")} == set()


def test_the_readme_names_every_verb() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in VERBS if f"hpotune {name}" not in text} == set()


def test_files_named_in_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:configs|scripts|docs|slurm_templates|hpotune|tests)/[\w./-]+)`", text)
    assert {name for name in named if not (ROOT / name).exists()} == set()
