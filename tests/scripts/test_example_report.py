"""docs/examples: what the page says, and that the script makes it of the published trials."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import NoDatasets

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "examples" / "published.html"
KINDS = ("score-over-trials", "parameters-over-trials", "score-by-parameter", "validation-against-test")


def check_page(page: str) -> None:
    for name in KINDS:
        assert f'<figure id="{name}">' in page
    assert "Not significantly better than the base model" in page
    listed = re.search(r"45 others of the 50 trials may be as good: trials ([\d, ]+) and (\d+) more", page)
    assert listed is not None
    assert len(listed[1].split(",")) + int(listed[2]) == 45


def test_kept_page_says_what_is_known() -> None:
    assert PAGE.stat().st_size < 1_500_000
    check_page(PAGE.read_text(encoding="utf-8"))


def test_real_study_is_kept_whole() -> None:
    """Answers, sealed test and reruns of a study that was run on a cluster; and no path of the machine it ran on."""
    page = (PAGE.parent / "smollm2.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 1_500_000
    assert page.count('<div class="answer ') == 5
    assert "Not shown: no significant difference on 3 tasks" in page
    assert page.count("the rerun gives the same losses and scores to the last digit") == 3
    assert not re.search(r"/(?:root|home|tmp|work|mnt)/", page)


def test_script_makes_the_page(tmp_path: Path) -> None:
    folder = Path(os.environ.get("HPOTUNE_SEARCHBENCH") or ROOT.parent / "shared" / "searchbench")
    if not (folder / "data" / "davouse.csv").is_file():
        raise NoDatasets(f"no published trials in {folder}; set HPOTUNE_SEARCHBENCH")
    command = [
        sys.executable,
        str(ROOT / "scripts" / "make-example-report"),
        "--out",
        str(tmp_path / "page.html"),
    ]
    subprocess.run(command, check=True, env=os.environ | {"HPOTUNE_SEARCHBENCH": str(folder)})
    check_page((tmp_path / "page.html").read_text(encoding="utf-8"))
