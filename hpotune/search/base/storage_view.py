"""The storage as samplers see it. Reads only.

Of trials with rung scores, samplers see one level: the highest rung with enough trials for a model (Falkner et al.
2018, BOHB, section 3.2); trials without a score there are shown as pruned. So a sampler never compares a short run with
a whole one, and any sampler works in a study with rungs.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.records.trial import TrialRow
from hpotune.records.trial_rows import LeadingFacts, TrialRows
from hpotune.search.base.history import CONSTRAINTS_KEY

FIRST_KNOWN = 10**9
"""Number of the first known result of another study: above those of all trials, so that no rank counts them."""
MIN_LEVEL_TRIALS = 4
"""Trials that a level needs at least; also one more than parameters. Fewer determine no model."""


def is_baseline(trial: FrozenTrial) -> bool:
    """Whether the trial is the baseline: the base model, not fine-tuned."""
    return trial.user_attrs.get("kind") == "baseline"


def trials_from(trials: Sequence[FrozenTrial], number: int) -> Sequence[FrozenTrial]:
    """The trials with this number or a higher one. `trials`: in the order of their numbers."""
    return trials[bisect_left(trials, number, key=lambda trial: trial.number) :]


class FinishedTrials:
    """The leading finished trials of one study, kept from one look to the next: a finished trial never changes.

    Each look starts after them; otherwise every claim and every proposal in a study of 10,000 trials would go through
    all of them several times. The search sees them up to the first that has rung scores, because what is shown of such
    a trial depends on the others.
    """

    def __init__(self, row_of: Callable[[FrozenTrial], TrialRow] | None = None) -> None:
        """`row_of`: makes the row of a trial; None: nobody asks for rows."""
        self._row_of = row_of
        self._rows: list[TrialRow] = []
        self._row_by_id: dict[int, TrialRow] = {}
        """Rows of all finished trials, also of those after an unfinished one, by trial id."""
        self._open_rows: dict[int, tuple[FrozenTrial, TrialRow]] = {}
        """Rows of unfinished trials, by trial id. A storage gives a new object for a trial that has changed: thousands
        that wait between two rungs are the same from look to look."""
        self._count = 0
        self._not_failed = 0
        self._searched: list[FrozenTrial] = []
        self._points: set[frozenset[tuple[str, Any]]] = set()
        self._searched_count = 0
        self._lock = Lock()  # a worker and its monitor look at the same time
        self.facts = LeadingFacts()

    def split(self, trials: Sequence[FrozenTrial]) -> tuple[int, int, Sequence[FrozenTrial]]:
        """How many trials lead, how many of these have not failed, and the trials after them.

        `trials`: all trials by number.
        """
        with self._lock:
            self._extend(trials)
            return self._count, self._not_failed, trials[self._count :]

    def rows(self, count: int, rest: Iterable[TrialRow]) -> TrialRows:
        """The rows of the first `count` leading trials, and the rest."""
        return TrialRows([*self._rows[:count], *rest], leading=count, facts=self.facts)

    def row(self, trial: FrozenTrial) -> TrialRow:
        """The row of any trial; that of a finished or unchanged trial is made once."""
        assert self._row_of is not None, "made without rows"
        row = self._row_by_id.get(trial._trial_id)
        if row is not None:
            return row
        seen = self._open_rows.get(trial._trial_id)
        if seen is not None and seen[0] is trial:
            return seen[1]
        row = self._row_of(trial)
        if trial.state.is_finished():
            self._row_by_id[trial._trial_id] = row
            self._open_rows.pop(trial._trial_id, None)
        else:
            self._open_rows[trial._trial_id] = (trial, row)
        return row

    @property
    def searched_count(self) -> int:
        """How many trials lead and have no rung scores."""
        return self._searched_count

    def has_point(self, point: Mapping[str, Any]) -> bool:
        """Whether one of the `searched_count` leading trials has this point."""
        return frozenset(point.items()) in self._points

    def searched(self, trials: Sequence[FrozenTrial], *, below: int) -> tuple[list[FrozenTrial], int]:
        """The leading trials without rung scores, less the baseline, of numbers below `below`; where the others start.

        `trials`: all trials by number.
        """
        with self._lock:
            self._extend(trials)
            start = min(self._searched_count, below)
            if start == self._searched_count:
                return list(self._searched), start
            end = bisect_left(self._searched, start, key=lambda trial: trial.number)
            return self._searched[:end], start

    def _extend(self, trials: Sequence[FrozenTrial]) -> None:
        for trial in trials[self._count :]:
            if not trial.state.is_finished():
                break
            if self._row_of is not None:
                self._rows.append(self.row(trial))
            if self._searched_count == self._count and not _rung_scores(trial):
                self._searched_count += 1
                if not is_baseline(trial):
                    self._searched.append(trial)
                    if trial.params:
                        self._points.add(frozenset(trial.params.items()))
            self._count += 1
            self._not_failed += trial.state != TrialState.FAIL


class SearchView:
    """The storage as samplers see it: without the baseline, and without the results of `unseen` trials.

    The baseline has no parameters, so with it Optuna's intersection search space would be empty. The trials of one
    round are unseen for each other: their points do not depend on which of them finishes first.
    """

    def __init__(
        self,
        inner: BaseStorage,
        *,
        unseen: frozenset[int] = frozenset(),
        finished: FinishedTrials | None = None,
        known: Sequence[FrozenTrial] = (),
    ) -> None:
        """`known`: results of other studies, which samplers see as finished trials."""
        self._inner = inner
        self._unseen = unseen
        self._finished = finished or FinishedTrials()
        self._known = list(known)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Iterable[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials in the order of their numbers, as samplers see them."""
        wanted = tuple(states) if states is not None else None
        found = self._inner.get_all_trials(study_id, deepcopy=deepcopy, states=None)
        lead, begin = self._finished.searched(found, below=min(self._unseen, default=len(found)))
        trials = [trial for trial in found[begin:] if not is_baseline(trial)]
        if self._unseen:
            trials = [
                _with_result_hidden(trial) if trial.number in self._unseen else trial for trial in trials
            ]
        trials = [_interrupted_as_running(trial) if trial.params else trial for trial in trials]
        trials = trials_at_level(lead + trials) if any(map(_rung_scores, trials)) else lead + trials
        trials += self._known
        return trials if wanted is None else [trial for trial in trials if trial.state in wanted]


