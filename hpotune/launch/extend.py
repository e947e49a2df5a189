"""Raises the budget of an existing study, and selects failed trials for a retry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import get_args

from hpotune.config import budget_extension
from hpotune.config.schema.execution import BudgetConfig, Cause
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError, nearest
from hpotune.records.trial import LOCAL, TrialRow
from hpotune.search.algorithms.registry import check_extended
from hpotune.slurm.study_jobs import submitted_jobs
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock

Changed = dict[str, tuple[Value, Value]]
"""Key of the budget -> its value before and now."""


def extend_study(
    folder: StudyFolder, words: Mapping[str, str], *, finished: int
) -> tuple[Changed, StudyConfig]:
    """Write what the options add to the budget; returns what has changed, and the config that now applies.

    Raises: StudyFileError with one line for each wrong option; then nothing is written.
    """
    with exclusive_lock(folder.jobs / ".extend.lock"):  # two at once would both add to the same number
        study = folder.load_original()
        before = budget_extension.read_extension(folder.extension_file)
        extension = budget_extension.merged_extension(study.config.budget, before, words, finished=finished)
        budget = budget_extension.effective_budget(study.config.budget, extension)
        check_extended(study, study.config.model_copy(update={"budget": budget}))
        write_atomic(folder.extension_file, json.dumps(extension, indent=1) + "\n")
    was, now = budget_extension.effective_budget(study.config.budget, before), folder.in_force(study).config
    return _changed(was, now.budget), now


def _changed(before: BudgetConfig, now: BudgetConfig) -> Changed:
    was, is_ = budget_extension.as_json(before), budget_extension.as_json(now)
    return {key: (was[key], is_[key]) for key in was if was[key] != is_[key]}


def ran_on_slurm(folder: StudyFolder, rows: Sequence[TrialRow]) -> bool:
    """Whether the study ran in jobs that hpotune submitted, else on this machine.

    Raises: StudyFileError where it ran in hand-written jobs.
    """
    if any(job.kind == "worker" for job in submitted_jobs(folder)):
        return True
    own = next((row.worker.job for row in rows if row.worker and row.worker.job != LOCAL), None)
    if own is not None:
        raise StudyFileError(
            f"{folder.path}: ran in job {own} of a hand-written sbatch file; submit that file again, or choose "
            "--here or --slurm"
        )
    return False


def trials_to_retry(rows: Sequence[TrialRow], *, numbers: Sequence[int], cause: str | None) -> list[TrialRow]:
    """The failed trials to retry: those with the given numbers, else all not retried before; of one cause, or of any.

    Raises: StudyFileError for a trial that has not failed, or an unknown cause.
    """
    causes = get_args(Cause)
    if cause is not None and cause not in causes:
        raise StudyFileError(f"--cause {cause}: is not a cause of failure; {nearest(cause, causes)}")
    by_number = {row.number: row for row in rows}
    wrong = [_not_failed(number, by_number.get(number)) for number in dict.fromkeys(numbers)]
    if any(wrong):
        raise StudyFileError(*filter(None, wrong))
    chosen = [by_number[number] for number in dict.fromkeys(numbers)] or [
        row for row in rows if row.state == "failed" and not row.forgiven
    ]
    return [row for row in chosen if cause is None or (row.failure and row.failure.cause == cause)]


def _not_failed(number: int, row: TrialRow | None) -> str:
    """Why a trial cannot be retried; empty if it can."""
    if row is None:
        return f"trial {number}: no such trial; `hpotune trials` lists them"
    if row.state != "failed":
        return f"trial {number}: has not failed (state {row.state}); `hpotune trials` lists the failed ones"
    return (
        f"trial {number}: has been retried already; `hpotune trials` shows the trial that repeats it"
        if row.forgiven
        else ""
    )
