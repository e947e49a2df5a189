"""Every command of every handout, in order, by a fresh user without root on the throw-away cluster.

Sheets that take long read sizes from variables; here they are small. With HPOTUNE_LAB_FULL=1 all runs as printed:
HPOTUNE_LAB_FULL=1 sudo -E pytest -s tests/cluster/test_handouts.py
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from tests.fixtures.handout_sheets import SHEETS, commands, outputs, promised, whole_script
from tests.fixtures.student_account import Student

pytestmark = pytest.mark.slurm
SMALL = {"4": {"TRIALS": "20"}, "5": {"TRIALS": "2", "ITEMS": "8"}, "6": {"TRIALS": "8"}}
"""Sheet -> what replaces the sizes that it prints."""


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda path: path.stem)
def test_commands_run_in_order(sheet: Path, student: Student, request: pytest.FixtureRequest) -> None:
    sizes = {} if os.environ.get("HPOTUNE_LAB_FULL") else SMALL.get(sheet.stem[0], {})
    if "HPOTUNE_DATA_ROOT" in sheet.read_text(encoding="utf-8"):
        sizes = {**sizes, "HPOTUNE_DATA_ROOT": str(student.visible(request.getfixturevalue("real_data")))}
    blocks = commands(sheet.read_text(encoding="utf-8"))
    script, log = student.home / f"{sheet.stem}.sh", student.home / f"{sheet.stem}.log"
    script.write_text(whole_script(blocks), encoding="utf-8")
    before, since = cpu_s(), time.monotonic()
    try:
        code = student.run(script, log=log, **sizes)
    finally:
        student.end_jobs()
    text = log.read_text(encoding="utf-8", errors="replace")
    print(f"\n{sheet.stem}: {time.monotonic() - since:.0f} s, {cpu_s() - before:.0f} s of CPU outside jobs")
    assert code == 0, text[-6000:]
    given = outputs(text)
    assert len(given) == len(blocks)
    for block, output in zip(blocks, given, strict=True):
        assert block.expected is None or promised(block.expected, output), f"{block}\ngave\n{output}"


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
