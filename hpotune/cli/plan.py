"""The verb that estimates time and cost: plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import SET_UP, AsJson, DataRoot, Folder, Target, app, print_json, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpotune.config.load import Study
    from hpotune.records.trial import Span, TrialRow
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
    from datetime import datetime

    from hpotune.checks.gpus import gpu_type_findings
    from hpotune.errors import StudyFileError
    from hpotune.planning.memory_plan import memory_plan
    from hpotune.planning.probe import probe as run_probe
    from hpotune.planning.study_plan import make_plan
    from hpotune.report.plan_table import plan_table
    from hpotune.report.views.plan_view import plan_view

    if gantt is not None and gantt.suffix != ".svg":
        raise StudyFileError(f"--gantt {gantt}: the chart is an SVG file; give a name that ends in .svg")
    found, read, rows = _read_study(study, folder, data_root)
    config = read.config
    probed = run_probe(study, found, data_root=data_root, say=_print_progress) if probe else None
    made = make_plan(found, config, rows, probed=probed, memory=memory_plan(read), now=datetime.now())
    if gantt is not None:
        _write_gantt(gantt, found, made.own.result.spans, title=f"{config.name}: {made.own.name}")
    for finding in gpu_type_findings(config):
        say(f"note: {finding.text}; {finding.advice}", err=True)
    view = plan_view(made)
    print_json(view) if as_json else show(plan_table(view, made.own.result.spans))


def _read_study(
    study: Path, chosen: Path | None, data_root: str | None
) -> tuple[StudyFolder, Study, Sequence[TrialRow]]:
    """The study in its folder, or as its file would make it; makes no folder."""
    from hpotune.checks.study_file import check
    from hpotune.storage import TrialQueue
    from hpotune.workspace.folder import folder_of

    if study.is_dir():
        folder = folder_of(study, chosen=chosen)
        planned = folder.load()
    else:
        checked = check(study, chosen=chosen, data_root=data_root)
        folder, planned = checked.folder, checked.folder.in_force(checked.study)
    rows: Sequence[TrialRow] = ()
    if folder.resolved_file.is_file():
        stored = planned if study.is_dir() else folder.load()
        rows = TrialQueue.open(folder.provenance().store, stored, read_only=True).rows()
    return folder, planned, rows


def _write_gantt(file: Path, folder: StudyFolder, planned: Sequence[Span], *, title: str) -> None:
    from hpotune.report.gantt import read_spans, svg
    from hpotune.workspace.atomic_files import write_atomic

    measured = read_spans(folder)
    note = "measured" if measured else "planned"
    write_atomic(file, svg(measured or planned, title=title, note=note))
    say(f"wrote {file} ({note})", err=True)


def _print_progress(text: str) -> None:
    say(text, err=True)
