"""Which trial may go on from its rung: pure functions of plain rows, whoever asks and in whatever order trials end.

asha: asynchronous successive halving by promotion (Li et al. 2020, MLSys, algorithm 2): of the trials that have reached
a rung the best 1/eta may go on to the next. hyperband: brackets of it that begin at another rung each (Li et al. 2018,
JMLR 18; asynchronous as in Li et al. 2020). median, percentile: a trial whose best value so far is worse than those of
earlier trials at its rung ends there (Golovin et al. 2017, as Optuna's pruners define it). wilcoxon: so does one that
is worse than the best trial, item by item (Wilcoxon 1945; Optuna's WilcoxonPruner).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from hpotune.config.schema.rungs import Ladder
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import RungScore, TrialRow

Sense = Literal["maximize", "minimize"]
TRIED = 3
"""Trials that are finished at most, in search of one that keeps the limits."""
FIRST_SHARE = 0.2
"""Of the run: before, the stopping rules stop nothing. On 2 x 1,024 real learning curves a tenth of the run hid 5 to
10 % of the final best twenty, a fifth none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """What may be taken now, by trial number, and what never will be."""

    paused: tuple[int, ...] = ()
    """Begun and interrupted: they go on where they were."""
    promoted: tuple[int, ...] = ()
    """To their next rung, the highest first."""
    fresh: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()
    """They rest on a rung and nothing that may still come lets them go on."""

    @property
    def open(self) -> int:
        """How many trials may be taken."""
        return len(self.paused) + len(self.promoted) + len(self.fresh)


def turns(
    config: StudyConfig, ladder: Ladder, rows: Sequence[TrialRow], *, limit: int | None = None
) -> Turns:
    """The turns of a study with rungs; `rows` by number. `limit`: leading rows that may start; None: the budget."""
    live = [row for row in rows if row.state != "failed"][: config.budget.trials]
    senses = [objective.sense for objective in config.score.objective]
    resting = [row for row in live if row.awaits_promotion]
    waiting = [row for row in live if row.state == "waiting" and not row.awaits_promotion]
    new = [row.number for row in waiting if row.rung is None and not row.attempts]
    paused = [row.number for row in waiting if row.number not in new]
    allowed = {row.number for row in live[:limit]}
    promoted = _promoted(ladder, rows, senses)
    running = any(row.state == "running" for row in live)
    over = not (waiting or promoted or running) and len(live) >= config.budget.trials
    if over and resting and _none_to_choose(live, resting):
        promoted, over = [_furthest(resting, senses)], False
    return Turns(
        paused=tuple(paused),
        promoted=tuple(promoted),
        fresh=tuple(number for number in new if number in allowed),
        stop=tuple(row.number for row in resting) if over else (),
    )


def _none_to_choose(live: Sequence[TrialRow], resting: Sequence[TrialRow]) -> bool:
    """Whether one of those that rest is finished anyway.

    None has come to the end, being too few for a third of them; or all that came there break a limit, and one that
    rests breaks none so far. Of those only a few are tried: where all break it, the rest would too.
    """
    ended = [row for row in live if row.state == "finished" and row.rung_scores]
    hope = any(not row.rung_scores[-1].breaks for row in resting)
    return not ended or (all(row.breaks for row in ended) and hope and len(ended) < TRIED)


def first_rung(ladder: Ladder, number: int) -> int:
    """Where a trial begins: its bracket of hyperband, else the lowest."""
    return _bracket(len(ladder), ladder.options["eta"], number) if ladder.pruner == "hyperband" else 0


def next_rung(ladder: Ladder, row: TrialRow) -> int:
    """The rung that a trial goes to in its next turn."""
    if row.rung is None:
        return first_rung(ladder, row.number)
    return row.rung + row.awaits_promotion


def reached(rows: Sequence[TrialRow], rung: int) -> list[tuple[TrialRow, RungScore]]:
    """Trials that have been scored at a rung, whatever became of them, with what they reached there."""
    return [(row, one) for row in rows for one in row.rung_scores if one.rung == rung]


