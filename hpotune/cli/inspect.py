"""Verbs that look: status, trials, best, logs, why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import AsJson, Folder, Target, app, located, print_json, show

if TYPE_CHECKING:
    from hpotune.config.schema.study_config import Json, StudyConfig
    from hpotune.records.trial import TrialRow
    from hpotune.workspace.folder import StudyFolder

Number = Annotated[int, typer.Argument(help="The trial's number.")]


def seen(target: Path, chosen: Path | None) -> tuple[StudyFolder, StudyConfig, list[TrialRow]]:
    """The folder, the study as it is now, and its trials."""
    from hpotune.storage.readers.read_only import rows_of

    place, study = located(target, chosen)
    return place, study.config, rows_of(str(place.provenance()["store"]), study)


@app.command()
def status(
    study: Target,
    folder: Folder = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep showing it until the study is over; Ctrl-C leaves.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=5, metavar="SECONDS", help="Seconds between two looks.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Trials, the best so far, jobs and why they wait, failures by cause, cost so far and forecast."""
    from datetime import datetime

    if watch:
        from hpotune.report.watch import watch as keep_watching

        keep_watching(lambda: _status(study, folder), every_s=every, as_json=as_json)
        return
    told = _status(study, folder)
    if "cluster" in told:
        typer.echo(f"warning: the cluster is {told['cluster']}", err=True)
    if as_json:
        print_json(told)
        return
    from hpotune.report import status_table

    show(status_table.status(told, now=datetime.now()))


def _status(target: Path, chosen: Path | None) -> dict[str, Json]:
    from datetime import datetime

    from hpotune.launch.stale_workers import lost
    from hpotune.report import summary
    from hpotune.slurm.jobs import rows_or_unknown

    place, config, rows = seen(target, chosen)
    queue = rows_or_unknown(place, rows, lease_s=config.execution.lease_s)
    gone = lost(rows, queue.rows, lease_s=config.execution.lease_s)
    told = summary.status(place, config, rows, queue.rows, gone, now=datetime.now())
    told["queue_age_s"] = round(queue.age_s, 1) if queue.rows else None
    return told | {"cluster": f"not reachable: {queue.silent}"} if queue.silent else told


@app.command()
def trials(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """The table of trials."""
    from hpotune.report import summary, tables

    _, config, rows = seen(study, folder)
    begun = [row for row in rows if row.state != "waiting" or row.attempts]
    told = [summary.trial(config.score.objective, row) for row in begun]
    print_json(told) if as_json else show(tables.trials(told))


@app.command()
def best(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """The best setting, with its error, its gain over the untouched model, and what it cannot be told from."""
    from hpotune.report import summary, tables

    place, config, rows = seen(study, folder)
    told = summary.best(place, config, rows)
    print_json(told) if as_json else show(tables.best(told))


@app.command()
def logs(
    study: Target,
    number: Number,
    folder: Folder = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines; 0: all.")] = 40,
) -> None:
    """A trial's log."""
    from hpotune.errors import StudyFileError
    from hpotune.workspace.folder import folder_of

    path = folder_of(study, chosen=folder).trial(number) / "log.txt"
    if not path.is_file():
        raise StudyFileError(
            f"trial {number} has no log ({path}); `hpotune trials` lists those that have started"
        )
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    typer.echo("\n".join(text[-lines:] if lines else text))


@app.command()
def why(study: Target, number: Number, folder: Folder = None, as_json: AsJson = False) -> None:
    """Why a trial ended as it did: its attempts, what was made of them, what to do, and the log's lines that matter."""
    from datetime import datetime

    from hpotune.report import tables
    from hpotune.report.why import why as reasons

    place, config, rows = seen(study, folder)
    told = reasons(place, config, rows, number)
    print_json(told) if as_json else show(tables.why(told, now=datetime.now()))
