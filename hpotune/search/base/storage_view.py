"""What samplers see of a storage. Reads only.

Of trials that climb rungs they see one level: the highest that holds enough trials for a model (Falkner et al. 2018,
BOHB, section 3.2); those that have not come so far are shown as pruned. So one sampler never compares a short run with
a whole one, and any sampler serves a study with rungs.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpotune.search.base.history import CONSTRAINTS

ENOUGH = 4
"""Trials that a level needs at least, and one more than there are parameters: fewer make no model."""


def is_baseline(trial: FrozenTrial) -> bool:
    """Whether the trial is the untouched base."""
    return trial.user_attrs.get("kind") == "baseline"


def behind(trials: Sequence[FrozenTrial], number: int) -> Sequence[FrozenTrial]:
    """Those of `trials`, which are in the order of their numbers, that have this one or a higher one."""
    return trials[bisect_left(trials, number, key=lambda trial: trial.number) :]


class Ended:
    """The leading trials of one study that have ended and climbed no rung, as samplers see them.

    They never change, so a look begins behind them. It grows with every look; one is kept for as long as the study is
    worked at, or each ask of a study of 10,000 trials goes through all of them several times.
    """

    def __init__(self) -> None:
        self._shown: list[FrozenTrial] = []
        self._points: set[frozenset[tuple[str, Any]]] = set()
        self._count = 0
        self._lock = Lock()

    @property
    def count(self) -> int:
        """How many lead: trials of lower numbers have ended."""
        return self._count

    def has(self, point: Mapping[str, Any]) -> bool:
        """Whether one of them has this point."""
        return frozenset(point.items()) in self._points

    def split(self, trials: Sequence[FrozenTrial], *, below: int) -> tuple[list[FrozenTrial], int]:
        """Those that lead of `trials` (all, by number), of numbers under `below`; and where the others begin."""
        with self._lock:
            for trial in trials[self._count :]:
                if not trial.state.is_finished() or _climbed(trial):
                    break
                self._count += 1
                if not is_baseline(trial):
                    self._shown.append(trial)
                    if trial.params:
                        self._points.add(frozenset(trial.params.items()))
            begin = min(self._count, below)
            if begin == self._count:
                return list(self._shown), begin
            return self._shown[: bisect_left(self._shown, begin, key=lambda trial: trial.number)], begin


class SearchView:
    """The storage as samplers see it: without the baseline, and with the ends of `unseen` trials hidden.

    The baseline's empty parameters would empty Optuna's intersection search space, and no sampler would learn. The
    trials of one round are drawn as if none of them had ended, whichever was the quickest.
    """

    def __init__(
        self, inner: BaseStorage, *, unseen: frozenset[int] = frozenset(), ended: Ended | None = None
    ) -> None:
        self._inner = inner
        self._unseen = unseen
        self._ended = ended or Ended()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Iterable[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Trials that were drawn."""
        wanted = tuple(states) if states is not None else None
        found = self._inner.get_all_trials(study_id, deepcopy=deepcopy, states=None)
        lead, begin = self._ended.split(found, below=min(self._unseen, default=len(found)))
        trials = [trial for trial in found[begin:] if not is_baseline(trial)]
        if self._unseen:
            trials = [_running(trial) if trial.number in self._unseen else trial for trial in trials]
        trials = [_goes_on(trial) if trial.params else trial for trial in trials]
        trials = on_one_level(lead + trials) if any(map(_climbed, trials)) else lead + trials
        return trials if wanted is None else [trial for trial in trials if trial.state in wanted]


def _goes_on(trial: FrozenTrial) -> FrozenTrial:
    """A trial that was interrupted as one that runs: its point is taken, and its value is still to come."""
    if trial.state != TrialState.WAITING or _climbed(trial):
        return trial
    shown = copy.copy(trial)
    shown.state = TrialState.RUNNING
    return shown


def _running(trial: FrozenTrial) -> FrozenTrial:
    shown = copy.copy(trial)
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or _climbed(trial):
        shown.values, shown.datetime_complete, shown.state = None, None, TrialState.RUNNING
        shown.intermediate_values = {}
        shown.user_attrs = {key: value for key, value in trial.user_attrs.items() if key != "rungs"}
        shown.system_attrs = {key: value for key, value in trial.system_attrs.items() if key != CONSTRAINTS}
    return shown


def on_one_level(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials as they were on the level that a model is made of; unchanged where none has climbed a rung."""
    climbed = [trial for trial in trials if trial.state != TrialState.FAIL and _climbed(trial)]
    if not climbed:
        return list(trials)
    needed = max(ENOUGH, 1 + max(len(trial.params) for trial in climbed))
    there = [rung for trial in climbed for rung in _climbed(trial)]
    enough = [rung for rung in set(there) if there.count(rung) >= needed]
    level = max(enough, default=min(there))
    numbers = {trial.number for trial in climbed}
    return [_at(trial, level) if trial.number in numbers else trial for trial in trials]


def _climbed(trial: FrozenTrial) -> dict[int, dict[str, Any]]:
    """What a trial reached, by rung."""
    return {told["rung"]: told for told in trial.user_attrs.get("rungs", ())}


def _at(trial: FrozenTrial, level: int) -> FrozenTrial:
    """A trial with the values it had on a level; pruned where it has none there."""
    shown, reached = copy.copy(trial), _climbed(trial)
    shown.datetime_complete = trial.datetime_complete or trial.datetime_start
    there = reached.get(level)
    if there is None:
        shown.state, shown.values = TrialState.PRUNED, reached[max(reached)]["values"]
        return shown
    shown.state, shown.values = TrialState.COMPLETE, list(there["values"])
    shown.user_attrs = {**trial.user_attrs, "stderrs": list(there["stderrs"])}
    return shown
