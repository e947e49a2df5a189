"""The description of an algorithm: how its sampler is made, what it supports, when to use it (`hpotune algorithms`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpotune.config.load import Study as StudyFile
from hpotune.records.lineage import Lineage
from hpotune.search.base.sampler import SamplerSetup

LineageOf = Callable[[Study, FrozenTrial, SamplerSetup], Lineage]


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """One search algorithm, defined as ALGORITHM in a file of its own."""

    make: Callable[[SamplerSetup], BaseSampler]
    when: str
    """When to use it, in one line."""
    cost: str
    """CPU time of one proposal, at 50 and at 200 trials."""
    parallel: str
    """How it handles many workers."""
    source: str
    conditions: bool = False
    """Whether it supports parameters that exist only under a condition (`when`)."""
    categories: bool = True
    objectives: bool = False
    """Whether it supports several objectives."""
    constraints: bool = True
    """Whether it learns from constraints known only after a trial; those known before hold with every algorithm."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Keys of `search.options`, and their meaning."""
    assign_lineage: LineageOf | None = None
    """Writes and returns the lineage of a trial; None: every trial starts at its first step."""
    study_errors: Callable[[StudyFile, SamplerSetup], Sequence[str]] = lambda study, setup: ()
    """Errors of a study file that it cannot run, beyond the abilities above; a line each."""
    extended_setup: Callable[[SamplerSetup, SamplerSetup], SamplerSetup] = lambda now, before: now
    """(now, before) -> the setup to check once the budget of a study has changed."""

    @property
    def cannot(self) -> list[str]:
        """What it does not support, in words."""
        words = {
            "conditions (`when`)": self.conditions,
            "categories": self.categories,
            "several objectives": self.objectives,
            "constraints known only after a trial": self.constraints,
        }
        return [word for word, able in words.items() if not able]
