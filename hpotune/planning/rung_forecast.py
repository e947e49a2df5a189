"""The rungs that trials will be scored at, before any has run: ASHA and Hyperband simulated with random scores.

What median, percentile and wilcoxon prune depends on the scores: with them every trial is assumed to run to its end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from hpotune.config.schema.rungs import Ladder
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import RungScore, TrialRow
from hpotune.schedule.promotion import next_rung, rung_decisions

MAX_SIMULATED = 243
"""Trials that are simulated; larger studies repeat them. The simulation reads all rows at each step."""


def rung_forecast(config: StudyConfig, ladder: Ladder) -> list[list[int]]:
    """The rungs that each trial is scored at, by number, the baseline left out; at most MOST of them."""
    count = min(config.budget.trials, MAX_SIMULATED)
    if not ladder.is_halving:
        return [list(range(len(ladder))) for _ in range(count)]
    luck = random.Random(0).sample(range(count), count)
    played = config.model_copy(
        update={
            "budget": config.budget.model_copy(update={"trials": count}),
            "score": config.score.model_copy(update={"objective": config.score.objective[:1]}),
        }
    )
    rows = [TrialRow(number=number, kind="trial", state="waiting", params={}) for number in range(count)]
    busy: list[tuple[int, int]] = []
    while True:
        while len(busy) < config.budget.parallel and (due := _due(played, ladder, rows)):
            number, rung = due[0], next_rung(ladder, rows[due[0]])
            rows[number] = replace(rows[number], state="running", rung=rung)
            busy.append((number, rung))
        if not busy:
            return [[one.rung for one in row.rung_scores] for row in rows]
        number, rung = busy.pop(0)
        rows[number] = _reached(rows[number], ladder, rung, score=float(luck[number]))


def _due(config: StudyConfig, ladder: Ladder, rows: Sequence[TrialRow]) -> list[int]:
    found = rung_decisions(config, ladder, rows)
    return [*found.promoted, *found.new]


def _reached(row: TrialRow, ladder: Ladder, rung: int, *, score: float) -> TrialRow:
    one = RungScore(rung=rung, budget=ladder.budgets[rung], values=(score,))
    ended = rung == ladder.last
    return replace(
        row,
        state="finished" if ended else "waiting",
        rung_scores=(*row.rung_scores, one),
        values=(score,) * ended,
    )


def trial_seconds(ladder: Ladder, rungs: Sequence[int], *, trial_s: float, load_s: float) -> float:
    """Seconds of a trial that is scored at these rungs, without its first loading: each stage loads again."""
    return trial_s * ladder.share(rungs[-1]) + load_s * (len(rungs) - 1)
