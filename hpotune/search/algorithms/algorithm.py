"""What an algorithm says of itself: how it is made, what it can do, when to use it. `hpotune algorithms` prints it."""

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
    """One way to choose the next point. Each stands in a file of its own as ALGORITHM."""

    make: Callable[[SamplerSetup], BaseSampler]
    when: str
    """When to use it, in one line."""
    cost: str
    """Of one ask, at 50 and at 200 trials."""
    parallel: str
    """How it takes many workers at a time."""
    source: str
    conditions: bool = False
    """Whether it takes parameters that only some points have."""
    categories: bool = True
    objectives: bool = False
    """Whether it takes several."""
    constraints: bool = True
    """Whether it learns from constraints that are known only after a trial (those known before all algorithms keep)."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What `search.options` may hold, and its meaning."""
    assign_lineage: LineageOf | None = None
    """Whom a trial goes on from; None: each begins at its first step."""
    study_errors: Callable[[StudyFile, SamplerSetup], Sequence[str]] = lambda study, setup: ()
    """What of a study does not go with it, beyond the abilities above: lines for the user."""
    extended_setup: Callable[[SamplerSetup, SamplerSetup], SamplerSetup] = lambda now, then: now
    """The setup to hold against `faults` once a study's budget has changed: as it is now, and as it began."""

    @property
    def cannot(self) -> list[str]:
        """What it does not take, in words."""
        words = {
            "conditions (`when`)": self.conditions,
            "categories": self.categories,
            "several objectives": self.objectives,
            "constraints known only after a trial": self.constraints,
        }
        return [word for word, able in words.items() if not able]
