"""`hpotune retry`: waiting trials take the points of failed ones, whose failures are no longer counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hpotune.errors import HpotuneError
from hpotune.search.base.trial_update import TrialUpdate, write_update
from hpotune.storage.trials.study_trials import StudyTrials, has_no_point, not_failed


def repeat_failed(
    trials: StudyTrials, numbers: Sequence[int], *, append_waiting: Callable[[], None]
) -> dict[int, int]:
    """Failed number -> number of the waiting row that has taken its point.

    `append_waiting`: appends waiting rows up to the budget.
    Raises: HpotuneError where one has not failed, or the budget has no room for so many.
    """
    by_number, forgiven = {trial.number: trial for trial in trials.all()}, trials.forgiven()
    for number in numbers:
        if number not in by_number or by_number[number].state != TrialState.FAIL or number in forgiven:
            raise HpotuneError(
                f"trial {number} has not failed (or has been retried already); `hpotune trials` lists them"
            )
    append_waiting()
    room = len(_free(trials))
    if room < len(numbers):
        raise _no_room(room, of=len(numbers))
    found = {number: _repeat(trials, by_number[number], append_waiting) for number in numbers}
    repeats = {number: row for number, row in found.items() if row is not None}
    trials.storage.set_study_user_attr(trials.study_id, "forgiven", sorted({*forgiven, *repeats}))
    if len(repeats) < len(numbers):  # workers have taken the rest meanwhile
        raise _no_room(len(repeats), of=len(numbers))
    return repeats


def _free(trials: StudyTrials) -> list[FrozenTrial]:
    """The waiting trials within the budget that have no point yet."""
    counted = not_failed(trials.all())[: trials.config.budget.trials]
    return [trial for trial in counted if has_no_point(trial)]


def _repeat(trials: StudyTrials, failed: FrozenTrial, append_waiting: Callable[[], None]) -> int | None:
    """Give a failed trial's point to a waiting trial; its number. Returns None where workers have taken all."""
    while free := _free(trials):
        for row in free:
            update = TrialUpdate(
                system_attrs={"fixed_params": failed.params},
                user_attrs={"retry_of": failed.number},
                expected=row,
            )
            with suppress(UpdateFinishedTrialError):  # a worker claimed it meanwhile, and it has ended
                if write_update(trials.storage, row._trial_id, update):
                    return row.number
        append_waiting()
    return None


def _no_room(room: int, *, of: int) -> HpotuneError:
    return HpotuneError(
        f"the budget has room for {room} of {of} trials; `hpotune extend --trials +{of - room}` first"
    )
