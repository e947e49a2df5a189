"""A search in memory: ask and tell as workers do, without a storage on disk."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from hpotune.config.load import Study
from hpotune.search.assign import assign_point
from hpotune.search.base.unit_cube import decode


class Play:
    """One study of an algorithm. Trials run in parallel where asks come before tells."""

    def __init__(self, study: Study, *, algorithm: str, seed: int = 0, options: dict | None = None) -> None:
        search = study.config.search.model_copy(
            update={"algorithm": algorithm, "seed": seed, "options": options or {}}
        )
        self.file, self.config = study, study.config.model_copy(update={"search": search})
        senses = [objective.sense for objective in study.config.score.objective]
        self.study = optuna.create_study(study_name=study.config.name, directions=senses)

    def ask(self) -> tuple[int, dict]:
        """Number and point of the next trial, as the study file's values."""
        id_ = self.study._storage.create_new_trial(self.study._study_id)
        point = self.resumed(id_)
        return self.study._storage.get_trial(id_).number, point

    def resumed(self, id_: int) -> dict:
        """The point of a running trial, drawn where it is not yet."""
        storage = self.study._storage
        assign_point(storage, self.file, self.config, storage.get_trial(id_), unseen=frozenset())
        return decode(self.file.space, storage.get_trial(id_).params)

    def tell(self, number: int, *values: float) -> None:
        """Ends a trial; without a value it has failed."""
        storage = self.study._storage
        id_ = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        state = TrialState.COMPLETE if values else TrialState.FAIL
        storage.set_trial_state_values(id_, state, list(values) or None)
