"""Continues a study: goes on where it stopped, raises its budget, repeats its failed trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Literal

from hpotune.api.after_search import repeats_left
from hpotune.api.call_messages import Line
from hpotune.api.opened_study import open_study
from hpotune.checks.auto_gpus import with_decided_number
from hpotune.config.load import load_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.launch.extend import Changed, extend_study, ran_on_slurm, trials_to_retry
from hpotune.launch.prepare import prepare, snapshot_current_code
from hpotune.records.derived_points import check_not_derived
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import TrialRow
from hpotune.reporting.advice import stop_advice
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.workspace.folder import StudyFolder

Where = Literal["here", "slurm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStart:
    """How a study goes on."""

    where: Where | None
    """None: it is over, and nothing of it is left to run."""
    reason: StopReason | None = None
    """Why it is over."""
    advice: str = ""
    """What can be done then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtendResult:
    """What `extend` has changed."""

    changed: Changed
    """Key of the budget -> its value before and now; None: no limit."""
    running: int
    """Trials that run now."""
    next: str
    """What to do, in one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryResult:
    """Which failed trials are tried again."""

    failed: tuple[TrialRow, ...]
    retried: Mapping[int, int]
    """Number of the failed trial -> number of the one that repeats it."""
    running: int
    """Trials that run now."""
    next: str
    """What to do, in one line; empty where nothing is retried."""


def next_start(
    target: Path, chosen: Path | None, *, data_root: str | None, where: Where | None, note: Line
) -> NextStart:
    """Where the study goes on, if anything is left; an edited rule or what follows the search is taken over.

    `where`: as chosen by the user; None: where it ran.
    Raises: HpotuneError.
    """
    found, opened, store = open_study(target, chosen, note=note)
    rows = store.rows()
    file = target if target.is_file() else found.study_file  # where its budget may have been raised by hand
    edited = load_study(file) if file.is_file() else found.load()
    edited = with_decided_number(edited, found.read_resolved().values)
    changed = _changed_after_search(edited.config, opened.config)
    reason = _stop_reason(found.in_force(edited).config, rows)
    if reason and changed:
        prepare(target, chosen=chosen, data_root=data_root)
        for key in changed:
            note(f"{key} of the study file now applies")
        found, opened, store = open_study(target, chosen, note=note)
    if reason and not repeats_left(found, opened, rows):
        return NextStart(where=None, reason=reason, advice=stop_advice(reason, found.path))
    if where is None:
        where = "slurm" if ran_on_slurm(found, rows) else "here"
    if where == "here":
        found.cancelled.unlink(missing_ok=True)
    return NextStart(where=where)


def raise_budget(target: Path, chosen: Path | None, *, limits: Mapping[str, str], note: Line) -> ExtendResult:
    """Raise limits of the budget. `limits`: by key, as words: `+20`, `70`, `none`.

    Raises: StudyFileError with one line for each wrong limit; then nothing is changed.
    """
    found, opened, store = open_study(target, chosen, note=note, write=True)
    check_not_derived(
        found.path,
        opened.config,
        verb="extend",
        advice="raise search.repeats or search.finalists there, then `hpotune resume` it",
    )
    rows = store.rows()
    changed, config = extend_study(found, limits, finished=sum(row.decided for row in rows))
    store = open_study(found.path, None, note=note, write=True)[2]
    store.append_waiting()
    running = sum(row.state == "running" for row in rows)
    advice = _next(
        found, running=running, reason=_stop_reason(config, rows), more_parallel="parallel" in changed
    )
    return ExtendResult(changed=changed, running=running, next=advice)


def retry_trials(
    target: Path, chosen: Path | None, *, numbers: Sequence[int], cause: str | None, note: Line
) -> RetryResult:
    """Let failed trials be tried again under new numbers: those with these numbers, else all; of one cause, or of any.

    Raises: StudyFileError for a trial that has not failed, or an unknown cause.
    """
    found, loaded, store = open_study(target, chosen, note=note, write=True)
    rows = store.rows()
    failed = trials_to_retry(rows, numbers=numbers, cause=cause)
    retried = store.retry([row.number for row in failed]) if failed else {}
    running = sum(row.state == "running" for row in rows)
    reason = _stop_reason(loaded.config, store.rows())
    advice = _next(found, running=running, reason=reason, more_parallel=False) if retried else ""
    if retried:
        for text in snapshot_current_code(found).notes:
            note(text)
    return RetryResult(failed=tuple(failed), retried=retried, running=running, next=advice)


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
    return stop_reason(config, rows, now=datetime.now())


def _next(folder: StudyFolder, *, running: int, reason: StopReason | None, more_parallel: bool) -> str:
    """What to do now, in one line."""
    path = quote(str(folder.path))
    if reason:
        return f"{stop_advice(reason, folder.path)} (the study is still over: {reason.text})"
    if running and not more_parallel:
        return f"nothing: the workers of the {running} running trials continue with it"
    if running:
        return f"hpotune submit {path} (adds workers; a `hpotune run` keeps its number of workers)"
    return f"hpotune resume {path}"
