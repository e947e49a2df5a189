#!/usr/bin/env python3
"""What racing and rungs save: the time of 50 trials, and until their best score, against 50 trials scored whole.

python scripts/bench/racing.py [--studies 100] [--csv FILE]

Simulated from real scores: each study draws its trials from the HellaSwag scores of searches over LoRA settings of
Llama-3.2 1B or 3B that the shared search bench holds (davouse.csv): `design` from a Latin hypercube, `search` from
searches, whose trials are closer to each other. The answers of a trial to 10,042 items are a Gaussian threshold model
with these scores; two equally good trials answer 7 % of the items differently (measured were 1 to 2 %). The tests,
looks and limits are those of a trial (hpotune/statistics/group_sequential.py).

Rungs: asha, eta 3, at a quarter of the run or at its default rungs, a ninth and a third. What training changes after
a rung is a fifth of the spread of the trials after a quarter, and more before; the correlation of ranks that this gives
is printed. A rung is scored on all items, or on 500. Time: training takes 1 - share, scoring all items `share` of a
whole trial; a promoted trial pays no start, as in a warm process; the search itself costs nothing. One worker.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np

from hpotune.statistics.group_sequential import Floats, Stratum, limits, looks, paired_estimate

ITEMS, TRIALS, ERROR, RUNG_ITEMS = 10_042, 50, 0.05, 500
ETA, LIKE = 3, 0.976  # LIKE: correlation of two trials' answers: arccos(.976) / pi = 7 % differ
QUARTER, DEFAULT = (0.25, 1.0), (1 / 9, 1 / 3, 1.0)
KINDS = {
    "3B, design": ("lhs",),
    "3B, search": ("bo", "soo"),
    "1B, design": ("lhs_bis",),
    "1B, search": ("bo_bis", "soo_bis", "bamsoo_bis"),
}
"""The searches of davouse.csv."""
HERE = Path(__file__).resolve()
SHARED = Path(os.environ.get("HPOTUNE_SEARCHBENCH", HERE.parents[3] / "shared" / "searchbench"))
SPREAD = 0.2
"""Standard deviation of what the rest of the training changes after a quarter of it, in those of the trials."""


@dataclass(frozen=True, slots=True)
class Study:
    """The answers of the trials of a study, in the order in which the items are scored."""

    whole: np.ndarray
    """At the end of training. Shape (trials, items), 0 and 1."""
    early: dict[float, np.ndarray]
    """At the rungs, by the share of training. Shapes as `whole`."""

    @property
    def scores(self) -> Floats:
        """The scores over all items."""
        return np.asarray(self.whole.mean(axis=1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a study took, in whole trials."""

    trained: float
    """Trainings."""
    scored: float
    """Scorings of all items."""
    best: float
    """The best score that is known over all items."""
    until: tuple[float, float]
    """Trained and scored until that score was known."""


def read_scores(file: Path) -> dict[str, Floats]:
    """The published scores, of designs and of searches."""
    with file.open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["hellaswag_acc_norm"]]
    return {
        kind: np.array([float(row["hellaswag_acc_norm"]) for row in rows if row["run"] in runs])
        for kind, runs in KINDS.items()
    }


