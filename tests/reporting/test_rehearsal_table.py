"""What `check` and `preview` print of a rehearsal, and the keys of `preview --json`."""

from __future__ import annotations

import json

from rich.console import Console

from hpotune.records.rehearsal_record import (
    LengthBin,
    Lengths,
    PreviewRow,
    RehearsalResult,
    RowReason,
    SourceRows,
    TaskRequests,
)
from hpotune.reporting.json_output import as_json
from hpotune.reporting.rehearsal_table import preview_json, preview_table, rehearsal_summary

BINS = [LengthBin(start=4, end=7, rows=1), LengthBin(start=7, end=10, rows=1)]
RESULT = RehearsalResult(
    used=2,
    rows=[
        PreviewRow(row=0, text="Q: [x]\nA", counted="A", tokens=4, parts=[("Q: [x]\n", False), ("A", True)]),
        PreviewRow(row=2, text="Q: y\nB", counted="B", tokens=9, parts=[("Q: y\n", False), ("B", True)]),
    ],
    dropped=[RowReason(row=number, reason="the text has no token") for number in range(3, 10)],
    cut=[2],
    lengths=Lengths(min=4, median=6.5, mean=6.5, p95=8.8, max=9, histogram=BINS),
    requests={
        "toy": TaskRequests(requests=8, first={"context": "Q", "continuation": " A"}),
        "sealed": TaskRequests(requests=5),
    },
    warnings=["careful"],
    seconds=7.4,
    peak_memory_gb=0.61,
)


def printed(*, rows: int) -> str:
    console = Console(width=100, markup=False)
    with console.capture() as capture:
        console.print(preview_table(RESULT, rows=rows))
    return capture.get()


def test_json_has_its_keys() -> None:
    found = json.loads(json.dumps(as_json(preview_json(RESULT))))
    assert list(found) == ["rows", "sources", "dropped", "cut", "lengths", "requests", "warnings"]
    assert found["rows"][0] == {"row": 0, "text": "Q: [x]\nA", "counted": "A", "tokens": 4, "source": ""}
    assert len(found["rows"]) == 2
    assert as_json(preview_json(RESULT, rows=1)) == {**found, "rows": found["rows"][:1]}
    assert found["dropped"][0] == {"row": 3, "reason": "the text has no token", "source": ""}
    assert found["cut"] == [{"row": 2, "tokens": 9}]
    assert found["lengths"]["histogram"][1] == {"start": 7, "end": 10, "rows": 1}
    assert found["requests"]["toy"]["first"] == {"context": "Q", "continuation": " A"}


def test_preview_marks_the_counted_text() -> None:
    text = printed(rows=1)
    assert "row 0, 4 tokens\nQ: [x]\n⟦A⟧" in text
    assert "Q: y" not in text
    assert "… and 1 more rows" in text
    assert "7 rows are left out, the text has no token: rows 3, 4, 5, 6, 7, …" in text
    assert "1 rows are cut to data.max_length: rows 2" in text
    assert "context: Q\ncontinuation:  A" in text
    assert "sealed: 5 requests" in text
    assert "warning: careful" in text


def test_preview_names_the_label() -> None:
    row = PreviewRow(row=0, text="a text", counted="ocean", tokens=3, parts=[("a text", False)])
    console = Console(width=100, markup=False)
    with console.capture() as capture:
        console.print(preview_table(RehearsalResult(used=1, rows=[row]), rows=4))
    assert "a text\nlabel: ocean" in capture.get()


def test_check_prints_one_line() -> None:
    assert rehearsal_summary(RESULT, again=False) == (
        "rehearsed: 2 rows, 7 left out, 1 cut to data.max_length, 4 to 9 tokens, toy: 8 requests, sealed: 5 requests "
        "(7 s, 0.6 GB)"
    )
    assert rehearsal_summary(RESULT, again=True).endswith("(unchanged since the last rehearsal)")
    missing = RehearsalResult(missing=["model.path: x is not in the cache"], seconds=3, peak_memory_gb=0.5)
    assert rehearsal_summary(missing, again=False).startswith("not rehearsed: what the warnings name")


def test_mixture_is_shown_by_source() -> None:
    one = SourceRows(
        name="web", path="w", weight=3, share=0.75, rows=1200, available=500, passes=3, validation=20
    )
    found = RESULT.model_copy(update={"sources": [one]})
    assert "web 75 % (1,200 rows an epoch)" in rehearsal_summary(found, again=False)
    console = Console(width=100, markup=False)
    with console.capture() as capture:
        console.print(preview_table(found, rows=0))
    assert "web          3   75 %          1,200  500       3          20" in capture.get()
