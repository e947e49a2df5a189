"""Verbs that start and stop a study: run, submit, cancel; and what jobs run: worker, follow-up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import (
    JOBS,
    RUN,
    Adopt,
    AsJson,
    DataRoot,
    Folder,
    Target,
    app,
    load_study_of,
    open_study,
    print_json,
    print_note,
    printed_messages,
    say,
    show,
)
from hpotune.cli.rehearse import MEMORY_GB, TIME_S, Memory, NoRehearsal, Time

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpotune.api.start_study import StartOptions
    from hpotune.worker.loop import WorkerResult
    from hpotune.workspace.folder import StudyFolder


@app.command(rich_help_panel=RUN)
def run(
    study: Target,
    folder: Folder = None,
    adopt: Adopt = False,
    no_rehearsal: NoRehearsal = False,
    memory: Memory = MEMORY_GB,
    time: Time = TIME_S,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Run the study on this machine; running it again continues it.

    On a terminal it shows the running trials with their phases, and the best one so far; elsewhere a line for each
    change. The trials are rehearsed first, as `check` does; a mistake stops the study before anything is written.
    """
    from hpotune.api.start_study import run_here
    from hpotune.errors import HpotuneError
    from hpotune.reporting.best_table import best_table
    from hpotune.reporting.views.best import best_result

    options = _options(folder, adopt, no_rehearsal, memory, time, data_root)
    end = run_here(study, options, messages=printed_messages(progress=not as_json))
    prepared = end.prepared
    best = best_result(prepared.folder, prepared.study.config, prepared.store.rows())
    print_json(best) if as_json else show(best_table(best))
    if not end.finished:
        say(f"interrupted; `hpotune run {study}` continues it", err=True)
        raise typer.Exit(130)
    if end.failure:
        raise HpotuneError(end.failure)
    if end.early_stop:
        say(end.early_stop, err=True)


def _options(
    folder: Path | None,
    adopt: bool,
    no_rehearsal: bool,
    memory: float,
    time: float,
    data_root: str | None,
) -> StartOptions:
    from hpotune.api.start_study import StartOptions
    from hpotune.checks.rehearsal import Limits

    return StartOptions(
        folder=folder,
        adopt=adopt,
        rehearse=not no_rehearsal,
        limits=Limits(memory_gb=memory, seconds=time),
        data_root=data_root,
    )


