#!/usr/bin/env python3
"""Simulated studies with repeats whose truth is known: what `best` claims once the finalists were trained again.

As scripts/bench/winners.py: a base model and n trials answer the same 1,000 items. Of what sets a trained model apart
from the others (30 % of the variance), a share belongs to the setting, with every seed, and the rest to the seed; and a
seed may make a model better or worse as a whole. The three best of the search are trained again with m new seeds.

python scripts/bench/repeats.py                # 1,000 studies a row; about 25 minutes on one core
python scripts/bench/repeats.py --studies 100 --trials 50 --seeds 3
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np
from scipy.stats import norm
from winners import ITEMS, SHARED, latent_gain

from hpotune.statistics.repeated_finalists import Choice, repeated_finalists
from hpotune.statistics.score_table import Floats, table_of_items
from hpotune.statistics.seed_spread import RepeatedSetting
from hpotune.statistics.winner import Estimate

FINALISTS = 3
SHARES = (0.0, 0.5, 1.0)
"""Of what sets a model apart: how much belongs to the setting."""
SPREADS = (0.0, 0.06)
"""Standard deviation between seeds on the latent scale; 0.06 is 1.7 % of right answers, more than the items' error."""


class World:
    """One simulated study. Trial 0 is better by `better` (latent scale)."""

    def __init__(
        self, rng: np.random.Generator, trials: int, better: float, share: float, spread: float
    ) -> None:
        self.rng, self.spread, self.residual = rng, spread, np.sqrt((1 - SHARED) * (1 - share))
        difficulty, common = rng.normal(size=(2, ITEMS))
        own = rng.normal(size=(trials, ITEMS))
        self.edge = np.sqrt(SHARED) * common - difficulty + np.sqrt((1 - SHARED) * share) * own
        self.edge[0] += better
        self.base = (
            np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * rng.normal(size=ITEMS) > difficulty
        ).astype(np.float64)

    def trained(self, trial: int | slice) -> Floats:
        """The answers of trials, each trained with a new seed. Shape (trials, items)."""
        edge = np.atleast_2d(self.edge[trial])
        noise = self.residual * self.rng.normal(size=edge.shape)
        effect = self.spread * self.rng.normal(size=(len(edge), 1))
        return (edge + noise + effect > 0).astype(np.float64)


def truth(better: float, spread: float) -> float:
    """The expected score of a setting over seeds and items."""
    return float(norm.cdf(better / np.sqrt(2 + spread**2)))


def row(trials: int, seeds: int, better: float, share: float, spread: float, studies: int) -> str:
    """One row of the table: shares of the studies."""
    rng, counts = np.random.default_rng([trials, seeds, int(10 * share), int(100 * spread)]), Counter[str]()
    for _ in range(studies):
        world = World(rng, trials, better, share, spread)
        search = table_of_items(world.trained(slice(None)), world.base)
        order = np.argsort(-search.values, kind="stable")[: min(FINALISTS, trials)]
        finalists = [int(position) for position in order]
        settings = []
        for position in finalists:
            again = table_of_items(np.vstack([world.trained(position) for _ in range(seeds)]))
            settings.append(RepeatedSetting(scores=again.values, parts=again.parts))
        choice = Choice(table=search, finalists=finalists, by_score=finalists, trials=trials)
        found = repeated_finalists(settings, choice)
        one, chosen = found.scores[found.winner], finalists[found.winner]
        assert one.gain is not None, "there is a base model"
        true = truth(better if chosen == 0 else 0.0, spread)
        counts["better"] += one.gain.at_least > 0
        counts["found"] += one.gain.at_least > 0 and chosen == 0
        counts["score"] += one.score.low <= true <= one.score.high
        counts["gain"] += one.gain.low <= true - 0.5 <= one.gain.high
        counts["high"] += one.score.value > true
        margin = one.error.stderr * one.error.widen() * norm.ppf(0.975)
        counts["naive"] += abs(one.score.observed - true) <= margin
        counts["pair"] += _pair_covers(found.differences, finalists, found.winner, better, spread)
        best = finalists.index(0) if better and 0 in finalists else 0
        counts["kept"] += best in found.may_be_best
        counts["size"] += len(found.may_be_best)
    names = ("better", "found", "score", "gain", "naive", "high", "pair", "kept")
    shares = [f"{counts[name] / studies:.3f}" for name in names]
    what = "one better" if better else "all equal"
    cells = [
        str(trials),
        str(seeds),
        what,
        f"{share:g}",
        f"{spread:g}",
        *shares,
        f"{counts['size'] / studies:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _pair_covers(
    differences: tuple[Estimate, ...], finalists: list[int], winner: int, better: float, spread: float
) -> bool:
    """Whether the interval of the first difference of two finalists covers the truth."""
    other = 0 if winner != 0 or len(finalists) == 1 else 1
    found = differences[other]
    truths = [truth(better if finalists[position] == 0 else 0.0, spread) for position in (winner, other)]
    return found.low <= truths[0] - truths[1] <= found.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--trials", type=int, nargs="*", default=[2, 50, 200])
    parser.add_argument("--seeds", type=int, nargs="*", default=[2, 3, 5])
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES)
    parser.add_argument("--spreads", type=float, nargs="*", default=SPREADS)
    arguments = parser.parse_args()
    better = latent_gain()
    sys.stdout.write(
        "| trials | seeds | truth | share of the setting | spread | said to be better | the better one found "
        "| interval of the score covers | of the gain | not corrected | estimate above the truth "
        "| of a difference of two | best finalist in the set | size of the set |\n" + f"|{'---|' * 14}\n"
    )
    for trials in arguments.trials:
        for seeds in arguments.seeds:
            for share in arguments.shares:
                for spread in arguments.spreads:
                    for gain in (0.0, better):
                        sys.stdout.write(row(trials, seeds, gain, share, spread, arguments.studies) + "\n")
                        sys.stdout.flush()


if __name__ == "__main__":
    main()
