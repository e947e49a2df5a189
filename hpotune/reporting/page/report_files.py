"""Writes a report in one of its formats, once or again and again while the study runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast, get_args

from hpotune.errors import StoreError, StudyFileError, nearest
from hpotune.reporting.views.study_report import StudyReport
from hpotune.reporting.watch import LEAST_S, is_over
from hpotune.workspace.atomic_files import write_atomic_bytes

Format = Literal["html", "pdf", "md", "csv", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)


def format_of(chosen: str | None, out: Path | None) -> Format:
    """The chosen format, else the one that the file's name ends with, else html.

    Raises: StudyFileError for another one.
    """
    if chosen is None and (out is None or str(out) == "-"):
        return "html"
    name = chosen if chosen is not None else cast(Path, out).suffix.removeprefix(".").lower()
    name = {"htm": "html", "markdown": "md"}.get(name, name)
    if name not in FORMATS:
        given = f"--format {chosen}" if chosen is not None else f"{out}"
        raise StudyFileError(f"{given}: no such format; {nearest(name, FORMATS)}; give --format NAME")
    return name


def report_bytes(report: StudyReport, kind: Format) -> bytes:
    """The report in a format.

    Raises: HpotuneError where it cannot be made, StudyFileError for pdf without a browser.
    """
    if kind == "json":
        from hpotune.reporting.json_output import as_json

        return (json.dumps(as_json(report), indent=1) + "\n").encode()
    if kind == "csv":
        from hpotune.reporting.page.page_csv import csv_table

        return csv_table(report).encode()
    if kind == "md":
        from hpotune.reporting.page.page_markdown import markdown_page

        return markdown_page(report).encode()
    from hpotune.reporting.page.page_html import html_page

    if kind == "pdf":
        from hpotune.reporting.page.page_pdf import find_browser, pdf_of

        browser = find_browser()
        return pdf_of(html_page(report), browser)
    return html_page(report).encode()


def write_report(report: StudyReport, kind: Format, out: Path) -> None:
    """Write the report whole or not at all.

    Raises: StudyFileError where `out` is a folder, OSError where it cannot be written.
    """
    if out.is_dir():
        raise StudyFileError(f"{out}: is a folder; give a file, such as {out / f'report.{kind}'}")
    write_atomic_bytes(out, report_bytes(report, kind))


def rewrite_until_over(
    read: Callable[[], StudyReport],
    write: Callable[[StudyReport], None],
    *,
    every_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the report, and again after each change of a trial, until the study is over and none of its jobs is active.

    Raises: StoreError when the first read fails; later reads are repeated.
    """
    report = read()
    write(report)
    last = _state(report)
    while not is_over(report.status):
        sleep(max(LEAST_S, every_s))
        try:
            report = read()
        except StoreError as error:
            say(f"{error}; trying again")
            continue
        if (state := _state(report)) != last:
            write(report)
            last = state


def _state(report: StudyReport) -> object:
    """What a new page would show: states, scores and attempts of trials, repeats, the sealed test."""
    trials = tuple(
        (one.number, one.state, tuple(one.values.items()), one.attempts, len(one.rungs))
        for one in report.trials
    )
    return report.status.state, trials, report.sealed, report.best.repeats
