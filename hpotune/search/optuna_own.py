"""The options of Optuna's own samplers, by their signatures."""

from __future__ import annotations

import inspect

from optuna.samplers import BaseSampler


def options_of(kind: type[BaseSampler], *, ours: set[str]) -> dict[str, str]:
    """What `search.options` may hold for a sampler of Optuna; `ours` are arguments that hpotune gives itself."""
    names = inspect.signature(kind.__init__).parameters
    return {
        name: f"as in optuna.samplers.{kind.__name__}"
        for name in names
        if name not in {"self", "seed", *ours}
    }
