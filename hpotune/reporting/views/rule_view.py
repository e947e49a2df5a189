"""The rule that chooses the best trial, as `best` and `status` show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.study_config import Objective
from hpotune.schedule.ranking import ranked_objective


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleView:
    """The rule by which the best trial was chosen (`best` of the study file, or `--rule`)."""

    metric: str
    """By which trials are ranked."""
    direction: Literal["minimize", "maximize"]
    subject_to: tuple[str, ...]
    """Conditions that the best trial satisfies."""
    stored: bool
    """Whether it is the rule of the study file; False: it was given with `--rule`, for this output alone."""

    @property
    def text(self) -> str:
        """`maximize hellaswag/acc_norm, subject to peak_memory_gb <= 38`."""
        subject = f", subject to {' and '.join(self.subject_to)}" if self.subject_to else ""
        return f"{self.direction} {self.metric}{subject}"


def rule_view(
    objectives: Sequence[Objective], rule: BestRule | None, *, stored: bool = True
) -> RuleView | None:
    """The view of a rule; None without one."""
    if rule is None:
        return None
    by = ranked_objective(objectives, rule)
    return RuleView(metric=by.label, direction=by.sense, subject_to=tuple(rule.subject_to), stored=stored)
