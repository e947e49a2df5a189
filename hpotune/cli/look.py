"""Verbs that look at a study: status, trials, best, logs."""

from __future__ import annotations

from typing import Annotated

import typer

from hpotune.cli.common import AsJson, Folder, Target, app, opened, print_json, show, tell_best


@app.command()
def status(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """Trials, the best so far, jobs and why they wait, failures by cause."""
    from datetime import datetime

    from hpotune.launch.dead import lost
    from hpotune.launch.queue import rows_or_unknown
    from hpotune.report import summary, tables

    place, ours, store = opened(study, folder)
    rows = store.rows()
    jobs, silent = rows_or_unknown(place, rows)
    told = summary.status(place, ours.config, rows, jobs, lost(store, jobs), now=datetime.now())
    if silent:
        told["cluster"] = f"not reachable: {silent}"
        typer.echo(f"warning: the cluster is {told['cluster']}", err=True)
    print_json(told) if as_json else show(tables.status(told))


@app.command()
def trials(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """The table of trials."""
    from hpotune.report import summary, tables

    _, ours, store = opened(study, folder)
    told = [summary.trial(ours.config.score.objective, row) for row in store.rows() if row.state != "waiting"]
    print_json(told) if as_json else show(tables.trials(told))


@app.command()
def best(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """The best setting, with its error, its gain over the untouched model, and what it cannot be told from."""
    place, ours, store = opened(study, folder)
    tell_best(place, ours, store, as_json=as_json)


@app.command()
def logs(
    study: Target,
    number: Annotated[int, typer.Argument(help="The trial's number.")],
    folder: Folder = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines; 0: all.")] = 40,
) -> None:
    """A trial's log."""
    from hpotune.errors import HpotuneError
    from hpotune.study.folder import folder_of

    path = folder_of(study, chosen=folder).trial(number) / "log.txt"
    if not path.is_file():
        raise HpotuneError(
            f"trial {number} has no log ({path}); `hpotune trials` lists those that have started"
        )
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    typer.echo("\n".join(text[-lines:] if lines else text))
