"""Verbs that continue a study: resume, extend, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import (
    RUN,
    AsJson,
    DataRoot,
    Folder,
    Target,
    app,
    open_study,
    print_json,
    print_notes,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpotune.config.schema.study_config import StudyConfig
    from hpotune.records.stop_reason import StopReason
    from hpotune.records.trial import TrialRow
    from hpotune.workspace.folder import StudyFolder


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

    from hpotune.cli.after_search import repeats_left
    from hpotune.cli.run import run, submit
    from hpotune.config.load import load_study
    from hpotune.errors import StudyFileError
    from hpotune.launch.extend import ran_on_slurm
    from hpotune.report.advice import stop_advice

    if here and slurm:
        raise StudyFileError("--here and --slurm exclude each other; give one of them")
    found, opened, store = open_study(study, folder)
    rows = store.rows()
    file = study if study.is_file() else found.study_file  # where its budget may have been raised by hand
    edited = load_study(file) if file.is_file() else found.load()
    changed = _changed_after_search(edited.config, opened.config)
    reason = _stop_reason(found.in_force(edited).config, rows)
    if reason and changed:
        from hpotune.launch.prepare import prepare

        prepare(study, chosen=folder, data_root=data_root)
        print_notes([f"{key} of the study file now applies" for key in changed])
        found, opened, store = open_study(study, folder)
    if reason and not repeats_left(found, opened, rows):
        advice = stop_advice(reason, found.path)
        print_json({"over": reason.text, "next": advice}) if as_json else say(
            f"the study is over: {reason.text}\nnext: {advice}"
        )
        raise typer.Exit(1 if reason.is_failure else 0)
    if slurm or (not here and ran_on_slurm(found, rows)):
        submit(study, folder=folder, data_root=data_root, as_json=as_json)
        return
    found.cancelled.unlink(missing_ok=True)
    run(study, folder=folder, data_root=data_root, as_json=as_json)


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
    from hpotune.errors import StudyFileError
    from hpotune.launch.extend import extend_study
    from hpotune.records.derived_points import check_not_derived

    asked = {
        "trials": trials, "gpu_hours": gpu_hours, "wall_time": wall_time, "until": until, "max_failed": max_failed,
        "parallel": parallel,
    }  # fmt: skip
    given = {key: text for key, text in asked.items() if text is not None}
    if not given:
        raise StudyFileError(
            "extend needs a limit to raise, e.g. --trials +20; `hpotune extend --help` lists them"
        )
    found, opened, store = open_study(study, folder, write=True)
    check_not_derived(
        found.path,
        opened.config,
        verb="extend",
        advice="raise search.repeats or search.finalists there, then `hpotune resume` it",
    )
    rows = store.rows()
    changed, config = extend_study(found, given, finished=sum(row.decided for row in rows))
    store = open_study(found.path, None, write=True)[2]
    store.append_waiting()
    running = sum(row.state == "running" for row in rows)
    advice = _next(
        found, running=running, reason=_stop_reason(config, rows), more_parallel="parallel" in changed
    )
    if as_json:
        print_json({"changed": changed, "running": running, "next": advice})
        return
    for key, pair in changed.items():
        before, after = ("no limit" if value is None else value for value in pair)
        say(f"budget.{key}: {before} -> {after}")
    say(f"next: {advice}" if changed else "nothing changed: these limits are in force already")


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
    from hpotune.launch.extend import trials_to_retry
    from hpotune.launch.prepare import snapshot_current_code

    found, loaded, store = open_study(study, folder, write=True)
    rows = store.rows()
    failed = trials_to_retry(rows, numbers=numbers or [], cause=cause)
    retried = store.retry([row.number for row in failed]) if failed else {}
    running = sum(row.state == "running" for row in rows)
    reason = _stop_reason(loaded.config, store.rows())
    advice = _next(found, running=running, reason=reason, more_parallel=False) if retried else ""
    if retried:
        print_notes(snapshot_current_code(found).notes)
    if as_json:
        print_json({"retried": retried, "running": running, "next": advice})
        return
    for row in failed:
        why = f"{row.failure.cause}: {row.failure.message}" if row.failure else "unknown"
        say(f"trial {row.number} ({why}) -> trial {retried[row.number]}")
    of_cause = f" with cause {cause}" if cause else ""
    say(
        f"next: {advice}"
        if retried
        else f"nothing to retry: no failed trial{of_cause} that is not retried already"
    )


def _changed_after_search(edited: StudyConfig, opened: StudyConfig) -> list[str]:
    """What an edited study file changes although the search is over: the rule, and what follows the search."""
    pairs = {
        "the rule `best`": (edited.best, opened.best),
        "search.finalists": (edited.search.finalists, opened.search.finalists),
        "search.repeats": (edited.search.repeats, opened.search.repeats),
    }
    return [key for key, (now, before) in pairs.items() if now != before]


def _stop_reason(config: StudyConfig, rows: Sequence[TrialRow]) -> StopReason | None:
    """Why no further trial may start; None while one may."""
    from datetime import datetime

    from hpotune.schedule.stopping_criterion import stop_reason

    return stop_reason(config, rows, now=datetime.now())


def _next(folder: StudyFolder, *, running: int, reason: StopReason | None, more_parallel: bool) -> str:
    """What to do now, in one line."""
    from shlex import quote

    from hpotune.report.advice import stop_advice

    path = quote(str(folder.path))
    if reason:
        return f"{stop_advice(reason, folder.path)} (the study is still over: {reason.text})"
    if running and not more_parallel:
        return f"nothing: the workers of the {running} running trials continue with it"
    if running:
        return f"hpotune submit {path} (adds workers; a `hpotune run` keeps its number of workers)"
    return f"hpotune resume {path}"
