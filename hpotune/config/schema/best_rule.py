"""The section `best` of a study file: which trial counts as the best one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from hpotune.config.schema import Section
from hpotune.config.space.metric_conditions import names_of

MOST_CONDITIONS = 20


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


class BestRule(Section):
    """Which trial is the best one, where that is not the first objective alone: it decides `best`, the finalists, the
    adapters that are kept, `export`'s default, and the best so far in `status`. The search and the goal follow
    `score.objective`. The rule of an existing study may be edited: it changes no trial."""

    maximize: str | None = None
    """The number by which trials are ranked, largest first: an objective, `TASK/METRIC` of a task under `score.record`,
    a number from training such as train_seconds, a key that your function or command returns, seconds, or gpu_hours.
    null: see minimize."""
    minimize: str | None = None
    """The same, smallest first. null for both: the first objective."""
    subject_to: Annotated[list[str], BeforeValidator(_as_list)] = []
    """A condition, or a list of them, that the best trial satisfies, such as `peak_memory_gb <= 38`; spaces around `/`
    make it a division. A trial that did not measure a number of a condition does not satisfy it."""

    @property
    def metric(self) -> str | None:
        """The number by which trials are ranked; None: the first objective."""
        return self.maximize if self.maximize is not None else self.minimize

    @property
    def sense(self) -> Literal["maximize", "minimize"]:
        """The direction of `metric`."""
        return "maximize" if self.maximize is not None else "minimize"

    @property
    def names(self) -> frozenset[str]:
        """All numbers that the rule reads."""
        read = frozenset().union(*map(names_of, self.subject_to))
        return read if self.metric is None else read | {self.metric}

    @model_validator(mode="after")
    def _conditions(self) -> BestRule:
        if len(self.subject_to) > MOST_CONDITIONS:
            raise ValueError(
                f"subject_to: has {len(self.subject_to)} conditions; needs at most {MOST_CONDITIONS}"
            )
        for text in self.subject_to:
            try:
                names_of(text)
            except ValueError as error:
                raise ValueError(f"subject_to: {text!r} {error}") from None
        return self

    @model_validator(mode="after")
    def _one_metric(self) -> BestRule:
        if self.maximize is not None and self.minimize is not None:
            raise ValueError("maximize: maximize and minimize exclude each other; keep one")
        if self.metric is None and not self.subject_to:
            raise ValueError(
                "maximize: is missing; write `maximize: METRIC`, `minimize: METRIC` or `subject_to: CONDITION`"
            )
        return self
