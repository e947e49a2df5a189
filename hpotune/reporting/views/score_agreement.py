"""How the other scores of trials agree with what trials are ranked by: over all trials, and among the good ones.

A correlation over all trials is often carried by those that diverged: what helps the choice is the agreement among
the good trials.
Source: Spearman 1904 (rank correlation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpotune.config.metrics import COSTS
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.schedule.ranking import measured_numbers, ranked_objective

if TYPE_CHECKING:
    from hpotune.statistics.score_table import Floats

MOST = 8
"""Other scores that are compared."""
FEWEST = 5
"""Pairs of which a correlation is computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorePair:
    """Two scores of one trial."""

    number: int
    objective: float
    other: float
    objective_stderr: float | None
    other_stderr: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreAgreement:
    """What trials are ranked by, and another score of the same trials."""

    objective: str
    other: str
    pairs: tuple[ScorePair, ...]
    """By trial number; the base model is left out."""
    pearson: float | None
    """None for fewer than five pairs, or where one of the scores is the same in all trials."""
    spearman: float | None
    good: int
    """Trials in the better half by what they are ranked by."""
    pearson_good: float | None
    """Within that half."""
    spearman_good: float | None


def score_agreements(config: StudyConfig, rows: Sequence[TrialRow]) -> tuple[ScoreAgreement, ...]:
    """What trials are ranked by, beside each objective, recorded task and loss that finished trials have."""
    import numpy as np  # `status` does without

    objective = ranked_objective(config.score.objective, config.best)
    trials = [row for row in rows if row.state == "finished" and row.kind == "trial" and row.values]
    found = []
    for name in _other_scores(config, objective.label, trials)[:MOST]:
        pairs = tuple(_pairs(objective.label, name, config, trials))
        if len(pairs) < 2:
            continue
        values = np.array([[one.objective, one.other] for one in pairs])
        sign = 1 if objective.sense == "maximize" else -1
        ranked = sign * values[:, 0]
        good = values[ranked >= np.median(ranked)]
        found.append(
            ScoreAgreement(
                objective=objective.label,
                other=name,
                pairs=pairs,
                pearson=_correlation(values, ranks=False),
                spearman=_correlation(values, ranks=True),
                good=len(good),
                pearson_good=_correlation(good, ranks=False),
                spearman_good=_correlation(good, ranks=True),
            )
        )
    return tuple(found)


def _other_scores(config: StudyConfig, label: str, trials: Sequence[TrialRow]) -> list[str]:
    """Names of scores besides the one with this label: objectives, then scored tasks, then losses.

    Of a function or command every number that it gave back.
    """
    labels = [objective.label for objective in config.score.objective]
    sealed = {one.task for one in config.score.test}
    names = dict.fromkeys(name for row in trials for name in row.metrics)
    if config.python or config.command:
        own = [name for name in names if name not in COSTS and not name.endswith("_stderr")]
        return [name for name in dict.fromkeys([*labels, *own]) if name != label]
    tasks = [
        name
        for name in names
        if "/" in name and not name.endswith("_stderr") and name.partition("/")[0] not in sealed
    ]
    losses = [name for name in ("eval_loss", "train_loss", "eval_accuracy") if name in names]
    return [name for name in dict.fromkeys([*labels, *tasks, *losses]) if name != label]


def _pairs(label: str, name: str, config: StudyConfig, trials: Sequence[TrialRow]) -> Iterator[ScorePair]:
    for row in trials:
        numbers = measured_numbers(config.score.objective, row)
        if label in numbers and name in numbers:
            yield ScorePair(
                number=row.number,
                objective=numbers[label],
                other=numbers[name],
                objective_stderr=numbers.get(f"{label}_stderr"),
                other_stderr=numbers.get(f"{name}_stderr"),
            )


def _correlation(values: Floats, *, ranks: bool) -> float | None:
    """Pearson's or Spearman's correlation of two columns. Shape: (trials, 2)."""
    import numpy as np

    columns = values[np.isfinite(values).all(axis=1)]
    if ranks and len(columns):
        columns = np.column_stack([_ranks(columns[:, 0]), _ranks(columns[:, 1])])
    if len(columns) < FEWEST or min(np.ptp(columns, axis=0)) == 0:
        return None
    return float(np.corrcoef(columns.T)[0, 1])


def _ranks(column: Floats) -> Floats:
    """Ranks from 1; equal values have the mean of their ranks. Shape: (trials,)."""
    import numpy as np

    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: Floats = (ends - (counts - 1) / 2)[inverse]
    return found
