"""What samplers see of a storage. Reads only."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


def is_baseline(trial: FrozenTrial) -> bool:
    """Whether the trial is the untouched base."""
    return trial.user_attrs.get("kind") == "baseline"


class SearchView:
    """The storage as samplers see it: without the baseline, and with the ends of `unseen` trials hidden.

    The baseline's empty parameters would empty Optuna's intersection search space, and no sampler would learn. The
    trials of one round are drawn as if none of them had ended, whichever was the quickest.
    """

    def __init__(self, inner: BaseStorage, *, unseen: frozenset[int] = frozenset()) -> None:
        self._inner = inner
        self._unseen = unseen

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Iterable[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Trials that were drawn."""
        wanted = tuple(states) if states is not None else None
        found = self._inner.get_all_trials(
            study_id, deepcopy=deepcopy, states=None if self._unseen else wanted
        )
        trials = [trial for trial in found if not is_baseline(trial)]
        if not self._unseen:
            return trials
        trials = [_running(trial) if trial.number in self._unseen else trial for trial in trials]
        return [trial for trial in trials if wanted is None or trial.state in wanted]


def _running(trial: FrozenTrial) -> FrozenTrial:
    shown = copy.copy(trial)
    if shown.state == TrialState.COMPLETE:
        shown.values, shown.datetime_complete, shown.state = None, None, TrialState.RUNNING
    return shown
