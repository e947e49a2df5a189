"""Verbs that show a study, or wait for its end: status, wait, trials, best, why, logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import LOOK, AsJson, Folder, Target, app, print_json, print_note, say, show

if TYPE_CHECKING:
    from hpotune.config.schema.study_config import StudyConfig
    from hpotune.records.trial import TrialRow
    from hpotune.reporting.views.status import StudyStatus
    from hpotune.workspace.folder import StudyFolder

Number = Annotated[int, typer.Argument(metavar="N", help="The trial's number.")]


def read_trials(target: Path, chosen: Path | None) -> tuple[StudyFolder, StudyConfig, list[TrialRow]]:
    """The folder, the study as it is now, and its trials."""
    from hpotune.api.opened_study import read_trials as read

    return read(target, chosen, note=print_note)


@app.command(rich_help_panel=LOOK)
def status(
    study: Target,
    folder: Folder = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep it up to date until the study is over; Ctrl-C leaves.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=5, metavar="SECONDS", help="Seconds between two updates.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Show progress, the best trial so far, jobs, failures and cost.

    Also why jobs wait, when the study is expected to end, and what to do where it has stopped.
    """
    from datetime import datetime

    from hpotune.api.study_views import read_status

    if watch:
        from hpotune.reporting.watch import watch as show_updates

        show_updates(lambda: read_status(study, folder, note=print_note), every_s=every, as_json=as_json)
        return
    found = read_status(study, folder, note=print_note)
    if found.cluster is not None:
        say(f"warning: cluster: {found.cluster}", err=True)
    if as_json:
        print_json(found)
        return
    from hpotune.reporting.status_table import status_table

    show(status_table(found, now=datetime.now()))


@app.command(rich_help_panel=LOOK)
def wait(
    study: Target,
    folder: Folder = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0, metavar="SECONDS", help="Give up after this time [default: no limit]."
        ),
    ] = None,
    every: Annotated[
        float, typer.Option("--every", min=1, metavar="SECONDS", help="Seconds between two looks.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Return once the study has ended, or nothing runs for it.

    The exit code is 0 if it reached its end, 1 if failures or `cancel` ended it, or if trials are left and for
    ten minutes no job or worker was there to run them; 124 if it has not ended within --timeout.
    """
    from hpotune.api.stop_study import outcome, wait_for_end
    from hpotune.api.study_views import read_status
    from hpotune.errors import HpotuneError
    from hpotune.reporting.watch import line

    def read() -> StudyStatus:
        return read_status(study, folder, note=print_note)

    found = wait_for_end(read, timeout=timeout, every_s=every, note=print_note)
    print_json(found) if as_json else say(line(found))
    if text := outcome(found):
        raise HpotuneError(text)


@app.command(rich_help_panel=LOOK)
def trials(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """List the trials: states, scores, parameters, times, failures."""
    from hpotune.api.study_views import trial_views
    from hpotune.reporting.tables import trials_table
    from hpotune.schedule.best_trials import pareto_trials

    _, config, rows = read_trials(study, folder)
    objectives = config.score.objective
    views = trial_views(config, rows)
    front = {row.number for row in pareto_trials(objectives, rows)} if len(objectives) > 1 else set()
    print_json(views) if as_json else show(trials_table(views, front=front))


@app.command(rich_help_panel=LOOK)
def best(
    study: Target,
    folder: Folder = None,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="Another rule than that of the study file, for this output only: 'maximize: hellaswag/acc_norm, "
            'subject_to: "peak_memory_gb <= 38"\'.',
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the best trial and whether it beats the base model.

    Differences from the base model and from other trials come with their 95 % confidence intervals. With several
    objectives also the Pareto front, and which of its trials are certain.
    """
    from hpotune.api.study_views import read_best
    from hpotune.reporting.best_table import best_table

    result = read_best(study, folder, rule=rule, note=print_note)
    print_json(result) if as_json else show(best_table(result))


@app.command(rich_help_panel=LOOK)
def why(study: Target, number: Number, folder: Folder = None, as_json: AsJson = False) -> None:
    """Explain why a trial ended as it did, and what to do.

    Shows its attempts, what the study's retry rules did, and the lines of its log that matter.
    """
    from datetime import datetime

    from hpotune.reporting.views.why import why_result
    from hpotune.reporting.why_table import why_table
    from hpotune.slurm.job_logs import job_logs

    found, config, rows = read_trials(study, folder)
    result = why_result(found, config, rows, number, logs_of=lambda job: job_logs(found, job))
    print_json(result) if as_json else show(why_table(result, now=datetime.now()))


@app.command(rich_help_panel=LOOK)
def logs(
    study: Target,
    number: Annotated[int | None, typer.Argument(metavar="N", help="The trial's number.")] = None,
    folder: Folder = None,
    job: Annotated[
        str | None,
        typer.Option(
            "--job", metavar="ID", help="A job's own log instead: 12, 12_3, or `local` for workers here."
        ),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines; 0: all.")] = 40,
) -> None:
    """Print the log of a trial, or with --job of a job.

    A job's log holds what its script and its worker wrote, such as why the worker could not start.
    """
    from hpotune.errors import StudyFileError
    from hpotune.workspace.folder import folder_of

    found = folder_of(study, chosen=folder)
    if (number is None) == (job is None):
        raise StudyFileError("logs: needs a trial's number, or --job ID; give one of them")
    if job is not None:
        _print_job_logs(found, job, lines=lines)
        return
    path = found.trusted_trial(number or 0) / "log.txt"
    if not path.is_file():
        raise StudyFileError(
            f"trial {number} has no log ({path}); `hpotune trials` lists those that have started"
        )
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.strip():
        _print_last(text, lines)
    else:
        say(f"trial {number} has written nothing so far; `hpotune why` shows what its job wrote", err=True)


def _print_job_logs(folder: StudyFolder, job: str, *, lines: int) -> None:
    """Prints each log of a job below its path, as `tail` does.

    Raises: StudyFileError where there is none.
    """
    from hpotune.errors import StudyFileError
    from hpotune.records.trial import LOCAL
    from hpotune.slurm.job_logs import JOB, job_logs

    if job != LOCAL and not JOB.fullmatch(job):
        raise StudyFileError(f"--job {job!r}: is no job id; needs 12, an element such as 12_3, or `local`")
    paths = job_logs(folder, job)
    if not paths:
        numbers = sorted((path.name for path in folder.jobs.glob("*") if path.name.isdecimal()), key=int)
        known = f"the study's jobs: {', '.join(numbers)}" if numbers else "no job of the study was submitted"
        raise StudyFileError(
            f"--job {job}: has no log in {folder.jobs}, and Slurm names none; perhaps it has not started; {known}"
        )
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        say(f"==> {path} <==" + ("" if text.strip() else "\n(empty)"))
        if text.strip():
            _print_last(text, lines)


def _print_last(text: str, lines: int) -> None:
    from hpotune.config.text.outside_text import without_colours

    every = without_colours(text).splitlines()
    say("\n".join(every[-lines:] if lines else every))
