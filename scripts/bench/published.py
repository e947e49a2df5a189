"""What the published trials of the study that hpotune grew from say: 578 fine-tunings of Llama-3.2-1B and 3B.

Source: github.com/Kiwy3/BO_PBO_HPO_LLM at 121f8a2 (MIT), davouse.csv of the shared search bench.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from surfaces import SHARED

from hpotune.statistics.best_set import best_set
from hpotune.statistics.score_table import table_of_errors
from hpotune.statistics.winner import Winner, winner

LARGE = ("lhs", "bo", "soo")
"""Runs of the 3B model; all others are of the 1B model."""
COMPARED = {
    "3b": {"lhs": "LHS", "bo": "BO", "soo": "SOO"},
    "1b": {"lhs_bis": "LHS", "bo_bis": "BO", "soo_bis": "SOO", "bamsoo_bis": "BaMSOO"},
}
"""Model -> runs on the final ranges -> their algorithm."""
SLIDES = {"exp12_bo": "BO", "exp10_soo": "SOO", "exp11_bamsoo": "BaMSOO"}
"""Runs whose best scores stand on the slides (acc_norm of the 1B model, on a narrower space)."""
ITEMS = 10_042
"""Of HellaSwag's validation split."""
VARIABLES = ("rank", "alpha", "dropout", "lr", "wd")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One published fine-tuning."""

    run: str
    values: tuple[float, ...]
    """In the order of VARIABLES."""
    acc: float
    acc_norm: float
    mmlu: float

    @property
    def size(self) -> str:
        """Of the model."""
        return "3b" if self.run in LARGE else "1b"

    @property
    def is_base_model(self) -> bool:
        """Whether training cannot have moved the model: a rate below 1e-8 through a small scale."""
        return self.values[3] < 1e-8 and self.values[1] / self.values[0] < 0.15


@cache
def trials() -> tuple[Trial, ...]:
    """Those that were scored, in the order of their runs."""
    file = SHARED / "data" / "davouse.csv"
    if not file.is_file():
        raise SystemExit(f"{file}: not there; set HPOTUNE_SEARCHBENCH to the search bench's folder")
    with file.open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["hellaswag_acc"]]
    return tuple(
        Trial(
            run=row["run"],
            values=tuple(float(row[name]) for name in VARIABLES),
            acc=float(row["hellaswag_acc"]),
            acc_norm=float(row["hellaswag_acc_norm"]),
            mmlu=float(row["mmlu_acc"] or math.nan),
        )
        for row in rows
    )


def base_score(size: str, metric: Callable[[Trial], float]) -> float:
    """The median score of runs that left the model as it was: the baseline that nobody measured."""
    return float(
        np.median([metric(trial) for trial in trials() if trial.size == size and trial.is_base_model])
    )


def best(size: str, metric: Callable[[Trial], float]) -> float:
    """The best published score."""
    return max(metric(trial) for trial in trials() if trial.size == size)


def error(share: float) -> float:
    """Standard error of a share of HellaSwag's items."""
    return math.sqrt(share * (1 - share) / ITEMS)


def collapsed(size: str) -> dict[int, tuple[int, float]]:
    """Decade of the learning rate -> trials, and the share of them below 0.3 (chance is 0.25)."""
    found: dict[int, list[bool]] = {}
    for trial in trials():
        if trial.size == size:
            found.setdefault(math.floor(math.log10(trial.values[3]) + 1e-9), []).append(trial.acc < 0.3)
    return {decade: (len(of), float(np.mean(of))) for decade, of in sorted(found.items())}


def agreement(size: str) -> tuple[int, float, float]:
    """Trials with both scores, Pearson of HellaSwag and MMLU, and Spearman within the better half."""
    scored = [t for t in trials() if t.size == size and not math.isnan(t.mmlu)]
    pairs = np.array([(t.acc, t.mmlu) for t in scored])
    half = pairs[pairs[:, 0] >= np.median(pairs[:, 0])]
    return (
        len(pairs),
        _correlation(pairs),
        _correlation(np.column_stack([_ranks(half[:, 0]), _ranks(half[:, 1])])),
    )


