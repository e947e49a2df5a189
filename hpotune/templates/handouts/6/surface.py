"""The published study as a function: HellaSwag accuracy of Llama-3.2-3B, fine-tuned on Alpaca, at any point.

published.csv holds its 150 trials (a Latin hypercube, Bayesian optimization, SOO; 50 each) from
github.com/Kiwy3/BO_PBO_HPO_LLM at 121f8a2, MIT licence, (c) the authors. Between them the score is a weighted mean of
the near ones, with the published standard error as noise. `python surface.py` compares the study's conclusions with it.
"""

import csv
import math
import random
from pathlib import Path

import numpy as np

ROWS = list(csv.DictReader(Path("published.csv").read_text().splitlines()))
SCORES = np.array([float(row["hellaswag"]) for row in ROWS])
MMLU = np.array([float(row["mmlu"]) for row in ROWS])
RATES = np.array([float(row["lr"]) for row in ROWS])
REACH = np.array([0.05, 0.3, 0.3, 0.4, 0.4])
"""How far a trial's score reaches, as a share of each range: the learning rate matters most."""
ITEMS = 10_042
"""Of HellaSwag: a score of 0.55 has a standard error of 0.005."""


def shares(lr, rank, alpha, dropout, wd):
    """The point as shares of its ranges."""
    return np.array(
        [
            (math.log10(lr) + 10) / 9,
            (rank - 2) / 510,
            (alpha - 1) / 63,
            dropout / 0.5,
            (math.log10(wd) + 5) / 4,
        ]
    )


POINTS = np.array(
    [shares(*(float(row[name]) for name in ("lr", "rank", "alpha", "dropout", "wd"))) for row in ROWS]
)


def expected(lr, rank, alpha, dropout, wd):
    """The score without noise."""
    apart = (((POINTS - shares(lr, rank, alpha, dropout, wd)) / REACH) ** 2).sum(axis=1)
    weights = np.exp(-(apart - apart.min()) / 2)
    return float(weights @ SCORES / weights.sum())


def accuracy(lr, rank, alpha, dropout, wd):
    """A measured score and its standard error; without_noise is what the search does not see."""
    score = expected(lr, rank, alpha, dropout, wd)
    error = math.sqrt(score * (1 - score) / ITEMS)
    noise = random.Random(f"{lr} {rank} {alpha} {dropout} {wd}").gauss(0, error)
    return {"accuracy": score + noise, "accuracy_stderr": error, "without_noise": score}


def ranks(values):
    return np.argsort(np.argsort(values))


if __name__ == "__main__":
    untrained = SCORES[RATES < 1e-8]
    level, best = np.median(untrained), SCORES.max()
    print(
        f"best of {len(SCORES)} trials: {best:.4f}; trials that cannot have learnt (rate below 1e-8): median"
    )
    print(f"  {level:.4f}; the best is {(best - level) / 0.005:+.1f} standard errors above it")
    print(f"HellaSwag and MMLU correlate by {np.corrcoef(SCORES, MMLU)[0, 1]:.2f} over all trials")
    good = np.median(SCORES) <= SCORES
    print(
        f"  and by {np.corrcoef(ranks(SCORES[good]), ranks(MMLU[good]))[0, 1]:.2f} (ranks) within the better half"
    )
    for decade in range(-10, -1):
        inside = (10.0**decade <= RATES) & (10.0 ** (decade + 1) > RATES)
        print(
            f"  rate from 1e{decade}: {inside.sum():2} trials, {(SCORES[inside] < 0.3).mean():4.0%} at chance"
        )
