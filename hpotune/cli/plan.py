"""The verb that looks ahead: plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import AsJson, DataRoot, Folder, Target, app, print_json, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpotune.config.schema.study_config import StudyConfig
    from hpotune.records.trial import TrialRow
    from hpotune.workspace.folder import StudyFolder


@app.command()
def plan(
    study: Target,
    folder: Folder = None,
    data_root: DataRoot = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Measure first, by a copy of the study with a few short trials."),
    ] = False,
    gantt: Annotated[
        Path | None,
        typer.Option("--gantt", metavar="FILE.svg", help="Draw it: what has run, else what is planned."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a study would submit, how long it takes and what it costs, in each mode. Submits nothing but a probe."""
    from datetime import datetime

    from hpotune.errors import StudyFileError
    from hpotune.planning.probe import probe as measure
    from hpotune.planning.study_plan import as_json as told_by
    from hpotune.planning.study_plan import make_plan
    from hpotune.report import plan_table

    if gantt is not None and gantt.suffix != ".svg":
        raise StudyFileError(f"--gantt {gantt}: is drawn as SVG; needs a name that ends in .svg")
    place, config, rows = _study(study, folder, data_root)
    found = measure(study, place, data_root=data_root, say=_say) if probe else None
    made = make_plan(place, config, rows, probed=found, now=datetime.now())
    if gantt is not None:
        _draw(gantt, place, made.own.outcome.spans, title=f"{config.name}: {made.own.name}")
    told = told_by(made)
    print_json(told) if as_json else show(plan_table.plan(told, made.own.outcome.spans))


def _study(
    study: Path, folder: Path | None, data_root: str | None
) -> tuple[StudyFolder, StudyConfig, Sequence[TrialRow]]:
    """The study as it stands in its folder, or as its file would make it; no folder is made."""
    from hpotune.checks.study_file import check
    from hpotune.storage import Store
    from hpotune.workspace.folder import folder_of

    place = folder_of(study, chosen=folder)
    rows: Sequence[TrialRow] = ()
    if place.resolved_file.is_file():
        ours = place.load()
        rows = Store.open(str(place.provenance()["store"]), ours, read_only=True).rows()
    if study.is_dir():
        return place, place.load().config, rows
    return place, place.in_force(check(study, data_root=data_root).study).config, rows


def _draw(file: Path, place: StudyFolder, planned: Sequence[object], *, title: str) -> None:
    from hpotune.report.gantt import read_spans, svg
    from hpotune.workspace.folder import write_atomic

    real = read_spans(place)
    note = "what has run" if real else "planned"
    write_atomic(file, svg(real or planned, title=title, note=note))  # type: ignore[arg-type]
    typer.echo(f"wrote {file} ({note})", err=True)


def _say(text: str) -> None:
    typer.echo(text, err=True)
