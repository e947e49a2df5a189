"""Verbs that continue a study: resume, extend, retry."""

from __future__ import annotations

from typing import Annotated

import typer

from hpotune.cli.common import (
    RUN,
    AsJson,
    DataRoot,
    Folder,
    Target,
    app,
    chosen_where,
    print_json,
    print_note,
    say,
)


@app.command(rich_help_panel=RUN)
def resume(
    study: Target,
    here: Annotated[bool, typer.Option("--here", help="On this machine, even if it ran on Slurm.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="On Slurm, even if it ran on this machine.")] = False,
    folder: Folder = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Continue a cancelled, interrupted or extended study.

    It runs where it ran before: on this machine or on Slurm.
    """
    from hpotune.api.continue_study import next_start
    from hpotune.cli.run import run, submit

    where = chosen_where(here=here, slurm=slurm)
    start = next_start(study, folder, data_root=data_root, where=where, note=print_note)
    if start.where == "slurm":
        submit(study, folder=folder, data_root=data_root, as_json=as_json)
    elif start.where == "here":
        run(study, folder=folder, data_root=data_root, as_json=as_json)
    else:
        reason = start.reason
        assert reason is not None, "it is over for a reason"
        print_json({"over": reason.text, "next": start.advice}) if as_json else say(
            f"the study is over: {reason.text}\nnext: {start.advice}"
        )
        raise typer.Exit(1 if reason.is_failure else 0)


@app.command(rich_help_panel=RUN)
def extend(
    study: Target,
    trials: Annotated[str | None, typer.Option(help="Finished trials: +20, or 70 in total.")] = None,
    gpu_hours: Annotated[str | None, typer.Option(help="GPU-hours: +50, 200 in total, or none.")] = None,
    wall_time: Annotated[
        str | None, typer.Option(help="Time since the first trial: +12:00:00, or none.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Latest date or time: 2026-12-31, or none.")] = None,
    max_failed: Annotated[str | None, typer.Option(help="Failed trials: +5, or 10 in total.")] = None,
    parallel: Annotated[str | None, typer.Option(help="Trials at the same time: +4, or 8 in total.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Raise the budget of a finished or running study.

    A value with + is added to the present limit; `none` removes it.
    """
    from hpotune.api.continue_study import raise_budget
    from hpotune.errors import StudyFileError

    asked = {
        "trials": trials, "gpu_hours": gpu_hours, "wall_time": wall_time, "until": until, "max_failed": max_failed,
        "parallel": parallel,
    }  # fmt: skip
    given = {key: text for key, text in asked.items() if text is not None}
    if not given:
        raise StudyFileError(
            "extend needs a limit to raise, e.g. --trials +20; `hpotune extend --help` lists them"
        )
    done = raise_budget(study, folder, limits=given, note=print_note)
    if as_json:
        print_json(done)
        return
    for key, pair in done.changed.items():
        before, after = ("no limit" if value is None else value for value in pair)
        say(f"budget.{key}: {before} -> {after}")
    say(f"next: {done.next}" if done.changed else "nothing changed: these limits are in force already")


@app.command(rich_help_panel=RUN)
def retry(
    study: Target,
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="N...", help="Numbers of failed trials [default: all].")
    ] = None,
    cause: Annotated[
        str | None, typer.Option("--cause", help="Only trials that failed with this cause, e.g. oom.")
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Repeat failed trials, once their cause is fixed.

    Each point is tried again under a new number; the old failures no longer count against the budget.
    """
    from hpotune.api.continue_study import retry_trials

    done = retry_trials(study, folder, numbers=numbers or [], cause=cause, note=print_note)
    if as_json:
        print_json({"retried": done.retried, "running": done.running, "next": done.next})
        return
    for row in done.failed:
        why = f"{row.failure.cause}: {row.failure.message}" if row.failure else "unknown"
        say(f"trial {row.number} ({why}) -> trial {done.retried[row.number]}")
    of_cause = f" with cause {cause}" if cause else ""
    say(
        f"next: {done.next}"
        if done.retried
        else f"nothing to retry: no failed trial{of_cause} that is not retried already"
    )
