"""The section `search` of a study file: how points are proposed, which trials continue, what follows the search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from hpotune.config.schema import Section
from hpotune.config.schema.rungs import LINEAGES, Ladder, Pruner, Rungs, ladder_of, mistakes

LISTED = "listed"
"""The algorithm of the studies that hpotune derives from another one (repeats, a sealed test): each point of a list
once. Study files of users cannot name it."""


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


class SearchConfig(Section):
    """How the search proposes the next point."""

    algorithm: str = "auto"
    """One of `hpotune algorithms`. auto: a Gaussian process, or tpe with conditions or several objectives."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Random seed; with one worker the same seed gives the same trials."""
    options: dict[str, JsonValue] = {}
    """Options of the algorithm; `hpotune algorithms NAME` lists them."""
    start_from: Annotated[list[JsonValue], BeforeValidator(_as_list)] = []
    """Points of the first trials: points by dotted names (`{train.learning_rate: 1.0e-4}`; omitted names are drawn),
    folders of past studies (their 3 best points), .csv files with dotted names as columns, or
    `{path: ../old, take: 5}`. `{path: old.csv, known: true}`: no trial repeats
    its rows, and auto, gp and tpe learn from their column `value`; only for values that were measured alike."""
    portfolio: Annotated[int, Field(ge=0, le=20)] | Literal["auto"] = 0
    """Number of start points chosen from past studies over the same names, in sibling folders or in the same store.
    auto: up to 3; 0: none. They help where the past studies' tasks are like this one, and cost trials where not."""
    pruner: Pruner = "none"
    """Which trials continue after a rung (docs/rungs.md). none: every trial runs to its end. asha, hyperband: the best
    trials of each rung. median, percentile, wilcoxon: all trials that are not worse than earlier trials."""
    rungs: Rungs = None
    """Budgets at which trials are scored: shares of the run, `[0.11, 0.33, 1]`, or `{unit: steps, at: [50, 450]}`
    (also rows, or items of lm-eval). null: 1/9, 1/3, 1 for asha and hyperband; 0.2, 0.4, 0.6, 0.8, 1 for the others."""
    pruner_options: dict[str, JsonValue] = {}
    """asha, hyperband: eta (default 3: one trial of three is promoted). median, percentile, wilcoxon: n_startup_trials
    (default 4: trials at a rung before any is pruned). percentile: percentile (default 33.3: the best third continues).
    wilcoxon: p_threshold (default 0.1)."""

    finalists: int = Field(default=3, ge=1, le=100)
    """Number of trials that `repeats` trains again, and that `hpotune test` scores on `score.test`: the best one, the
    cheapest of those that may be the best, then the next by score."""
    repeats: int = Field(default=0, ge=0, le=100)
    """Number of further trainings of each finalist after the search, each with a new seed (docs/repeats.md): `best`
    then decides by them, with the spread between seeds and the error over items. At least 2; 3 to 5 are usual.
    0: none. The limits of `budget` hold for search and repeats together."""

    @property
    def is_derived(self) -> bool:
        """Whether the study was derived by hpotune from another one, whose trials it scores or trains again."""
        return self.algorithm == LISTED

    @property
    def trains_in_stages(self) -> bool:
        """Whether a trial trains in stages: to the next rung, or to the next generation of a population."""
        return self.ladder is not None or self.algorithm in LINEAGES

    @property
    def ladder(self) -> Ladder | None:
        """The rungs of the study; None if trials have no rungs."""
        return ladder_of(self.pruner, self.algorithm, self.rungs, self.pruner_options)

    @model_validator(mode="after")
    def _repeats_possible(self) -> SearchConfig:
        if self.repeats == 1:
            raise ValueError("repeats: 1: one training has no spread; needs 0, or at least 2")
        if self.repeats and self.algorithm in LINEAGES:
            raise ValueError(
                f"repeats: {self.repeats}: a trial of {self.algorithm} changes its values while it trains, so it "
                "cannot be trained again from its point; write 0"
            )
        return self

    @model_validator(mode="after")
    def _rungs_right(self) -> SearchConfig:
        for text in mistakes(self.pruner, self.algorithm, self.rungs, self.pruner_options):
            raise ValueError(text)
        return self
