"""Starts a study: here with workers of this machine, or as Slurm jobs. What follows its search is started too."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hpotune.api.after_search import run_prepared, run_repeats, submit_repeats
from hpotune.api.call_messages import Messages
from hpotune.api.rehearsed_start import FirstRehearsal
from hpotune.checks.rehearsal import Limits
from hpotune.config.load import Study
from hpotune.errors import HpotuneError
from hpotune.launch.follow_up import first_jobs, follow_up
from hpotune.launch.prepare import PreparedStudy, prepare
from hpotune.launch.run_local import check_local, shortfall
from hpotune.planning.study_plan import record_plan
from hpotune.planning.thread_probe import probe_threads, write_choice
from hpotune.records.thread_choice import read_choice
from hpotune.schedule.rounds import width
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.slurm.commands import SUBMIT_S, limited_time
from hpotune.slurm.submit import check_submittable
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class StartOptions:
    """How a study is prepared before it starts."""

    folder: Path | None = None
    """The study's folder; None: NAME beside the file."""
    adopt: bool = False
    """Go on with trials that the store holds of this study, whose folder is gone."""
    rehearse: bool = True
    limits: Limits = field(default_factory=Limits)
    """Of the rehearsal."""
    data_root: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnd:
    """How a run on this machine ended."""

    prepared: PreparedStudy
    finished: bool
    """False: a signal or `hpotune cancel` stopped it."""

    @property
    def failure(self) -> str:
        """Why it ended with fewer trials than its budget; empty where nothing is wrong."""
        store = self.prepared.store
        return shortfall(store.config, store.rows(), now=datetime.now())

    @property
    def early_stop(self) -> str:
        """Why it stopped before its last trial (a goal, a date, hours); empty where it did not."""
        store = self.prepared.store
        rows = store.rows()
        missing = store.config.budget.trials - sum(row.decided for row in rows)
        if missing > 0 and (reason := stop_reason(store.config, rows, now=datetime.now())):
            return f"stopped with {missing} trials left: {reason.text}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmitResult:
    """What was submitted."""

    study: str
    folder: Path
    store: str
    store_reason: str
    """Why this store."""
    submitted: tuple[str, ...]
    """Ids of the jobs."""
    submitted_repeats: tuple[str, ...]
    """Ids of the jobs of the repeats."""
    requeued: tuple[int, ...]
    """Numbers of lost trials that were requeued or failed."""


def run_here(target: Path, options: StartOptions, *, messages: Messages) -> RunEnd:
    """Run the study on this machine until it is over or is stopped, then the repeats of its finalists.

    Raises: HpotuneError before anything is written for a mistake, or where workers or repeats fail.
    """
    first = _first_rehearsal(options, messages)

    def accept(found: StudyFolder, checked: Study) -> None:
        check_local(checked.config)
        first.rehearse(checked, found)

    prepared = prepare(
        target, chosen=options.folder, data_root=options.data_root, accept=accept, adopt=options.adopt
    )
    first.record(prepared.folder)
    config = prepared.study.config
    messages.info(f"{config.name}: {prepared.folder.path}\nstore: {prepared.store_url} ({prepared.why})")
    messages.notes(prepared.notes)
    record_plan(prepared.folder, config, local=True)
    _choose_threads(prepared, messages)
    done = run_prepared(prepared, show=messages.progress)
    return RunEnd(prepared=prepared, finished=done and run_repeats(prepared.folder, messages=messages))


def _choose_threads(prepared: PreparedStudy, messages: Messages) -> None:
    """Measure once what `resources.threads: auto` stands for, where the environment leaves it open."""
    folder, study = prepared.folder, prepared.study
    if study.config.resources.threads != "auto":
        return
    if given := os.environ.get("OMP_NUM_THREADS"):
        messages.note(f"resources.threads: auto: OMP_NUM_THREADS={given} of the environment is used")
        return
    choice = read_choice(folder.path)
    if choice is None:
        cores = len(os.sched_getaffinity(0))
        messages.info(f"measuring how many trials train best on {cores} cores")
        most = min(width(study.config), study.config.budget.trials)
        try:
            choice = probe_threads(folder, study, cores=cores, most=most)
        except HpotuneError as error:
            messages.warning(f"resources.threads: auto: {error}; each trial has one thread")
            return
        write_choice(folder.path, choice)
    messages.info(f"threads: {choice.text}")


def submit_study(target: Path, options: StartOptions, *, messages: Messages) -> SubmitResult:
    """Submit the study to Slurm; of one that runs, the jobs that are missing.

    Raises: HpotuneError before anything is written for a mistake, or where Slurm refuses.
    """
    first = _first_rehearsal(options, messages)

    def accept(found: StudyFolder, checked: Study) -> None:
        if checked.config.resources.rehearsal == "here":
            first.rehearse(checked, found)
        for spec in first_jobs(checked.config, now=datetime.now()):
            check_submittable(found, checked.config, spec)

    with limited_time(SUBMIT_S):
        prepared = prepare(
            target, chosen=options.folder, data_root=options.data_root, accept=accept, adopt=options.adopt
        )
        first.record(prepared.folder)
        record_plan(prepared.folder, prepared.study.config)
        done = follow_up(prepared.folder, prepared.store, prepared.study.config, now=datetime.now())
        repeats, warning = submit_repeats(prepared.folder, unattended=False, note=messages.note)
    messages.notes(prepared.notes)
    for text in filter(None, [done.warning, warning]):
        messages.warning(text)
    return SubmitResult(
        study=prepared.study.config.name, folder=prepared.folder.path,
        store=prepared.store_url, store_reason=prepared.why,
        submitted=done.submitted, submitted_repeats=tuple(repeats), requeued=done.requeued,
    )  # fmt: skip


def _first_rehearsal(options: StartOptions, messages: Messages) -> FirstRehearsal:
    return FirstRehearsal(skip=not options.rehearse, limits=options.limits, messages=messages)
