"""What samplers see of a storage. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


def is_baseline(trial: FrozenTrial) -> bool:
    """Whether the trial is the untouched base."""
    return trial.user_attrs.get("kind") == "baseline"


class SearchView:
    """The storage as samplers see it: without the baseline.

    Its empty parameters would empty Optuna's intersection search space, and no sampler would learn.
    """

    def __init__(self, inner: BaseStorage) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Iterable[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Trials that were drawn."""
        wanted = tuple(states) if states is not None else None
        trials = self._inner.get_all_trials(study_id, deepcopy=deepcopy, states=wanted)
        return [trial for trial in trials if not is_baseline(trial)]
