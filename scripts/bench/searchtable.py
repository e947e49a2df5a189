"""The tables of search.py: regret after so many trials, rank, trials to the target, time of an ask; with errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from surfaces import REAL, SIBLING, regret

REFERENCE = "optuna_tpe"
"""The target is its median regret at trial 50 with one worker."""
AT = (10, 20, 50)
CAP = 100
"""Trials to the target where the median run did not reach it within its 50."""
RESAMPLED = 500
HEAD = (
    "algorithm", "seeds", *(f"regret@{trial}" for trial in AT), "rank@20", "rank@50", "in 20", "trials to target",
    "ms an ask",
)  # fmt: skip
Row = dict[str, Any]
Runs = dict[str, dict[int, np.ndarray]]
"""Surface -> seed -> regret after each trial."""


def loaded(path: Path) -> list[Row]:
    """The runs of a results file; of repeated ones the last."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return list(
        {(r["algorithm"], r["surface"], r["seed"], r["workers"], r["mode"]): r for r in rows}.values()
    )


def incumbents(row: Row) -> np.ndarray:
    """Regret, after each trial that ended, of the point that was observed to be the best so far. Shape (trials,)."""
    best, expected, found = -math.inf, math.nan, []
    for seen, true in zip(row["observed"], row["expected"], strict=True):
        if seen is not None and seen > best:
            best, expected = seen, true
        found.append(-math.inf if math.isnan(expected) else expected)  # nothing yet: as bad as can be
    return regret(row["surface"], np.array(found))


def curves(rows: Iterable[Row], algorithm: str, *, surfaces: Sequence[str], workers: int, mode: str) -> Runs:
    """The regrets of one algorithm."""
    found: Runs = {}
    for row in rows:
        same = (row["algorithm"], row["workers"], row["mode"]) == (algorithm, workers, mode)
        if same and row["surface"] in surfaces:
            found.setdefault(row["surface"], {})[row["seed"]] = incumbents(row)
    return {name: found[name] for name in surfaces if name in found}


def targets(rows: Iterable[Row], surfaces: Sequence[str]) -> dict[str, float]:
    """The target of each surface that the reference was played on."""
    runs = curves(rows, REFERENCE, surfaces=surfaces, workers=1, mode="plain")
    return {
        name: float(np.median([run[min(50, len(run)) - 1] for run in of.values()]))
        for name, of in runs.items()
    }


def trials_to(run: np.ndarray, target: float) -> float:
    """Trials until the regret is at most the target; infinite where it never is."""
    reached = run <= target + 1e-12
    return int(np.argmax(reached)) + 1 if reached.any() else math.inf


def regret_at(runs: Runs, trial: int) -> tuple[float, float]:
    """Mean over surfaces of the mean over seeds, and its standard error over seeds."""
    values = [np.array([run[min(trial, len(run)) - 1] for run in of.values()]) for of in runs.values()]
    errors = [of.var(ddof=1) / len(of) if len(of) > 1 else math.nan for of in values]
    return float(np.mean([of.mean() for of in values])), math.sqrt(sum(errors)) / len(values)


def reached(runs: Runs, goals: dict[str, float]) -> tuple[float, float, float, float]:
    """Share of runs at the target within 20 with its error; geometric mean of median trials to it with its error."""
    counts = [np.array([trials_to(run, goals[name]) for run in of.values()]) for name, of in runs.items()]
    shares = np.array([(of <= 20).mean() for of in counts])
    error = math.sqrt(sum(s * (1 - s) / len(of) for s, of in zip(shares, counts, strict=True))) / len(counts)
    rng = np.random.default_rng(0)
    again = [_middle([rng.choice(of, len(of)) for of in counts]) for _ in range(RESAMPLED)]
    return float(shares.mean()), error, _middle(counts), float(np.std(again))


def _middle(counts: Sequence[np.ndarray]) -> float:
    """Geometric mean over surfaces of medians, each at most CAP."""
    return float(np.exp(np.mean([math.log(min(float(np.median(of)), CAP)) for of in counts])))


