"""Which trials are promoted to their next rung, and which are pruned. Pure functions of rows, in any order of results.

asha: asynchronous successive halving by promotion (Li et al. 2020, MLSys, algorithm 2): of the trials scored at a rung
the best 1/eta are promoted to the next. hyperband: brackets of asha, each with another first rung (Li et al. 2018, JMLR
18; asynchronous as in Li et al. 2020). median, percentile: prune a trial whose best value so far is worse than the
median, or percentile, of the earlier trials at its rung (Golovin et al. 2017, as Optuna's pruners define it). wilcoxon:
prunes a trial that is significantly worse than the best one, item by item (Wilcoxon 1945; Optuna's WilcoxonPruner).
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
MAX_FORCED_PROMOTIONS = 3
"""After so many finished trials that violate a limit, no further trial is promoted to find one that satisfies it."""
MIN_PRUNING_SHARE = 0.2
"""Share of the run before which median, percentile and wilcoxon prune nothing.

On 2 x 1,024 real learning curves a tenth of the run pruned 5 to 10 % of the final best twenty, a fifth none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RungDecisions:
    """Numbers of the trials that may be claimed now, and of those to prune."""

    paused: tuple[int, ...] = ()
    """Interrupted on the way to their rung."""
    promoted: tuple[int, ...] = ()
    """To their next rung, the highest rung first."""
    new: tuple[int, ...] = ()
    """Not started yet."""
    pruned: tuple[int, ...] = ()
    """They wait for a promotion that can no longer come."""

    @property
    def count(self) -> int:
        """How many trials may be claimed."""
        return len(self.paused) + len(self.promoted) + len(self.new)


def rung_decisions(
    config: StudyConfig, ladder: Ladder, rows: Sequence[TrialRow], *, limit: int | None = None
) -> RungDecisions:
    """What a study with rungs does next; `rows` by number. `limit`: leading rows that may start; None: the budget."""
    not_failed = [row for row in rows if row.state != "failed"][: config.budget.trials]
    senses = [objective.sense for objective in config.score.objective]
    unpromoted = [row for row in not_failed if row.awaits_promotion]
    waiting = [row for row in not_failed if row.state == "waiting" and not row.awaits_promotion]
    new = [row.number for row in waiting if row.rung is None and not row.attempts]
    paused = [row.number for row in waiting if row.number not in new]
    allowed = {row.number for row in not_failed[:limit]}
    promoted = _promoted(ladder, rows, senses)
    running = any(row.state == "running" for row in not_failed)
    is_last = not (waiting or promoted or running) and len(not_failed) >= config.budget.trials
    if is_last and unpromoted and _needs_forced_promotion(not_failed, unpromoted):
        promoted, is_last = [_best_on_highest_rung(unpromoted, senses)], False
    return RungDecisions(
        paused=tuple(paused),
        promoted=tuple(promoted),
        new=tuple(number for number in new if number in allowed),
        pruned=tuple(row.number for row in unpromoted) if is_last else (),
    )


def _needs_forced_promotion(not_failed: Sequence[TrialRow], unpromoted: Sequence[TrialRow]) -> bool:
    """Whether a trial must be promoted although its rung promotes none, so that the study has a result.

    True if no trial has finished (too few for one promotion), or if all finished ones violate a limit while one that
    waits does not. At most MAX_FORCED_PROMOTIONS are tried: where all of these violate it, the others would too.
    """
    finished = [row for row in not_failed if row.state == "finished" and row.rung_scores]
    keeps_limits = any(not row.rung_scores[-1].breaks for row in unpromoted)
    return not finished or (
        all(row.breaks for row in finished) and keeps_limits and len(finished) < MAX_FORCED_PROMOTIONS
    )


def first_rung(ladder: Ladder, number: int) -> int:
    """The first rung of a trial: of its bracket with hyperband, else the lowest."""
    return _bracket(len(ladder), ladder.options["eta"], number) if ladder.pruner == "hyperband" else 0


def next_rung(ladder: Ladder, row: TrialRow) -> int:
    """The rung that a trial is trained to next."""
    if row.rung is None:
        return first_rung(ladder, row.number)
    return row.rung + row.awaits_promotion


def scores_at_rung(rows: Sequence[TrialRow], rung: int) -> list[tuple[TrialRow, RungScore]]:
    """Trials that were scored at a rung, in whatever state they are now, with their scores there."""
    return [(row, one) for row in rows for one in row.rung_scores if one.rung == rung]


