"""What the terminal shows of handouts, hints and a class."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hpotune.lab.class_overview import ClassOverview, OverviewRow, class_overview
from hpotune.lab.handouts import handouts
from hpotune.lab.lab_tables import gain_text, handouts_table, hints_table, overview_table
from hpotune.lab.study_hints import Hint
from hpotune.reporting.paired_difference import Difference
from tests.fixtures.report_rows import printed


def test_hints_put_problems_first() -> None:
    hints = (
        Hint(kind="run", level="good", text="all ran", next_step=""),
        Hint(kind="scale", level="hint", text="plain scale", next_step="log: true"),
        Hint(kind="failures", level="problem", text="all failed", next_step="fix it"),
    )
    assert [line.split()[0] for line in printed(hints_table("s", hints)).splitlines()] == [
        "s", "problem", "next:", "hint", "next:", "good",
    ]  # fmt: skip


def test_handouts_are_listed() -> None:
    assert len(printed(handouts_table(handouts())).splitlines()) == 1 + len(handouts())


def test_overview_is_a_line_a_study(class_folder: Path) -> None:
    now = datetime.now()
    lines = printed(overview_table(class_overview([class_folder], now=now), now=now)).splitlines()
    assert lines[0].split() == [
        "student",
        "study",
        "state",
        "trials",
        "score",
        "best",
        "hours",
        "failed",
        "last",
        "activity",
        "hints",
    ]
    well = next(line for line in lines if line.startswith("s08"))
    assert well.split()[:8] == ["s08", "well", "done", "4/4", "loss", "0.01871", "±", "0.01"]
    assert any(line.startswith("s07: holds no study") for line in lines)


def test_gain_is_read_with_its_error(class_folder: Path) -> None:
    first = class_overview([class_folder / "s08"], now=datetime.now()).rows[0]

    def text(value: float, stderr: float | None) -> str:
        return gain_text(replace(first, gain=Difference(value=value, stderr=stderr, paired=True)))

    assert text(0.31, 0.04) == "+0.31 ± 0.04"
    assert text(0.01, 0.04) == "+0.01 ± 0.04, not significant"
    assert text(-0.1, None) == "−0.1"
    assert gain_text(first) == ""


def test_gpu_hours_get_a_column(class_folder: Path) -> None:
    now = datetime.now()
    found = class_overview([class_folder / "s08"], now=now)
    rows: tuple[OverviewRow, ...] = tuple(replace(one, gpu_hours=1234.5) for one in found.rows)
    text = printed(overview_table(ClassOverview(made="", rows=rows), now=now))
    assert "GPU-hours" in text.splitlines()[0]
    assert "1,234" in text
