"""The verb that estimates time and cost: plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import (
    SET_UP,
    AsJson,
    DataRoot,
    Folder,
    Target,
    app,
    print_info,
    print_json,
    print_note,
    say,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpotune.records.trial import Span
    from hpotune.workspace.folder import StudyFolder


@app.command(rich_help_panel=SET_UP)
def plan(
    study: Target,
    folder: Folder = None,
    data_root: DataRoot = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Measure times first, with a few short trials of a copy of the study."),
    ] = False,
    gantt: Annotated[
        Path | None,
        typer.Option("--gantt", metavar="FILE.svg", help="Draw what has run, or else what is planned."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate jobs, time and cost in each mode; submit nothing.

    With --probe it runs a few short trials first, to measure the times that the estimate is made from.
    """
    from hpotune.api.plan_study import plan_study
    from hpotune.errors import StudyFileError
    from hpotune.reporting.plan_table import plan_table

    if gantt is not None and gantt.suffix != ".svg":
        raise StudyFileError(f"--gantt {gantt}: the chart is an SVG file; give a name that ends in .svg")
    planned = plan_study(study, folder, data_root=data_root, probe=probe, say=print_info)
    if gantt is not None:
        title = f"{planned.study.config.name}: {planned.made.own.name}"
        _write_gantt(gantt, planned.folder, planned.spans, title=title)
    for note in planned.notes:
        print_note(note)
    print_json(planned.view) if as_json else show(plan_table(planned.view, planned.spans))


def _write_gantt(file: Path, folder: StudyFolder, planned: Sequence[Span], *, title: str) -> None:
    from hpotune.reporting.gantt import read_spans, svg
    from hpotune.workspace.atomic_files import write_atomic

    measured = read_spans(folder)
    note = "measured" if measured else "planned"
    write_atomic(file, svg(measured or planned, title=title, note=note))
    say(f"wrote {file} ({note})", err=True)
