"""The leading trials of a study that have all ended: they never change, so a look begins behind them."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.records.trial import TrialRow
from hpotune.storage.trials.rows import row_of


class Head:
    """Grows with every look. What it holds is right for one study of one storage."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._ended: dict[int, TrialRow] = {}
        """By trial id: those that ended behind a trial that has not, too."""
        self._rows: list[TrialRow] = []
        self._live = 0
        self._lock = Lock()  # a worker looks while its monitor does

    def split(self, trials: Sequence[FrozenTrial]) -> tuple[int, int, Sequence[FrozenTrial]]:
        """How many lead, how many of these have not failed, and the trials behind them; `trials`: all, by number."""
        with self._lock:
            rest = trials[len(self._rows) :]
            ended = next((n for n, trial in enumerate(rest) if not trial.state.is_finished()), len(rest))
            self._rows += [self.row(trial) for trial in rest[:ended]]
            self._live += sum(trial.state != TrialState.FAIL for trial in rest[:ended])
            return len(self._rows), self._live, rest[ended:]

    def rows(self, count: int) -> list[TrialRow]:
        """The first so many."""
        return self._rows[:count]

    def row(self, trial: FrozenTrial) -> TrialRow:
        """Made once of a trial that has ended."""
        held = self._ended.get(trial._trial_id)
        if held is None:
            held = row_of(trial, self._study)
            if trial.state.is_finished():
                self._ended[trial._trial_id] = held
        return held
