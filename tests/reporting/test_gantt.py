"""Gantt charts as text and as SVG, and the spans in a study's folder."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from hpotune.records.trial import Span
from hpotune.reporting.gantt import LOOK, kind, read_spans, rows, svg, text
from hpotune.workspace.folder import StudyFolder

SVG = "{http://www.w3.org/2000/svg}"


def span(job: str, phase: str, start: float, end: float, trial: int | None = None) -> Span:
    return Span(job=job, trial=trial, phase=phase, start=start, end=end)


TWO = [
    span("7_0", "queue", 0, 2),
    span("7_0", "start", 2, 4),
    span("7_0", "load", 4, 5, 0),
    span("7_0", "train", 5, 9, 0),
    span("7_0", "score", 9, 10, 0),
    span("7_1", "queue", 0, 5),
    span("7_1", "start", 5, 6),
    span("7_1", "trial", 6, 8, 1),
    span("7_1", "trial", 8, 9, 2),
    span("7_1", "idle", 9, 10),
]


def test_character_shows_the_longest_span() -> None:
    lines = text(TWO, width=10).splitlines()
    assert lines[0] == "7_0 |··▒▒░█████|"
    assert lines[1] == "7_1 |·····▒██▓-|"
    assert lines[2].split() == ["0", "10", "s"]
    assert "waits in the queue" in lines[3]


def test_legend_lists_only_used_kinds() -> None:
    assert "waits for other trials" not in text(TWO[:5])


def test_no_spans_is_a_sentence() -> None:
    assert text([]) == "nothing has run"


def test_rows_are_ordered_by_start() -> None:
    spans = [span(f"3_{index}", "trial", 5 if index else 1, 9, index) for index in (10, 2, 0)]
    assert [row.label for row in rows(spans)] == ["3_0", "3_2", "3_10"]


def test_many_jobs_share_rows() -> None:
    spans = [
        s
        for index in range(50)
        for s in (
            span(f"1_{index}", "queue", 0, index // 2 * 10),
            span(f"1_{index}", "trial", index // 2 * 10, index // 2 * 10 + 9, index),
        )
    ]
    found = rows(spans)
    assert [row.label for row in found] == ["slot 1", "slot 2"]
    for row in found:
        held = sorted((s.start, s.end) for s in row.spans if s.phase != "queue")
        assert all(a[1] <= b[0] for a, b in pairwise(held))


def test_rows_are_limited() -> None:
    lines = text([span(f"1_{index}", "trial", 0, 9, index) for index in range(60)]).splitlines()
    assert "… and 36 more" in lines
    assert len(lines) < 30


def test_all_phases_but_loading_are_trial() -> None:
    names = ("queue", "start", "idle", "load", "data", "check", "train", "checkpoint", "score", "trial")
    assert [kind(span("j", name, 0, 1)) for name in names] == (
        ["queue", "start", "idle", "load", "load", "trial", "trial", "trial", "trial", "trial"]
    )


def test_svg_has_one_bar_a_span() -> None:
    drawn = ElementTree.fromstring(svg(TWO, title="a < b", note="c & d"))
    assert drawn.findtext(f"{SVG}title") == "a < b"
    bars = [bar for bar in drawn.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    assert len(bars) == len(TWO)
    assert {bar.get("fill") for bar in bars} == {colour for _, colour, _ in LOOK.values()}
    first, train = bars[0], bars[3]
    scale = float(first.get("width", 0)) / 2
    assert float(train.get("x", 0)) - float(first.get("x", 0)) == 5 * scale
    assert "http" not in svg(TWO, title="t").replace("http://www.w3.org/2000/svg", "")


def test_two_charts_share_their_axis() -> None:
    short, long = (ElementTree.fromstring(svg(TWO, title="t", until=until)) for until in (10, 20))
    widths = [
        next(
            float(bar.get("width", 0))
            for bar in drawn.iter(f"{SVG}rect")
            if bar.find(f"{SVG}title") is not None
        )
        for drawn in (short, long)
    ]
    assert abs(widths[0] - 2 * widths[1]) < 0.2


def written(folder: Path) -> StudyFolder:
    """A study's folder with one job that ran trial 0, whose process wrote its phases."""
    job = folder / "jobs" / "5"
    job.mkdir(parents=True)
    (job / "job.json").write_text(json.dumps({"id": "5", "kind": "worker", "count": 1, "throttle": 1}))
    os.utime(job / "job.json", (100, 100))
    (job / "life-0.json").write_text(json.dumps({"start": 103.0, "host": "n", "pid": 1}))
    own = [("start", None, 103, 105), ("trial", 0, 105, 120), ("idle", None, 120, 121)]
    (job / "spans-5_0.jsonl").write_text(
        "".join(
            json.dumps({"job": "5_0", "trial": trial, "phase": phase, "start": start, "end": end}) + "\n"
            for phase, trial, start, end in own
        )
        + '{"job": "5_0", "tr'
    )
    inside = [("load", 106, 108), ("train", 108, 117), ("score", 117, 119), ("train", 300, 310)]
    (folder / "trials" / "0").mkdir(parents=True)
    (folder / "trials" / "0" / "spans.jsonl").write_text(
        "".join(
            json.dumps({"trial": 0, "phase": phase, "start": start, "end": end}) + "\n"
            for phase, start, end in inside
        )
    )
    return StudyFolder(path=folder)


def test_measured_spans_include_queue_and_phases(tmp_path: Path) -> None:
    found = [(s.job, s.trial, s.phase, s.start, s.end) for s in read_spans(written(tmp_path))]
    assert found == [
        ("5_0", None, "queue", 100, 103),
        ("5_0", None, "start", 103, 105),
        ("5_0", 0, "load", 105, 106),  # its process starts
        ("5_0", 0, "load", 106, 108),
        ("5_0", 0, "train", 108, 117),
        ("5_0", 0, "score", 117, 119),
        ("5_0", 0, "trial", 119, 120),  # its worker tells
        ("5_0", None, "idle", 120, 121),
    ]


def test_folder_without_jobs_has_no_spans(tmp_path: Path) -> None:
    assert read_spans(StudyFolder(path=tmp_path)) == []