def ranks(runs: dict[str, Runs], trial: int) -> dict[str, float]:
    """Mean rank over the surfaces and seeds that all algorithms have; ties share."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for surface in set.intersection(*(set(of) for of in runs.values())):
        for seed in set.intersection(*(set(of[surface]) for of in runs.values())):
            values = {name: of[surface][seed][trial - 1] for name, of in runs.items()}
            for name, value in values.items():
                below = sum(other < value for other in values.values())
                equal = sum(other == value for other in values.values())
                found[name].append(below + (equal + 1) / 2)
    return {
        name: float(np.mean(ranks_of_runs)) if ranks_of_runs else math.nan
        for name, ranks_of_runs in found.items()
    }


def table(
    rows: Sequence[Row], *, surfaces: Sequence[str], algorithms: Sequence[str] | None, workers: int, mode: str
) -> str:
    """The table of those that played all of the surfaces."""
    goals = targets(rows, surfaces)
    names = algorithms or list(dict.fromkeys(row["algorithm"] for row in rows))
    runs = {name: curves(rows, name, surfaces=surfaces, workers=workers, mode=mode) for name in names}
    runs = {name: of for name, of in runs.items() if set(of) == set(surfaces)}
    if not runs:
        return f"no algorithm has played all of {', '.join(surfaces)} with {workers} workers in mode {mode}"
    at = {trial: ranks(runs, trial) for trial in (20, 50)}
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for name, of in sorted(runs.items(), key=lambda pair: regret_at(pair[1], 50)[0]):
        regrets = " | ".join("{:.3f} ± {:.3f}".format(*regret_at(of, trial)) for trial in AT)
        share, error, middle, off = (math.nan,) * 4 if set(goals) < set(surfaces) else reached(of, goals)
        mine = [r for r in rows if (r["algorithm"], r["workers"], r["mode"]) == (name, workers, mode)]
        ask_ms = 1000 * np.mean([r["ask_s"] / len(r["observed"]) for r in mine if r["surface"] in surfaces])
        seeds = min(len(seeds) for seeds in of.values())
        lines.append(
            f"| {name} | {seeds} | {regrets} | {at[20][name]:.2f} | {at[50][name]:.2f} | {share:.0%} ± {error:.0%} | "
            f"{middle:.1f} ± {off:.1f} | {ask_ms:.1f} |"
        )
    return "\n".join(lines)


def by_surface(
    rows: Sequence[Row], *, surfaces: Sequence[str], algorithms: Sequence[str] | None, workers: int, mode: str
) -> str:
    """Regret after 20 and 50 trials and the median trials to the target, surface by surface."""
    goals = targets(rows, surfaces)
    names = algorithms or list(dict.fromkeys(row["algorithm"] for row in rows))
    lines = [
        "| regret@20 / @50 (median trials to target) | " + " | ".join(surfaces) + " |",
        "|---" * (len(surfaces) + 1) + "|",
    ]
    for name in names:
        of = curves(rows, name, surfaces=surfaces, workers=workers, mode=mode)
        cells = [_cell(of, surface, goals) for surface in surfaces]
        if of:
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(runs: Runs, surface: str, goals: dict[str, float]) -> str:
    if surface not in runs:
        return "-"
    one = {surface: runs[surface]}
    counts = (
        [trials_to(run, goals[surface]) for run in runs[surface].values()] if surface in goals else [math.nan]
    )
    return f"{regret_at(one, 20)[0]:.3f} / {regret_at(one, 50)[0]:.3f} ({np.median(counts):.0f})"


def ratios(rows: Sequence[Row], name: str, *, surfaces: Sequence[str], workers: int, mode: str) -> str:
    """Trials to the target with several workers, against one: paired by seed, surface by surface and together.

    The ratio is exp(mean of log(trials / trials alone)), each at most CAP; together, the mean of the surfaces' means.
    Intervals: 95 %, percentile bootstrap over the seeds of each surface. Seeds that one side lacks are left out.
    """
    goals = targets(rows, surfaces)
    alone = curves(rows, name, surfaces=surfaces, workers=1, mode=mode)
    lines = [
        "| surface | seeds | median alone | median | geometric mean alone | geometric mean | ratio | 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    many = curves(rows, name, surfaces=surfaces, workers=workers, mode=mode)
    logs = {}
    for surface in (one for one in surfaces if one in goals and one in alone and one in many):
        seeds = sorted(alone[surface].keys() & many[surface].keys())
        if seeds:
            logs[surface] = np.log(
                [
                    [min(trials_to(of[surface][seed], goals[surface]), CAP) for of in (alone, many)]
                    for seed in seeds
                ]
            )
    lines += [_ratio_line(surface, [of]) for surface, of in logs.items()]
    return "\n".join([*lines, *([_ratio_line("together", list(logs.values()))] if len(logs) > 1 else [])])


def _ratio_line(text: str, logs: Sequence[np.ndarray]) -> str:
    """A line of `ratios`. `logs`: logarithms of trials alone and with workers, shape (seeds, 2), of each surface."""
    rng = np.random.default_rng(0)
    changes = [of[:, 1] - of[:, 0] for of in logs]
    again = [np.mean([rng.choice(of, len(of)).mean() for of in changes]) for _ in range(RESAMPLED)]
    ratio = math.exp(np.mean([of.mean() for of in changes]))
    low, high = np.exp(np.quantile(again, [0.025, 0.975]))
    medians = np.exp(np.mean([np.log(np.median(np.exp(of), axis=0)) for of in logs], axis=0))
    means = np.exp(np.mean([of.mean(axis=0) for of in logs], axis=0))
    seeds = min(len(of) for of in logs)
    return (
        f"| {text} | {seeds} | {medians[0]:.1f} | {medians[1]:.1f} | {means[0]:.1f} | {means[1]:.1f} | "
        f"{ratio:.2f} | {low:.2f} to {high:.2f} |"
    )


def accept(rows: Sequence[Row], name: str) -> str:
    """The requirements of the default, and its results."""
    shared, pair = list(REAL), list(SIBLING)
    goals = targets(rows, shared)

    def of(surfaces: Sequence[str], workers: int, mode: str) -> Runs:
        found = curves(rows, name, surfaces=surfaces, workers=workers, mode=mode)
        return found if set(found) == set(surfaces) else {}

    def figure_of(runs: Runs, figure: Callable[[Runs], tuple[float, float]]) -> tuple[float, float]:
        return figure(runs) if runs and set(runs) <= set(goals) else (math.nan, math.nan)

    def trials(runs: Runs) -> tuple[float, float]:
        return reached(runs, goals)[2:]

    plain = of(shared, 1, "plain")
    alone = figure_of(plain, trials)
    many = figure_of(of(shared, 8, "plain"), trials)
    wrong, without = (
        figure_of(of(shared, 1, mode), lambda runs: regret_at(runs, 50))
        for mode in ("wrong-prior", "no-prior")
    )
    lines = [
        ("trials to the target, one at a time", alone, 16.0),
        ("regret after 20 trials", figure_of(plain, lambda runs: regret_at(runs, 20)), 0.14),
        ("regret after 50 trials", figure_of(plain, lambda runs: regret_at(runs, 50)), 0.04),
        ("trials to the target with a portfolio", figure_of(of(pair, 1, "portfolio"), trials), 8.0),
        ("trials with 8 workers / alone", _ratio(many, alone), 1.2),
        ("regret@50, wrong prior / none", _ratio(wrong, without), 1.1),
    ]
    head = [f"| {name} | must be at most | is | |", "|---|---|---|---|"]
    return "\n".join(head + [_line(text, value, most) for text, value, most in lines])


def _ratio(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Of two independent figures, with its error."""
    ratio = one[0] / other[0]
    return ratio, ratio * math.hypot(one[1] / one[0], other[1] / other[0])


def _line(text: str, value: tuple[float, float], most: float) -> str:
    verdict = "not played" if math.isnan(value[0]) else "met" if value[0] <= most else "**missed**"
    return f"| {text} | {most:g} | {value[0]:.3g} ± {value[1]:.2g} | {verdict} |"