def _interrupted_as_running(trial: FrozenTrial) -> FrozenTrial:
    """An interrupted trial (WAITING with a point) as a running one: it keeps its point and will be continued."""
    if trial.state != TrialState.WAITING or _rung_scores(trial):
        return trial
    shown = copy.copy(trial)
    shown.state = TrialState.RUNNING
    return shown


def _with_result_hidden(trial: FrozenTrial) -> FrozenTrial:
    """A trial with a result as a running one, without values, rung scores and constraint values."""
    shown = copy.copy(trial)
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or _rung_scores(trial):
        shown.values, shown.datetime_complete, shown.state = None, None, TrialState.RUNNING
        shown.intermediate_values = {}
        shown.user_attrs = {key: value for key, value in trial.user_attrs.items() if key != "rungs"}
        shown.system_attrs = {
            key: value for key, value in trial.system_attrs.items() if key != CONSTRAINTS_KEY
        }
    return shown


def trials_at_level(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials with their scores at the highest rung that enough of them have; unchanged where none has rung scores."""
    scored = [trial for trial in trials if trial.state != TrialState.FAIL and _rung_scores(trial)]
    if not scored:
        return list(trials)
    needed = max(MIN_LEVEL_TRIALS, 1 + max(len(trial.params) for trial in scored))
    rungs = [rung for trial in scored for rung in _rung_scores(trial)]
    enough = [rung for rung in set(rungs) if rungs.count(rung) >= needed]
    level = max(enough, default=min(rungs))
    numbers = {trial.number for trial in scored}
    return [_trial_at_level(trial, level) if trial.number in numbers else trial for trial in trials]


def _rung_scores(trial: FrozenTrial) -> dict[int, dict[str, Any]]:
    """The stored scores of a trial, by rung."""
    return {score["rung"]: score for score in trial.user_attrs.get("rungs", ())}


def _trial_at_level(trial: FrozenTrial, level: int) -> FrozenTrial:
    """A trial with its values at a level; pruned, with those of its highest rung, where it has none there."""
    shown, scores = copy.copy(trial), _rung_scores(trial)
    shown.datetime_complete = trial.datetime_complete or trial.datetime_start
    score = scores.get(level)
    if score is None:
        shown.state, shown.values = TrialState.PRUNED, scores[max(scores)]["values"]
        return shown
    shown.state, shown.values = TrialState.COMPLETE, list(score["values"])
    shown.user_attrs = {**trial.user_attrs, "stderrs": list(score["stderrs"])}
    return shown
