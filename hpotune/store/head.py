"""The leading trials of a study that have all ended: they never change, so a look begins behind them."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from hpotune.store.rows import row_of
from hpotune.study.load import Study
from hpotune.study.trial import TrialRow


class Head:
    """Grows with every look. What it holds is right for one study of one storage."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._ended: dict[int, TrialRow] = {}
        """By trial id: those that ended behind a trial that has not, too."""
        self.rows: list[TrialRow] = []
        """Of the leading trials, by number."""
        self.finished: list[bool] = []
        """Of those of them that have not failed."""

    def rest(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """What comes behind the leading trials, which grow by those that have ended since; `trials`: all, by number."""
        rest = trials[len(self.rows) :]
        for index, trial in enumerate(rest):
            if not trial.state.is_finished():
                return rest[index:]
            self.rows.append(self.row(trial))
            if trial.state != TrialState.FAIL:
                self.finished.append(trial.state == TrialState.COMPLETE)
        return []

    def row(self, trial: FrozenTrial) -> TrialRow:
        """Made once of a trial that has ended."""
        held = self._ended.get(trial._trial_id)
        if held is None:
            held = row_of(trial, self._study)
            if trial.state.is_finished():
                self._ended[trial._trial_id] = held
        return held
