"""Verbs that make a study run or stop: run, submit, cancel, and what jobs run: worker, step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import AsJson, DataRoot, Folder, Target, app, opened, print_json, tell, tell_best

if TYPE_CHECKING:
    from hpotune.config.load import Study
    from hpotune.storage import Store
    from hpotune.workspace.folder import StudyFolder


@app.command()
def run(study: Target, folder: Folder = None, data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """Run the study here and now, on this machine; running it again goes on."""
    from hpotune.launch.prepare import prepare
    from hpotune.launch.run_local import check_local, run_here
    from hpotune.planning.study_plan import record_plan
    from hpotune.report.progress import Progress

    ready = prepare(
        study, chosen=folder, data_root=data_root, accept=lambda _, ours: check_local(ours.config)
    )
    config = ready.study.config
    typer.echo(f"{config.name}: {ready.folder.path}\nstore: {ready.store_url} ({ready.why})", err=True)
    tell(ready.notes)
    record_plan(ready.folder, config, local=True)
    with Progress(ready.folder, config, ready.store, silent=as_json) as progress:
        done = run_here(ready.folder, ready.store, config, show=progress.show)
    tell_best(ready.folder, ready.study, ready.store, as_json=as_json)
    if not done:
        typer.echo(f"stopped; `hpotune run {study}` goes on where it was", err=True)
        raise typer.Exit(130)
    exit_by_outcome(ready.store)
    _tell_early_end(ready.store)


@app.command()
def submit(study: Target, folder: Folder = None, data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """Submit the study to Slurm; returns at once. Submitting again adds only what is missing."""
    from datetime import datetime

    from hpotune.launch.follow_up import first_jobs, step
    from hpotune.launch.prepare import prepare
    from hpotune.planning.study_plan import record_plan
    from hpotune.slurm.submit import check_accepted

    def accept(place: StudyFolder, ours: Study) -> None:
        for spec in first_jobs(ours.config, now=datetime.now()):
            check_accepted(place, ours.config, spec)

    ready = prepare(study, chosen=folder, data_root=data_root, accept=accept)
    record_plan(ready.folder, ready.study.config)
    done = step(ready.folder, ready.store, ready.study.config, now=datetime.now())
    tell(ready.notes)
    if done.warning:
        typer.echo(f"warning: {done.warning}", err=True)
    if as_json:
        print_json(
            {
                "folder": str(ready.folder.path),
                "store": ready.store_url,
                "submitted": list(done.submitted),
                "swept": list(done.swept),
            }
        )
        return
    typer.echo(f"{ready.study.config.name}: {ready.folder.path}\nstore: {ready.store_url} ({ready.why})")
    for id_ in done.submitted:
        typer.echo(f"submitted job {id_}: {ready.folder.jobs / id_}")
    typer.echo(
        f"next: hpotune status {ready.folder.path}"
        if done.submitted
        else "nothing is missing: no job was submitted"
    )


@app.command()
def cancel(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """Stop the study's queued and running jobs; what is finished stays, running trials go back in line."""
    from hpotune.launch.cancel import cancel_study

    place, _, store = opened(study, folder, write=True)
    stopped = cancel_study(place, store)
    print_json({"cancelled": stopped}) if as_json else typer.echo(
        f"stopped: {', '.join(stopped) or 'nothing was there to stop'}"
    )


@app.command()
def worker(
    study: Target,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="End after so many [until the study is over].")
    ] = None,
    code: Annotated[
        str | None, typer.Option("--code", help="The snapshot of the study's code that it runs [a new one].")
    ] = None,
    follow_up: Annotated[
        bool,
        typer.Option("--follow-up", help="At the end submit what is missing, as the follow-up job does."),
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """What a job runs: take trials, evaluate them. In your own sbatch file the first worker makes the study."""
    import platform

    env = dict(os.environ)  # of its trials
    # the search's matrices are small: threads that share a busy core with the trial's make them a hundred times slower
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from hpotune.launch.prepare import prepare, retaken
    from hpotune.slurm.job_time import job_end, leave_out, requeue_cause
    from hpotune.worker import this_worker, work
    from hpotune.workspace.folder import folder_of

    place = folder_of(study)
    if not place.resolved_file.is_file():
        place = prepare(study, chosen=None, data_root=data_root).folder
    elif code is None:  # typed by hand, or in an sbatch file of your own: the code as it is now
        taken = retaken(place).code
        code = taken.hash if taken else None
    me = this_worker(os.environ, host=platform.node())
    end = job_end(place, place.load().config, os.environ, job=me.job)
    again = requeue_cause(os.environ)
    try:
        done = work(place, me=me, trials=trials, env=env, deadline=end, code=code, requeued=again)
        if done.broken_node and leave_out(me.job, me.host):
            typer.echo(
                f"asked Slurm to start nothing more of job {me.job.split('_')[0]} on {me.host}", err=True
            )
    finally:
        if follow_up:
            _step(place.path, ended=[me.job])


@app.command()
def step(
    study: Target,
    ended: Annotated[
        str, typer.Option("--ended", help="Jobs that Slurm has told to have ended: 12,13.")
    ] = "",
) -> None:
    """What the follow-up job runs: tell dead trials, submit what is missing."""
    import platform
    import time

    from hpotune.worker import this_worker
    from hpotune.workspace import heartbeat
    from hpotune.workspace.folder import folder_of

    me = this_worker(os.environ, host=platform.node())
    with heartbeat.signed(folder_of(study), me, clock=time.time):
        _step(study, ended=[job for job in ended.split(",") if job])


def _step(study: Path, *, ended: list[str]) -> None:
    from datetime import datetime

    from hpotune.launch.follow_up import step as do_step

    place, ours, store = opened(study, None, write=True, patient=True)
    done = do_step(place, store, ours.config, now=datetime.now(), alone_at_work=True, ended=ended)
    typer.echo(f"told dead: {list(done.swept)}; submitted: {list(done.submitted)}")
    if done.warning:
        typer.echo(f"warning: {done.warning}", err=True)


def _tell_early_end(store: Store) -> None:
    """Says why a study ended before all its trials: a date, a goal, hours."""
    from datetime import datetime

    from hpotune.schedule.stopping_criterion import stop_reason

    rows = store.rows()
    missing = store.config.budget.trials - sum(row.decided for row in rows)
    if missing > 0 and (reason := stop_reason(store.config, rows, now=datetime.now())):
        typer.echo(f"ended with {missing} trials left: {reason.text}", err=True)


def exit_by_outcome(store: Store) -> None:
    """Exit code 1 when the study ended with fewer trials than its budget, unless it was to stop there."""
    from datetime import datetime

    from hpotune.errors import HpotuneError
    from hpotune.launch.run_local import shortfall

    if why := shortfall(store.config, store.rows(), now=datetime.now()):
        raise HpotuneError(why)
