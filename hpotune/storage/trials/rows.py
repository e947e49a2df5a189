"""A trial of the storage as the rest of the house reads it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.records.lineage import Lineage
from hpotune.records.trial import Attempt, Failure, Outlook, TrialRow, Worker
from hpotune.schedule.stopping_criterion import gpus_of
from hpotune.search.base.storage_view import is_baseline
from hpotune.search.propose import decode
from hpotune.storage.trials import retries as told

_STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped",
}


def row_of(trial: FrozenTrial, study: Study) -> TrialRow:
    """A trial of the storage as plan and report read it."""
    attrs = trial.user_attrs
    params: dict[str, Value] = dict(trial.params)
    return TrialRow(
        number=trial.number,
        kind="baseline" if attrs.get("kind") == "baseline" else "trial",
        state=_STATES.get(trial.state, "failed"),  # type: ignore[arg-type]
        params=decode(study.space, params),
        values=tuple(trial.values or ()),
        stderrs=tuple(attrs.get("stderrs", ())),
        metrics=attrs.get("metrics", {}),
        failure=Failure.model_validate(attrs["failure"]) if "failure" in attrs else None,
        worker=Worker(**attrs["worker"]) if attrs.get("worker") else None,
        start=trial.datetime_start.timestamp() if trial.datetime_start else None,
        end=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        beat=attrs.get("beat"),
        attempts=told.read(attrs),
        retry_of=attrs.get("retry_of"),
        breaks=tuple(attrs.get("breaks", ())),
        rung=attrs.get("rung"),
        climbed=told.climbed(attrs),
        outlook=Outlook(**attrs["outlook"]) if "outlook" in attrs else None,
        lineage=Lineage(**attrs["lineage"]) if "lineage" in attrs else None,
    )


def blank(trial: FrozenTrial) -> bool:
    """Whether a row waits for a point."""
    point = trial.params or "fixed_params" in trial.system_attrs
    return trial.state == TrialState.WAITING and not is_baseline(trial) and not point


def live_ones(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those that have not failed."""
    failed = TrialState.FAIL
    return [trial for trial in trials if trial.state != failed]


def finished_of(trials: Sequence[FrozenTrial], config: StudyConfig) -> dict[int, bool]:
    """Which of those that have not failed are over for their round, by number; nothing in async mode: nobody asks.

    One that has reached its first rung is: whether and when it goes on is not for its round to wait for.
    """
    live = live_ones(trials) if config.execution.mode != "async" else []
    return {trial.number: trial.state.is_finished() or "rungs" in trial.user_attrs for trial in live}


def rests(trial: FrozenTrial) -> bool:
    """As TrialRow.resting."""
    climbed = trial.user_attrs.get("rungs") or [{"rung": None}]
    reached = climbed[-1]["rung"]
    return (
        trial.state == TrialState.WAITING and reached is not None and reached == trial.user_attrs.get("rung")
    )


def missing(live: Sequence[FrozenTrial], config: StudyConfig, *, ahead: int) -> list[str]:
    """The kinds of the rows that are missing until the budget, or so many, wait."""
    waiting = sum(trial.state == TrialState.WAITING and not rests(trial) for trial in live)
    count = max(0, min(config.budget.trials - len(live), ahead - waiting))
    wants_baseline = config.checks.baseline and config.model is not None and not any(map(is_baseline, live))
    return (["baseline"] * wants_baseline + ["trial"] * count)[:count]


def in_turn(waiting: Sequence[FrozenTrial], *, workers: int) -> Iterator[FrozenTrial]:
    """The first one, then as many as there are workers in any order: of many that come at once each tries another."""
    yield from waiting[:1]
    yield from random.sample(waiting[1:workers], len(waiting[1:workers]))
    yield from waiting[max(1, workers) :]


def attempts_of(
    trial: FrozenTrial,
    config: StudyConfig,
    *,
    outcome: Literal["finished", "rung", "failed", "paused"],
    failure: Failure | None = None,
    checkpoint: float | None = None,
    swept: bool = False,
) -> list[Attempt]:
    """The attempts at a running trial with the one that ends now; a dead worker's ended with its last sign of life."""
    attrs = trial.user_attrs
    before = list(told.read(attrs))
    if not attrs.get("worker"):
        return before  # taken by one that died before it could sign
    now = time.time()
    start = trial.datetime_start.timestamp() if trial.datetime_start else now
    end = max(start, attrs.get("beat") or 0.0, checkpoint or 0.0) if swept else now
    this = Attempt(
        worker=Worker(**attrs["worker"]), start=start, end=end, outcome=outcome,
        cause=failure.cause if failure else None, message=failure.message if failure else "", gpus=gpus_of(config),
        swept=swept, checkpoint=checkpoint, rung=attrs.get("rung"),
    )  # fmt: skip
    if swept and any((told_.worker, told_.start) == (this.worker, this.start) for told_ in before):
        return before  # another sweep has told this death
    return [*before, this]


def half_released(row: TrialRow, dead: Callable[[TrialRow], Failure | None]) -> bool:
    """Whether the worker that put a running trial back died before the trial stood in line again.

    Its attempt is told and its name is gone, but nobody has taken the trial since.
    """
    if row.worker is not None or not row.attempts or row.start is None:
        return False
    last = row.attempts[-1]
    return row.start <= last.start and dead(replace(row, worker=last.worker, beat=last.end)) is not None
