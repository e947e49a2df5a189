"""A study's home with a program, modules beside it, and data."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path) -> Path:
    """The study's home, with a program, its neighbours, and data."""
    home = tmp_path / "home"
    (home / "pack").mkdir(parents=True)
    (home / "own.py").write_text(
        "import beside\nfrom pack import part\ndef f(x=0):\n    return beside.A + part.B + x\n"
    )
    (home / "beside.py").write_text("A = 1\n")
    (home / "pack" / "__init__.py").touch()
    (home / "pack" / "part.py").write_text("B = 10\n")
    (home / "pack" / "table.csv").write_text("1000\n")
    (home / "other.py").write_text("raise SystemExit(1)\n")
    (home / "rows.jsonl").write_text("100\n")
    return home