def beta(trial: int, eta: float) -> float:
    """BaMSOO's factor of the standard deviation after so many nodes. Wang et al. 2014, equation 2 of the slides."""
    return math.sqrt(2 * math.log(math.pi**2 * trial**2 / (6 * eta)))


def facts() -> str:
    """The slides' statements beside what the published trials say."""
    lines = ["| the slides | the published trials |", "|---|---|"]
    ground = base_score("1b", lambda t: t.acc_norm)
    for run, name in SLIDES.items():
        top = max(t.acc_norm for t in trials() if t.run == run)
        lines.append(
            f"| {name}: a best of {top:.1%} | the 1B base model: {ground:.1%} ± {error(ground):.1%} |"
        )
    for size in ("3b", "1b"):
        ground, top = base_score(size, lambda t: t.acc), best(size, lambda t: t.acc)
        gain = (top - ground) / error(ground)
        lines.append(
            f"| final ranges, {size.upper()}: tuning pays | best of all {top:.4f}, base model {ground:.4f}: "
            f"{gain:+.1f} standard errors, chosen as the best of many |"
        )
        number, pearson, spearman = agreement(size)
        lines.append(
            f"| HellaSwag and MMLU correlate by 99.5 % | {size.upper()}, {number} trials: {pearson:.2f}; ranks within "
            f"the better half: {spearman:.2f} |"
        )
    one, two = beta(50, 0.5), beta(50, 1.0)
    lines.append(f"| raise eta to approximate more | eta 0.5 to 1 changes B_50 from {one:.2f} to {two:.2f} |")
    return "\n".join(lines)


def chosen(run: str) -> tuple[Winner, int, int]:
    """The best trial of a run, corrected for its choice; of how many trials, and how many of them may be the best."""
    found = [trial for trial in trials() if trial.run == run]
    ground = base_score(found[0].size, lambda trial: trial.acc)
    values = np.array([trial.acc for trial in found])
    errors = np.array([error(value) for value in values])
    table = table_of_errors(values, errors, ground, error(ground))
    return winner(table, int(values.argmax())), len(found), len(best_set(table))


def conclusions() -> str:
    """Each run's best trial by the statistics of `hpotune best`."""
    lines = [
        "| model | algorithm | best score | expected on further items, 95 % | gain over the base model, 95 % | "
        "better | may be its best trial |",
        "|---" * 7 + "|",
    ]
    for size, runs in COMPARED.items():
        for run, algorithm in runs.items():
            top, count, tied = chosen(run)
            score, gain = top.score, top.gain
            assert gain is not None, "every run has a base model"
            lines.append(
                f"| {size.upper()} | {algorithm} | {score.observed:.4f} | {score.value:.4f} ({score.low:.4f} to "
                f"{score.high:.4f}) | {gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) | "
                f"{'yes' if top.better else 'not shown'} | {tied} of {count} |"
            )
    return "\n".join(lines)


def cliff() -> str:
    """The share of collapsed runs by decade of the learning rate."""
    both = {size: collapsed(size) for size in ("3b", "1b")}
    decades = sorted(set(both["3b"]) | set(both["1b"]))
    lines = [
        "| learning rate from | " + " | ".join(f"1e{d}" for d in decades) + " |",
        "|---" * (len(decades) + 1) + "|",
    ]
    for size, of in both.items():
        cells = [f"{of[d][1]:.0%} of {of[d][0]}" if d in of else "-" for d in decades]
        lines.append(f"| {size.upper()}: below 0.3 | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks of ties."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def _correlation(pairs: Sequence[Sequence[float]] | np.ndarray) -> float:
    return float(np.corrcoef(np.asarray(pairs).T)[0, 1])
