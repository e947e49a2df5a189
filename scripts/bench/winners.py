#!/usr/bin/env python3
"""Simulated studies whose truth is known: how often `best` says "better", and how often its intervals cover the truth.

Each study has a base model and n trials that answer the same 1,000 items. Answers are correlated by the items'
difficulty and by what all models know (correlation 0.7 of the rest). All trials are as good as the base model, or one
is better by three standard errors of a paired difference.

python scripts/bench/winners.py                # 1,000 studies of 2, 50 and 200 trials; about 15 minutes on one core
python scripts/bench/winners.py --studies 100
python scripts/bench/winners.py --limit       # how many of the better ones any test could find
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np
from scipy.stats import norm

from hpotune.statistics.best_set import best_set
from hpotune.statistics.score_table import Floats, table_of_items
from hpotune.statistics.winner import winner

ITEMS, SHARED, ERRORS = 1000, 0.7, 3.0


def answers(rng: np.random.Generator, trials: int, better: float) -> Floats:
    """Right answers, shape (1 + trials, items), the base model first; trial 1 is better by `better` (latent scale)."""
    difficulty, common = rng.normal(size=(2, ITEMS))
    skill = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * rng.normal(size=(trials + 1, ITEMS))
    skill[1] += better
    return (skill > difficulty).astype(np.float64)


def latent_gain() -> float:
    """The latent gain by which a trial is ERRORS standard errors of the paired difference better than the base."""
    rng = np.random.default_rng(0)
    pairs = (answers(rng, 1, 0.0) for _ in range(50))
    stderr = float(np.mean([(pair[1] - pair[0]).std(ddof=1) / np.sqrt(ITEMS) for pair in pairs]))
    return float(norm.ppf(0.5 + ERRORS * stderr) * np.sqrt(2))


def row(trials: int, better: float, studies: int) -> str:
    """One row of the table: shares of the studies."""
    rng, counts = np.random.default_rng(trials), Counter[str]()
    for _ in range(studies):
        found = answers(rng, trials, better)
        table = table_of_items(found[1:], found[0])
        best = int(table.values.argmax())
        one = winner(table, best)
        assert one.gain is not None, "there is a base model"
        truth = float(norm.cdf(better / np.sqrt(2))) if best == 0 else 0.5
        margin = norm.ppf(0.975) * table.stderr(table.parts[best])
        members = best_set(table)
        counts["better"] += bool(one.better)
        counts["found"] += bool(one.better) and best == 0
        counts["score"] += one.score.low <= truth <= one.score.high
        counts["gain"] += one.gain.low <= truth - 0.5 <= one.gain.high
        counts["naive"] += abs(one.score.observed - truth) <= margin
        counts["high"] += one.score.value > truth
        counts["kept"] += 0 in members
        counts["size"] += len(members)
    shares = [
        f"{counts[name] / studies:.3f}"
        for name in ("better", "found", "score", "gain", "naive", "high", "kept")
    ]
    return " | ".join(
        [
            "",
            str(trials),
            "one better" if better else "all equal",
            *shares,
            f"{counts['size'] / studies:.1f}",
            "",
        ]
    )


def limit(trials: int, studies: int = 100_000) -> float:
    """The largest probability with which any test of level 5 % finds a trial that is better by ERRORS.

    Neyman and Pearson's test of "all trials and the base model are equal" against "an unknown one is better", when
    the common score and the errors are known: a test that holds its level in this one case cannot do better.
    """
    rng, lead = np.random.default_rng(0), ERRORS * np.sqrt(2)  # in errors of one trial; a difference has two

    def ratios(better: float) -> Floats:
        found = []
        for _ in range(studies // 1000):
            scores = rng.normal(size=(1000, trials))
            scores[:, 0] += better
            found.append(np.exp(lead * scores - lead**2 / 2).mean(axis=1))
        return np.concatenate(found)

    return float((ratios(lead) > np.quantile(ratios(0.0), 0.95)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--trials", type=int, nargs="*", default=[2, 50, 200])
    parser.add_argument("--limit", action="store_true", help="the largest power of any test, instead")
    arguments = parser.parse_args()
    better = latent_gain()
    head = (
        "| trials | truth | said to be better | the better one found | interval of the score covers | of the gain "
        "| uncorrected interval covers | estimate above the truth | better one in the set | size of the set |"
    )
    if arguments.limit:
        for trials in arguments.trials:
            sys.stdout.write(f"{trials} trials: no test can find it in more than {limit(trials):.1%}\n")
        return
    sys.stdout.write(f"{head}\n|{'---|' * 10}\n")
    for trials in arguments.trials:
        for gain in (0.0, better):
            sys.stdout.write(f"{row(trials, gain, arguments.studies).strip()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
