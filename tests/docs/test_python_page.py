"""The programs of README and docs/python.md run, and the page names what Study has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hpotune

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def program(text: str) -> str:
    found = re.search(r"```python\n(import hpotune.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_readme_program_tunes(tmp_path: Path) -> None:
    (tmp_path / "tune.py").write_text(program((ROOT / "README.md").read_text(encoding="utf-8")))
    command = [sys.executable, "tune.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\{'params\.x': 0\.\d+\} done\n", done.stdout)
    (tmp_path / "tune.py").write_text(program(PAGE))  # the same study: it has ended
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\{'params\.x': 0\.\d+\} \{'loss': [\d.e-]+\} done\n", done.stdout)


def test_page_names_every_method() -> None:
    table = PAGE[PAGE.index("| method |") : PAGE.index("The views")]
    cells = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    named = set(re.findall(r"[`.](\w+)", " ".join(cells))) - {"Study"}
    public = {name for name in vars(hpotune.Study) if not name.startswith("_")}
    assert named == public - {"folder"}