def _promoted(ladder: Ladder, rows: Sequence[TrialRow], senses: Sequence[Sense]) -> list[int]:
    """Numbers that may go on to their next rung, the highest rung first, of each the best first."""
    if not ladder.halves:  # those that were to stop have been stopped when they reached it
        resting = [row for row in rows if row.awaits_promotion]
        return [row.number for row in sorted(resting, key=lambda row: (-(row.rung or 0), row.number))]
    found = []
    brackets: dict[int, list[TrialRow]] = {}
    for row in rows:
        if row.rung_scores:
            brackets.setdefault(first_rung(ladder, row.number), []).append(row)
    for rung in range(ladder.last - 1, -1, -1):
        for _, members in sorted(brackets.items()):
            there = reached(members, rung)
            room = int(len(there) // ladder.options["eta"])
            best = ranked(
                [one.values for _, one in there], senses, first=room, broken=[one.breaks for _, one in there]
            )
            top = [there[index][0] for index in best[:room]]
            found += [row.number for row in top if row.awaits_promotion and row.rung == rung]
    return found


def _furthest(resting: Sequence[TrialRow], senses: Sequence[Sense]) -> int:
    """The best of those on the highest rung."""
    height = max(row.rung or 0 for row in resting)
    there = [row for row in resting if row.rung == height]
    last = [row.rung_scores[-1] for row in there]
    best = ranked([one.values for one in last], senses, first=1, broken=[one.breaks for one in last])
    return there[best[0]].number


def _bracket(rungs: int, eta: float, number: int) -> int:
    """The first rung of a trial."""
    turns = _brackets(rungs, eta)
    return turns[number % len(turns)]


@lru_cache(maxsize=64)
def _brackets(rungs: int, eta: float) -> tuple[int, ...]:
    """First rungs in turn, until they repeat: brackets come as often as Hyperband fills them (algorithm 1).

    Of three rungs and eta 3: nine trials begin at the first, five at the second, three at the whole run.
    """
    shares = [math.ceil(rungs / (rungs - s) * eta ** (rungs - 1 - s)) for s in range(rungs)]
    given, found = [0] * rungs, []
    for turn in range(sum(shares)):
        due = [share * (turn + 1) / sum(shares) - had for share, had in zip(shares, given, strict=True)]
        found.append(due.index(max(due)))
        given[found[-1]] += 1
    return tuple(found)


def ranked(
    values: Sequence[Sequence[float]],
    senses: Sequence[Sense],
    *,
    first: int | None = None,
    broken: Sequence[bool] = (),
) -> list[int]:
    """Indices from best to worst: of several objectives by front, then by crowding (Deb et al. 2002); ties by index.

    `first`: how many of them are asked for at least; None: all. `broken`: which break a limit; they come behind all
    that keep them, as in Deb's constrained domination.
    """
    if any(broken):
        parts = [[i for i, b in enumerate(broken) if b == wanted] for wanted in (False, True)]
        return [part[i] for part in parts for i in ranked([values[i] for i in part], senses, first=first)]
    costs = [tuple(-v if s == "maximize" else v for v, s in zip(one, senses, strict=True)) for one in values]
    if len(senses) == 1:
        return sorted(range(len(costs)), key=lambda index: costs[index])
    left, order = list(range(len(costs))), list[int]()
    while left and (first is None or len(order) < first):
        front = [i for i in left if not any(_dominates(costs[j], costs[i]) for j in left)]
        room = _crowding([costs[i] for i in front])
        order += [i for _, i in sorted(zip([-r for r in room], front, strict=True))]
        left = [i for i in left if i not in front]
    return order


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _crowding(front: Sequence[Sequence[float]]) -> list[float]:
    """How far each point of a front is from its neighbours, the ends infinitely."""
    room = [0.0] * len(front)
    for axis in range(len(front[0])):
        order = sorted(range(len(front)), key=lambda index: front[index][axis])
        low, high = front[order[0]][axis], front[order[-1]][axis]
        room[order[0]] = room[order[-1]] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            room[here] += (front[after][axis] - front[before][axis]) / ((high - low) or 1.0)
    return room


def falls_behind(
    ladder: Ladder, rows: Sequence[TrialRow], row: TrialRow, sense: Sense, *, warm: bool = False
) -> bool:
    """Whether median or percentile ends a trial at the rung that it has just reached.

    `warm`: whether its learning rate has not yet reached its height.
    """
    if ladder.pruner not in ("median", "percentile") or _too_early(ladder, row, warm=warm):
        return False
    sign = 1.0 if sense == "maximize" else -1.0
    there = reached(rows, row.rung_scores[-1].rung)
    others = [one.values[0] for other, one in there if other.number != row.number and not one.breaks]
    if len(others) < ladder.options["n_startup_trials"]:
        return False
    share = ladder.options.get("percentile", 50.0)
    own = max(sign * one.values[0] for one in row.rung_scores)
    return own < _quantile([sign * value for value in others], 1 - share / 100)


def _too_early(ladder: Ladder, row: TrialRow, *, warm: bool) -> bool:
    rung = row.rung_scores[-1].rung
    return rung >= ladder.last or warm or ladder.share(rung) < FIRST_SHARE - 1e-9


def _quantile(values: Sequence[float], share: float) -> float:
    """As numpy's, linear between two values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = min(int(place), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def rival(
    ladder: Ladder, rows: Sequence[TrialRow], row: TrialRow, sense: Sense, *, warm: bool = False
) -> int | None:
    """The trial that wilcoxon holds a trial against at the rung it has just reached: the best there.

    None where nothing is to be compared: too early, too few, or it is the best itself.
    """
    if ladder.pruner != "wilcoxon" or _too_early(ladder, row, warm=warm):
        return None
    there = [(other, one) for other, one in reached(rows, row.rung_scores[-1].rung) if not one.breaks]
    others = sum(other.number != row.number for other, _ in there)
    if not others or others < ladder.options["n_startup_trials"]:
        return None
    best = there[ranked([one.values[:1] for _, one in there], [sense], first=1)[0]][0]
    return best.number if best.number != row.number else None


def surely_worse(gains: Sequence[float], *, threshold: float) -> bool:
    """Whether item by item gains (own minus the rival's, larger is better) are worse than chance allows.

    Zeros are split between both sides, as in Optuna's WilcoxonPruner; p below `threshold`, one-sided.
    """
    from scipy.stats import wilcoxon  # type: ignore[import-untyped]  # half a second; only a decision needs it

    if not any(gains) or sum(gains) >= 0:
        return False
    return float(wilcoxon(gains, alternative="less", zero_method="zsplit").pvalue) < threshold
