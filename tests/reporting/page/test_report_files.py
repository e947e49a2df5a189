"""The report in its formats, and written again while a study runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpotune.errors import StoreError, StudyFileError
from hpotune.reporting.page.report_files import format_of, report_bytes, rewrite_until_over, write_report
from hpotune.reporting.views.study_report import StudyReport
from tests.fixtures.report_studies import HOSTILE, OWN, own_rows, study_of


def test_csv_holds_every_trial(tuned: StudyReport) -> None:
    rows = list(csv.DictReader(io.StringIO(report_bytes(tuned, "csv").decode())))
    assert [int(row["trial"]) for row in rows] == [trial.number for trial in tuned.trials]
    for row, trial in zip(rows, tuned.trials, strict=True):
        assert row["train.learning_rate"] == str(trial.params.get("train.learning_rate", ""))
        assert row["hellaswag/acc_norm"] == str(trial.values.get("hellaswag/acc_norm", ""))
    assert {row["message"] for row in rows if row["state"] == "failed"} == {HOSTILE}


def test_json_holds_what_the_page_shows(tuned: StudyReport) -> None:
    found = json.loads(report_bytes(tuned, "json"))
    assert found["best"]["best"]["number"] == tuned.best.best.number  # type: ignore[union-attr]
    assert len(found["trials"]) == len(tuned.trials)
    assert found["cost"]["unit"] == "GPU-hours"
    assert {one["name"] for one in found["importance"]["parameters"]} == {
        one.name for one in tuned.parameters
    }


def test_markdown_escapes_the_study(tuned: StudyReport) -> None:
    text = report_bytes(tuned, "md").decode()
    assert "## The best setting" in text
    assert "<img" not in text.replace("\\<img", "")
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(tables) > 40


def test_pdf_is_printed(tuned: StudyReport) -> None:
    from tests.fixtures.chromium import started_browser

    with started_browser():  # skips where there is no Chromium
        pass
    assert report_bytes(tuned, "pdf").startswith(b"%PDF")


def test_pdf_without_a_browser(tuned: StudyReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StudyFileError, match="needs Chromium or Chrome.*write --format html"):
        report_bytes(tuned, "pdf")


@pytest.mark.parametrize(
    ("chosen", "out", "kind"),
    [
        (None, None, "html"),
        ("md", None, "md"),
        (None, "x.csv", "csv"),
        ("json", "x.txt", "json"),
        (None, "-", "html"),
    ],
)
def test_format_by_option_or_name(chosen: str | None, out: str | None, kind: str) -> None:
    assert format_of(chosen, Path(out) if out else None) == kind


@pytest.mark.parametrize(("chosen", "out"), [("docx", None), (None, "report.docx"), (None, "report")])
def test_unknown_formats_are_refused(chosen: str | None, out: str | None) -> None:
    with pytest.raises(StudyFileError, match="no such format; .*csv, html, json, md, pdf"):
        format_of(chosen, Path(out) if out else None)


def test_folder_is_not_overwritten(tuned: StudyReport, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="is a folder; give a file"):
        write_report(tuned, "csv", tmp_path)


def test_report_is_rewritten_as_trials_end(tmp_path: Path) -> None:
    def states() -> Iterator[StudyReport | StoreError]:
        first = study_of(tmp_path, own_rows(0.3), **OWN, budget={"trials": 2}).report()
        yield first
        yield first
        yield StoreError("the store is away")
        yield study_of(tmp_path, own_rows(0.3, 0.2), **OWN, budget={"trials": 2}).report()

    found, written, said = states(), list[int](), list[str]()

    def read() -> StudyReport:
        report = next(found)
        if isinstance(report, StoreError):
            raise report
        return report

    rewrite_until_over(
        read,
        lambda report: written.append(len(report.trials)),
        every_s=5,
        say=said.append,
        sleep=lambda _: None,
    )
    assert written == [1, 2]
    assert said == ["the store is away; trying again"]
    assert next(found, None) is None


def test_changed_score_is_a_change(tuned: StudyReport) -> None:
    reports = iter([tuned, replace(tuned, trials=tuned.trials[:-1]), replace(tuned, sealed=None)])
    written: list[int] = []
    with pytest.raises(StopIteration):
        rewrite_until_over(
            lambda: next(reports), lambda one: written.append(1), every_s=5, say=print, sleep=lambda _: None
        )
    assert len(written) == 3
