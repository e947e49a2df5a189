"""Verbs that go on with a study that was there before: resume, extend, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import AsJson, DataRoot, Folder, Target, app, opened, print_json, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpotune.config.schema.study_config import StudyConfig
    from hpotune.records.stop_reason import StopKind, StopReason
    from hpotune.records.trial import TrialRow
    from hpotune.workspace.folder import StudyFolder


@app.command()
def resume(
    study: Target,
    here: Annotated[bool, typer.Option("--here", help="On this machine, wherever it ran before.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="On Slurm, wherever it ran before.")] = False,
    folder: Folder = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a study that was cancelled, interrupted or extended, where it ran before."""
    from shlex import quote

    from hpotune.cli import run as verbs
    from hpotune.config.load import load_study
    from hpotune.errors import StudyFileError
    from hpotune.launch.extend import ran_on_slurm

    if here and slurm:
        raise StudyFileError("--here and --slurm exclude each other; keep one")
    place, _, store = opened(study, folder)
    rows = store.rows()
    file = study if study.is_file() else place.study_file  # where its budget may have been raised by hand
    edited = load_study(file if file.is_file() else place.resolved_file)
    over = _over(place.in_force(edited).config, rows)
    if over:
        told = how_to_continue(over, quote(str(place.path)))
        if as_json:
            print_json({"over": over.text, "next": told})
        else:
            typer.echo(f"over: {over.text}\nto continue: {told}")
        raise typer.Exit(1 if over.is_failure else 0)
    if slurm or (not here and ran_on_slurm(place, rows)):
        verbs.submit(study, folder=folder, data_root=data_root, as_json=as_json)
        return
    place.cancelled.unlink(missing_ok=True)
    verbs.run(study, folder=folder, data_root=data_root, as_json=as_json)


@app.command()
def extend(
    study: Target,
    trials: Annotated[str | None, typer.Option(help="Finished trials: +20, or 70 in all.")] = None,
    gpu_hours: Annotated[
        str | None, typer.Option(help="GPU-hours: +50, 200 in all, or none: no limit.")
    ] = None,
    wall_time: Annotated[
        str | None, typer.Option(help="Time since the first trial: +12:00:00, or none.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="The last moment: 2026-12-31, or none.")] = None,
    max_failed: Annotated[str | None, typer.Option(help="Failed trials: +5, or 10 in all.")] = None,
    parallel: Annotated[str | None, typer.Option(help="Trials at a time: +4, or 8 in all.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Raise the budget of a finished or running study; a value with + is added to the one in force."""
    from hpotune.errors import StudyFileError
    from hpotune.launch.extend import extend_study

    asked = {
        "trials": trials, "gpu_hours": gpu_hours, "wall_time": wall_time, "until": until, "max_failed": max_failed,
        "parallel": parallel,
    }  # fmt: skip
    words = {key: word for key, word in asked.items() if word is not None}
    if not words:
        raise StudyFileError(
            "extend needs what to raise, such as --trials +20; `hpotune extend --help` lists all"
        )
    place, _, store = opened(study, folder, write=True)
    rows = store.rows()
    changed, now = extend_study(place, words, finished=sum(row.decided for row in rows))
    store = opened(place.path, None, write=True)[2]
    store.fill()
    running = sum(row.state == "running" for row in rows)
    over = _over(now, rows)
    told = _next(place, running=running, over=over, widened="parallel" in changed)
    if as_json:
        print_json(
            {"changed": {key: list(pair) for key, pair in changed.items()}, "running": running, "next": told}
        )
        return
    for key, (before, after) in changed.items():
        was, now_is = ("no limit" if value is None else value for value in (before, after))
        typer.echo(f"budget.{key}: {was} -> {now_is}")
    typer.echo("nothing has changed: that is in force already" if not changed else f"next: {told}")


@app.command()
def retry(
    study: Target,
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[N]...", help="Numbers of failed trials [all].")
    ] = None,
    cause: Annotated[str | None, typer.Option("--cause", help="Only those that failed of it: oom.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Give failed trials another chance: each point again, under a new number, after its cause was mended."""
    from hpotune.launch.extend import failed_again
    from hpotune.launch.prepare import retaken

    place, ours, store = opened(study, folder, write=True)
    rows = store.rows()
    again = failed_again(rows, numbers=numbers or [], cause=cause)
    mapping = store.retry([row.number for row in again]) if again else {}
    running = sum(row.state == "running" for row in rows)
    now = store.rows()
    told = _next(place, running=running, over=_over(ours.config, now), widened=False) if mapping else ""
    if mapping:
        tell(retaken(place).notes)
    if as_json:
        print_json(
            {"retried": {str(old): new for old, new in mapping.items()}, "running": running, "next": told}
        )
        return
    of = f" of {cause} (or all are tried again)" if cause else " (or all are tried again)"
    for row in again:
        why = f"{row.failure.cause}: {row.failure.message}" if row.failure else "unknown"
        typer.echo(f"trial {row.number} ({why}) -> trial {mapping[row.number]}")
    typer.echo(f"next: {told}" if mapping else f"nothing to retry: no trial has failed{of}")


def _over(config: StudyConfig, rows: Sequence[TrialRow]) -> StopReason | None:
    """Why no further trial may start; None while one may."""
    from datetime import datetime

    from hpotune.schedule.stopping_criterion import stop_reason

    return stop_reason(config, rows, now=datetime.now())


def _next(place: StudyFolder, *, running: int, over: StopReason | None, widened: bool) -> str:
    """What to do now, in one line."""
    from shlex import quote

    here = quote(str(place.path))
    if over:
        return f"{how_to_continue(over, here)} (the study is over still: {over.text})"
    if running and not widened:
        return f"nothing: workers are at it ({running} trials run), and see it by themselves"
    if running:
        return f"hpotune submit {here} (adds workers; those that run, and `hpotune run`, keep their number)"
    return f"hpotune resume {here}"


def how_to_continue(reason: StopReason, here: str) -> str:
    """What the user can do to continue a study that is over. `here`: its folder, quoted for a shell."""
    extend = f"hpotune extend {here}"
    advice: dict[StopKind, str] = {
        "budget_used": f"{extend} --trials +10",
        "goal_reached": f"nothing: it has reached its goal; for a better result copy {here}/study.yaml, "
        "change name and goal",
        "plateau": "nothing: more trials are not expected to find a better one; to continue anyway, lower or remove "
        "budget.plateau in the study file, then hpotune resume with that file",
        "max_failed": f"fix the cause, then hpotune retry {here}; or {extend} --max-failed +5",
        "max_diverged": f"narrow the space in a new study; or {extend} --max-failed +5",
        "equal_failures": f"fix the cause, then hpotune retry {here}",
        "gpu_hours": f"{extend} --gpu-hours +10",
        "wall_time": f"{extend} --wall-time +12:00:00",
        "until": f"{extend} --until YYYY-MM-DD",
        "job_too_short": "raise resources.time in the study file",
    }
    return advice[reason.kind]