def _promoted(ladder: Ladder, rows: Sequence[TrialRow], senses: Sequence[Sense]) -> list[int]:
    """Numbers of the trials that are promoted, the highest rung first, best first within a rung."""
    if not ladder.is_halving:  # median, percentile and wilcoxon pruned when the score was recorded
        unpromoted = [row for row in rows if row.awaits_promotion]
        return [row.number for row in sorted(unpromoted, key=lambda row: (-(row.rung or 0), row.number))]
    found = []
    brackets: dict[int, list[TrialRow]] = {}
    for row in rows:
        if row.rung_scores:
            brackets.setdefault(first_rung(ladder, row.number), []).append(row)
    for rung in range(ladder.last - 1, -1, -1):
        for _, members in sorted(brackets.items()):
            there = scores_at_rung(members, rung)
            room = int(len(there) // ladder.options["eta"])
            best = ranked(
                [one.values for _, one in there], senses, first=room, broken=[one.breaks for _, one in there]
            )
            top = [there[index][0] for index in best[:room]]
            found += [row.number for row in top if row.awaits_promotion and row.rung == rung]
    return found


def _best_on_highest_rung(unpromoted: Sequence[TrialRow], senses: Sequence[Sense]) -> int:
    """The best trial of those on the highest rung."""
    highest = max(row.rung or 0 for row in unpromoted)
    there = [row for row in unpromoted if row.rung == highest]
    last = [row.rung_scores[-1] for row in there]
    best = ranked([one.values for one in last], senses, first=1, broken=[one.breaks for one in last])
    return there[best[0]].number


def _bracket(rungs: int, eta: float, number: int) -> int:
    """The first rung of a trial."""
    order = _brackets(rungs, eta)
    return order[number % len(order)]


@lru_cache(maxsize=64)
def _brackets(rungs: int, eta: float) -> tuple[int, ...]:
    """First rungs of successive trials, one cycle: each bracket as often as Hyperband fills it (algorithm 1).

    Of three rungs and eta 3: nine trials start at the first rung, five at the second, three with the whole run.
    """
    shares = [math.ceil(rungs / (rungs - s) * eta ** (rungs - 1 - s)) for s in range(rungs)]
    given, found = [0] * rungs, []
    for step in range(sum(shares)):
        due = [share * (step + 1) / sum(shares) - had for share, had in zip(shares, given, strict=True)]
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

    `first`: how many are needed at least; None: all. `broken`: which violate a limit; they rank behind all that do not,
    as in Deb's constrained domination.
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
    """Crowding distance of each point of a front; infinite at its ends."""
    room = [0.0] * len(front)
    for axis in range(len(front[0])):
        order = sorted(range(len(front)), key=lambda index: front[index][axis])
        low, high = front[order[0]][axis], front[order[-1]][axis]
        room[order[0]] = room[order[-1]] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            room[here] += (front[after][axis] - front[before][axis]) / ((high - low) or 1.0)
    return room


def is_below_quantile(
    ladder: Ladder, rows: Sequence[TrialRow], row: TrialRow, sense: Sense, *, warm: bool = False
) -> bool:
    """Whether median or percentile prunes a trial at the rung that it was just scored at.

    `warm`: whether its learning rate is still in the warm-up.
    """
    if ladder.pruner not in ("median", "percentile") or _too_early(ladder, row, warm=warm):
        return False
    sign = 1.0 if sense == "maximize" else -1.0
    there = scores_at_rung(rows, row.rung_scores[-1].rung)
    others = [one.values[0] for other, one in there if other.number != row.number and not one.breaks]
    if len(others) < ladder.options["n_startup_trials"]:
        return False
    share = ladder.options.get("percentile", 50.0)
    own = max(sign * one.values[0] for one in row.rung_scores)
    return own < _quantile([sign * value for value in others], 1 - share / 100)


def _too_early(ladder: Ladder, row: TrialRow, *, warm: bool) -> bool:
    rung = row.rung_scores[-1].rung
    return rung >= ladder.last or warm or ladder.share(rung) < MIN_PRUNING_SHARE - 1e-9


def _quantile(values: Sequence[float], share: float) -> float:
    """The quantile as numpy computes it, linear between two values."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = min(int(position), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def comparison_trial(
    ladder: Ladder, rows: Sequence[TrialRow], row: TrialRow, sense: Sense, *, warm: bool = False
) -> int | None:
    """The trial that wilcoxon compares a trial with at the rung it was just scored at: the best one there.

    None: it is too early, there are too few trials, or it is the best one itself.
    """
    if ladder.pruner != "wilcoxon" or _too_early(ladder, row, warm=warm):
        return None
    there = [(other, one) for other, one in scores_at_rung(rows, row.rung_scores[-1].rung) if not one.breaks]
    others = sum(other.number != row.number for other, _ in there)
    if not others or others < ladder.options["n_startup_trials"]:
        return None
    best = there[ranked([one.values[:1] for _, one in there], [sense], first=1)[0]][0]
    return best.number if best.number != row.number else None


def is_significantly_worse(gains: Sequence[float], *, threshold: float) -> bool:
    """Whether item-by-item gains (own minus the other trial's, larger is better) are significantly below zero.

    Wilcoxon's signed-rank test, one-sided, p below `threshold`; zeros are split, as in Optuna's WilcoxonPruner.
    """
    from scipy.stats import wilcoxon  # type: ignore[import-untyped]  # half a second; only a decision needs it

    if not any(gains) or sum(gains) >= 0:
        return False
    return float(wilcoxon(gains, alternative="less", zero_method="zsplit").pvalue) < threshold