def simulated(scores: Floats, rng: np.random.Generator) -> Study:
    """A study whose trials have scores drawn from the published ones."""
    drawn = rng.choice(scores, TRIALS)
    ability = np.array([NormalDist().inv_cdf(min(max(value, 0.01), 0.99)) for value in drawn])[:, None]
    easy = rng.standard_normal(ITEMS) * math.sqrt(LIKE)

    def answers(level: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal((TRIALS, ITEMS)) * math.sqrt(1 - LIKE)
        return (level + easy + noise > 0).astype(np.int8)

    early = {}
    for rung in {*QUARTER, *DEFAULT} - {
        1.0
    }:  # where it will end, but for what the rest of the training changes
        change = rng.standard_normal((TRIALS, 1)) * ability.std() * SPREAD * math.sqrt((1 - rung) / rung / 3)
        early[rung] = answers(ability - 0.1 + change)
    return Study(whole=answers(ability), early=early)


def scored_share(study: Study, trial: int, leader: int | None) -> tuple[float, bool]:
    """The share of the items that a trial is scored on, and whether it is all."""
    if leader is None:
        return 1.0, True
    differences = study.whole[trial].astype(np.float64) - study.whole[leader]
    shares = looks(ITEMS)
    for share, limit in zip(shares, limits(shares, ERROR), strict=True):
        count = math.ceil(share * ITEMS)
        found = paired_estimate([Stratum(differences=differences[:count], size=ITEMS, weight=1.0)])
        if found.statistic < limit:
            return count / ITEMS, False
    return 1.0, True


def played(study: Study, *, race: bool, rungs: Sequence[float] = (1.0,), rung_items: int = ITEMS) -> Spent:
    """A study of one worker. `rungs`: shares of training, of asha; 1 alone: no rungs."""
    scores, trained, scored = study.scores, 0.0, 0.0
    leader: int | None = None
    until = (0.0, 0.0)
    at: list[dict[int, float]] = [{} for _ in rungs]  # the scores at each rung, by trial
    new = iter(range(TRIALS))

    def due() -> tuple[int, int] | None:
        """The trial to continue and its next rung: the highest promotion, else a new trial."""
        for rung in range(len(rungs) - 2, -1, -1):
            best = sorted(at[rung], key=lambda one: -at[rung][one])[: len(at[rung]) // ETA]
            if found := [one for one in best if one not in at[rung + 1]]:
                return found[0], rung + 1
        return next(((trial, 0) for trial in new), None)

    while (step := due()) is not None:
        trial, rung = step
        trained += rungs[rung] - (rungs[rung - 1] if rung else 0.0)
        if rung < len(rungs) - 1:
            scored += rung_items / ITEMS
            at[rung][trial] = float(study.early[rungs[rung]][trial, :rung_items].mean())
            continue
        share, is_whole = scored_share(study, trial, leader) if race else (1.0, True)
        scored += share
        at[rung][trial] = scores[trial]
        if is_whole and (leader is None or scores[trial] > scores[leader]):
            leader, until = trial, (trained, scored)
    assert leader is not None, "the first trial at the end is scored whole"
    return Spent(trained=trained, scored=scored, best=float(scores[leader]), until=until)


FEW = RUNG_ITEMS
WAYS: dict[str, Callable[[Study], Spent]] = {
    "all whole": partial(played, race=False),
    "race": partial(played, race=True),
    "rungs 1/4": partial(played, race=False, rungs=QUARTER),
    f"rungs 1/4, {FEW} items": partial(played, race=False, rungs=QUARTER, rung_items=FEW),
    f"rungs 1/4, {FEW} items, race": partial(played, race=True, rungs=QUARTER, rung_items=FEW),
    f"rungs 1/9, 1/3, {FEW} items": partial(played, race=False, rungs=DEFAULT, rung_items=FEW),
    f"rungs 1/9, 1/3, {FEW} items, race": partial(played, race=True, rungs=DEFAULT, rung_items=FEW),
}


def time_of(trained: float, scored: float, share: float) -> float:
    """In whole trials, where scoring takes `share` of one."""
    return (1 - share) * trained + share * scored


def table(kind: str, studies: Sequence[Study], shares: Sequence[float]) -> None:
    """A line a way: how much less time than all trials whole, and what is lost."""
    spent = {way: [play(study) for study in studies] for way, play in WAYS.items()}
    head = [f"50 trials, scoring {share:.0%}" for share in shares]
    head += [f"to the best, scoring {share:.0%}" for share in shares]
    print(f"\n| {kind} | trainings | scorings | {' | '.join(head)} | same best | score lost |")
    print("|---" * (len(head) + 5) + "|")
    for way, every in spent.items():
        cells = [
            f"{np.mean([one.trained for one in every]):.1f}",
            f"{np.mean([one.scored for one in every]):.1f}",
        ]
        for key in ("all", "until"):
            for share in shares:
                sums = [
                    sum(
                        time_of(*((one.trained, one.scored) if key == "all" else one.until), share)
                        for one in spent[name]
                    )
                    for name in (way, "all whole")
                ]
                cells.append(f"{sums[1] / sums[0]:.2f} x")
        lost = [full.best - one.best for one, full in zip(every, spent["all whole"], strict=True)]
        same = np.mean([value == 0 for value in lost])
        print(f"| {way} | {' | '.join(cells)} | {same:.0%} | {np.mean(lost):.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--csv", type=Path, default=SHARED / "data" / "davouse.csv")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    given = parser.parse_args()
    wrong_ends(np.random.default_rng(0))
    for kind, scores in read_scores(given.csv).items():
        rng = np.random.default_rng(0)
        studies = [simulated(scores, rng) for _ in range(given.studies)]
        table(kind, studies, given.shares)
        at = {
            f"{rung:.2g}": np.mean([spearman(s.early[rung].mean(axis=1), s.scores) for s in studies])
            for rung in sorted(studies[0].early)
        }
        shown = ", ".join(f"{value:.2f} at {rung}" for rung, value in at.items())
        print(f"\n{len(scores)} published scores; Spearman correlation of rung and end: {shown}", flush=True)


def wrong_ends(rng: np.random.Generator, *, orders: int = 2000) -> None:
    """Print how often the test ends a trial that is as good as the leader over all items."""
    print(f"\n| items | answered differently | ended early of {orders} orders |\n|---|---|---|")
    for items in (200, 1000, ITEMS):
        for share in (0.02, 0.1, 0.3):
            half = round(share * items / 2)
            equal = np.repeat([1.0, -1.0, 0.0], [half, half, items - 2 * half])
            ended = [ends_early(rng.permutation(equal)) for _ in range(orders)]
            print(f"| {items} | {share:.0%} | {np.mean(ended):.1%} |", flush=True)


def ends_early(differences: Floats) -> bool:
    """Whether a trial with these differences to the leader, in the order of the items, ends early."""
    shares, items = looks(len(differences)), len(differences)
    for share, limit in zip(shares, limits(shares, ERROR), strict=True):
        part = differences[: math.ceil(share * items)]
        if paired_estimate([Stratum(differences=part, size=items, weight=1.0)]).statistic < limit:
            return True
    return False


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