@app.command(rich_help_panel=RUN)
def submit(
    study: Target,
    folder: Folder = None,
    adopt: Adopt = False,
    no_rehearsal: NoRehearsal = False,
    memory: Memory = MEMORY_GB,
    time: Time = TIME_S,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Submit the study to Slurm or HyperQueue, and return at once.

    Submitting again adds only the jobs that are missing. The trials are rehearsed first, as `check` does; a mistake
    stops the study before anything is written or submitted. With `resources.rehearsal: job` a small job does it.
    """
    from hpotune.api.start_study import submit_study
    from hpotune.workspace.folder import StudyFolder

    options = _options(folder, adopt, no_rehearsal, memory, time, data_root)
    done = submit_study(study, options, messages=printed_messages(progress=not as_json))
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "store": done.store,
                "submitted": list(done.submitted),
                "submitted_repeats": list(done.submitted_repeats),
                "swept": list(done.requeued),
            }
        )
        return
    found = StudyFolder(path=done.folder)
    say(f"{done.study}: {done.folder}\nstore: {done.store} ({done.store_reason})")
    for id_ in done.submitted:
        say(f"submitted job {id_}: {found.jobs / id_}")
    for id_ in done.submitted_repeats:
        say(f"submitted job {id_} (repeats): {found.repeats.jobs / id_}")
    say(
        f"next: hpotune status {done.folder}"
        if done.submitted or done.submitted_repeats
        else "no job is missing: nothing was submitted"
    )


@app.command(rich_help_panel=RUN)
def cancel(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """Stop the study's jobs; `resume` continues it later.

    Finished trials stay; running trials are interrupted and wait for a worker.
    """
    from hpotune.api.stop_study import stop_study

    stopped = stop_study(study, folder, note=print_note)
    print_json({"cancelled": stopped}) if as_json else say(
        f"stopped: {', '.join(stopped) or 'nothing was running'}"
    )


@app.command(rich_help_panel=JOBS)
def worker(
    study: Target,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="End after this many [default: when the study is over]."),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option("--code", help="The code snapshot to run [default: a new one]."),
    ] = None,
    follow_up: Annotated[
        bool,
        typer.Option("--follow-up", help="At the end submit what is missing, as a follow-up job does."),
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Run trials until the study is over; jobs call this.

    It may stand in an sbatch file of your own: the first worker makes the study.
    """
    import platform
    from functools import partial

    from hpotune.records.trial import ENDS_WITH_STDIN, HYPERQUEUE_TASK
    from hpotune.worker.objective.process import end_with_stdin

    if os.environ.pop(ENDS_WITH_STDIN, ""):
        end_with_stdin()
    env = dict(os.environ)  # of its trials
    # the search's matrices are small: threads that share a busy core with the trial's make them a hundred times slower
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from hpotune.launch.prepare import prepare, snapshot_current_code
    from hpotune.slurm.job_loss import job_loss, requeue_cause
    from hpotune.slurm.job_time import job_times, query_times
    from hpotune.slurm.study_jobs import exclude_node
    from hpotune.slurm.submission import belongs_to_study
    from hpotune.worker.loop import WorkerLoop, this_worker
    from hpotune.workspace.folder import folder_of
    from hpotune.workspace.snapshot_users import using_snapshot

    folder = folder_of(study)
    if not folder.resolved_file.is_file():
        prepared = prepare(study, chosen=None, data_root=data_root)
        folder, code = prepared.folder, code or prepared.code
    elif code is None:  # started by hand, or in an sbatch file of the user's own: the code as it is now
        snapshot = snapshot_current_code(folder).code
        code = snapshot.hash if snapshot else None
    if not belongs_to_study(folder.jobs, os.environ):
        say("this array was submitted again, since sbatch gave no answer: it ends here", err=True)
        return
    me = this_worker(os.environ, host=platform.node())
    config = folder.load().config
    times = job_times(folder, config, os.environ, job=me.job)
    asks_slurm = times is not None and HYPERQUEUE_TASK not in os.environ

    def run_once() -> WorkerResult:
        loop = WorkerLoop.open(
            folder,
            worker=me,
            env=env,
            deadline=times.end if times else None,
            limit_s=times.limit_s if times else None,
            ask_times=partial(query_times, folder, me.job) if asks_slurm else None,
            ask_loss=partial(job_loss, os.environ, me) if asks_slurm else None,
            code=code,
            requeue_cause=requeue_cause(os.environ),
        )
        return loop.run(trials=trials)

    done = None
    with using_snapshot(folder, code, job=me.job):
        try:
            done = run_once()
            of_slurm = HYPERQUEUE_TASK not in os.environ
            if (
                done.broken_node
                and of_slurm
                and exclude_node(me.job, me.host, partition=config.resources.partition)
            ):
                say(f"asked Slurm to start no more of job {me.job.split('_')[0]} on {me.host}", err=True)
        finally:
            if follow_up:
                _follow_up(folder.path, ended=[me.job])
        if not follow_up:
            _stand_in(folder, done, again=run_once, job=me.job)


def _stand_in(
    folder: StudyFolder, done: WorkerResult, *, again: Callable[[], WorkerResult], job: str
) -> None:
    """Do the work of a follow-up job that is not there.

    Where limits leave no room for further jobs, this one runs more trials; at the end of its time it is requeued.
    """
    from hpotune.launch.next_follow_up import requeue_own_job, stands_in
    from hpotune.slurm.cluster_limits import SubmitLimitReached

    _, loaded, store = open_study(folder.path, None, write=True, patient=True)
    while done.ended_by != "signal" and stands_in(folder, loaded.config, store, job=job):
        try:
            _follow_up(folder.path, ended=[job])
            return
        except SubmitLimitReached as error:
            say(f"no room for another job: {error}", err=True)
            if done.trials == 0 or (done.ended_by == "time" and not requeue_own_job(os.environ)):
                raise
        if done.ended_by == "time":
            say("requeued this job: it continues the study when it starts again", err=True)
            return
        say("this job runs the next trials itself", err=True)
        done = again()


@app.command(rich_help_panel=JOBS)
def rehearse(study: Target) -> None:
    """Rehearse a study as a job; rehearsal jobs call this.

    Its result is the study's rehearsal.json; the exit code is 2 if there is a mistake.
    """
    from hpotune.checks.rehearsal import NO_LIMITS, record_rehearsal
    from hpotune.checks.rehearsal import rehearse as rehearse_study

    folder, loaded = load_study_of(study, None)
    rehearsal = rehearse_study(loaded, limits=NO_LIMITS, show=say)
    record_rehearsal(folder, rehearsal)
    rehearsal.raise_mistakes(loaded, complete=True)


Ended = Annotated[str, typer.Option("--ended", help="Jobs that Slurm reports as ended: 12,13.")]


@app.command(rich_help_panel=JOBS)
def follow_up(study: Target, ended: Ended = "") -> None:
    """Submit the jobs that are missing; follow-up jobs call this.

    Trials of stale workers are requeued or fail first.
    """
    import platform
    import time

    from hpotune.launch.next_follow_up import requeue_own_job
    from hpotune.slurm.cluster_limits import SubmitLimitReached
    from hpotune.worker.loop import this_worker
    from hpotune.workspace.folder import folder_of
    from hpotune.workspace.heartbeat import Heartbeat

    me = this_worker(os.environ, host=platform.node())
    with Heartbeat(folder=folder_of(study), worker=me).recorded(clock=time.time):
        try:
            _follow_up(study, ended=[job for job in ended.split(",") if job])
        except (
            SubmitLimitReached
        ) as error:  # its own slot in the queue is kept until there is room for a worker
            say(f"no room for another job: {error}", err=True)
            if not requeue_own_job(os.environ):
                raise
            say("requeued this job: it tries again when it starts", err=True)


@app.command(hidden=True)
def step(study: Target, ended: Ended = "") -> None:
    """The old name of `follow-up`, for job scripts that are already in a queue."""
    follow_up(study, ended)


def _follow_up(study: Path, *, ended: list[str]) -> None:
    from datetime import datetime

    from hpotune.api.after_search import submit_repeats
    from hpotune.launch.follow_up import follow_up as submit_missing
    from hpotune.slurm.job_usage import record_usage

    folder, loaded, store = open_study(study, None, write=True, patient=True)
    done = submit_missing(folder, store, loaded.config, now=datetime.now(), unattended=True, ended=ended)
    record_usage(folder)
    lost, jobs = (", ".join(map(str, found)) or "none" for found in (done.requeued, done.submitted))
    say(f"trials of stale workers: {lost}; submitted jobs: {jobs}")
    repeats, warning = submit_repeats(folder, unattended=True, note=print_note)
    if repeats:
        say(f"submitted jobs of the repeats: {', '.join(repeats)}")
    for text in filter(None, [done.warning, warning]):
        say(f"warning: {text}", err=True)
