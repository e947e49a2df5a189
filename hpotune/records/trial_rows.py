"""The rows of a study, of which the leading ones never change: what is found of these is kept from look to look.

A worker looks at all rows before each trial. In a study of 10,000 trials a pass over all of them takes longer than the
trial's own writes; so a pass that uses `matching` or `state_counts` goes through each ended trial once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from threading import Lock

from hpotune.records.trial import TrialRow

_state = attrgetter("state")
Predicate = Callable[[TrialRow], bool]
"""A function of a module, not one made for a call: it is the key of what was found."""


class LeadingFacts:
    """What was found of the leading rows of one study, by predicate; it grows with them."""

    def __init__(self) -> None:
        self._found: dict[Predicate, tuple[int, tuple[TrialRow, ...]]] = {}
        self._counted = 0
        self._states: Counter[str] = Counter()
        self._lock = Lock()  # a worker and its monitor look at the same time

    def matching(self, rows: Sequence[TrialRow], leading: int, predicate: Predicate) -> list[TrialRow]:
        """The first `leading` rows that satisfy the predicate."""
        with self._lock:
            seen, found = self._found.get(predicate, (0, ()))
            if seen < leading:
                found = (*found, *filter(predicate, rows[seen:leading]))
                self._found[predicate] = leading, found
        # a look that began earlier has fewer leading rows than a later one
        return [row for row in found if row.number < leading] if seen > leading else [*found]

    def states(self, rows: Sequence[TrialRow], leading: int) -> Counter[str]:
        """How many of the first `leading` rows are in each state."""
        with self._lock:
            if self._counted > leading:
                return Counter(map(_state, rows[:leading]))
            self._states.update(map(_state, rows[self._counted : leading]))
            self._counted = leading
            return self._states.copy()


class TrialRows(list[TrialRow]):
    """All rows of a study by number; the first `leading` have ended and never change."""

    def __init__(self, rows: Iterable[TrialRow], *, leading: int, facts: LeadingFacts) -> None:
        super().__init__(rows)
        self.leading = leading
        self.facts = facts


def matching(rows: Sequence[TrialRow], predicate: Predicate) -> list[TrialRow]:
    """The rows that satisfy a predicate, in their order."""
    if not isinstance(rows, TrialRows):
        return list(filter(predicate, rows))
    found = rows.facts.matching(rows, rows.leading, predicate)
    return [*found, *filter(predicate, rows[rows.leading :])]


def state_counts(rows: Sequence[TrialRow]) -> Counter[str]:
    """How many rows are in each state."""
    if not isinstance(rows, TrialRows):
        return Counter(map(_state, rows))
    return rows.facts.states(rows, rows.leading) + Counter(map(_state, rows[rows.leading :]))
