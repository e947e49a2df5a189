"""Rungs of a study: the budgets at which a trial is scored, and the pruner that promotes or prunes it there.

A trial stops at a rung and continues from its checkpoint; its learning-rate schedule is that of the whole run. The
promotion rules themselves are in schedule/promotion.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field

from hpotune.config.schema import Section
from hpotune.config.yaml_source import Value
from hpotune.errors import nearest

Pruner = Literal["none", "asha", "hyperband", "median", "percentile", "wilcoxon"]
Unit = Literal["share", "steps", "rows", "items"]

HALVING = ("asha", "hyperband")
"""Pruners that promote the best trials of a rung; the others prune a trial that is worse than earlier trials."""
ALGORITHMS: Mapping[str, Pruner] = {"asha": "asha", "hyperband": "hyperband", "bohb": "hyperband"}
"""Algorithm -> the pruner that it implies."""
LINEAGES = frozenset({"pbt"})
"""Population-based algorithms: a trial continues from the checkpoint of another trial."""
SHARES: Mapping[str, tuple[float, ...]] = {
    "asha": (1 / 9, 1 / 3, 1.0),
    "hyperband": (1 / 9, 1 / 3, 1.0),
    "median": (0.2, 0.4, 0.6, 0.8, 1.0),
    "percentile": (0.2, 0.4, 0.6, 0.8, 1.0),
    "wilcoxon": (0.2, 0.4, 0.6, 0.8, 1.0),
}
"""Pruner -> default rungs, as shares of the run."""
OPTIONS: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "asha": {"eta": (3, 2, 1000)},
    "hyperband": {"eta": (3, 2, 1000)},
    "median": {"n_startup_trials": (4, 1, 1e6)},
    "percentile": {"n_startup_trials": (4, 1, 1e6), "percentile": (100 / 3, 0, 100)},
    "wilcoxon": {"n_startup_trials": (4, 1, 1e6), "p_threshold": (0.1, 0, 1)},
}
"""Pruner -> option -> (default, minimum, maximum). On 2 x 1,024 real learning curves the best third at a fifth of the
run contained all of the final best twenty."""


class RungsConfig(Section):
    """The budgets at which a trial is scored."""

    unit: Unit = "share"
    """share (of the run), steps (of the optimizer), rows (of training data), items (of the lm-eval task: each trial is
    trained completely, and scored on more items at each rung)."""
    at: list[float] = Field(min_length=1)
    """Increasing; the last one is the whole run, 1 for shares."""


def _spelled(value: object) -> object:
    """The mapping form: a bare list is a list of shares, and whole numbers become floats."""
    if isinstance(value, list):
        value = {"at": value}
    if value is not None and not isinstance(value, (dict, RungsConfig)):
        raise ValueError("needs a list of shares, e.g. [0.11, 0.33, 1], or {unit: steps, at: [50, 450]}")
    if isinstance(value, dict) and isinstance(value.get("at"), list):
        at = [float(x) if isinstance(x, int) and not isinstance(x, bool) else x for x in value["at"]]
        return {**value, "at": at}
    return value


Rungs = Annotated[RungsConfig | None, BeforeValidator(_spelled)]


class Rung(Section):
    """The rung to which one stage of a trial runs."""

    index: int
    """From 0."""
    unit: Unit
    budget: float
    """Budget of the rung in `unit`, counted from the start of the run."""
    last: bool
    """Whether the rung is the whole run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """The rungs of a study and their pruner."""

    pruner: Pruner
    unit: Unit
    budgets: tuple[float, ...]
    options: Mapping[str, float]

    def __len__(self) -> int:
        """The number of rungs."""
        return len(self.budgets)

    @property
    def last(self) -> int:
        """Index of the last rung, which is the whole run."""
        return len(self.budgets) - 1

    @property
    def is_halving(self) -> bool:
        """Whether the best trials of a rung are promoted (asha, hyperband); the other pruners prune the worst."""
        return self.pruner in HALVING

    def share(self, rung: int) -> float:
        """Share of the training that is done at a rung; 1 for items, as the training is then complete."""
        return 1.0 if self.unit == "items" else self.budgets[rung] / self.budgets[-1]

    def rung(self, index: int) -> Rung:
        """The rung of that index, as a trial's process gets it."""
        return Rung(index=index, unit=self.unit, budget=self.budgets[index], last=index == self.last)


def ladder_of(
    pruner: Pruner, algorithm: str, rungs: RungsConfig | None, options: Mapping[str, Value]
) -> Ladder | None:
    """The ladder that `search` defines; None if trials have no rungs."""
    chosen = ALGORITHMS.get(algorithm, "none") if pruner == "none" else pruner
    if chosen == "none":
        return None
    found = rungs or RungsConfig(at=list(SHARES[chosen]))
    given = {name: default for name, (default, _, _) in OPTIONS[chosen].items()}
    return Ladder(
        pruner=chosen,
        unit=found.unit,
        budgets=tuple(found.at),
        options={**given, **{name: float(cast(float, value)) for name, value in options.items()}},
    )


def mistakes(
    pruner: Pruner, algorithm: str, rungs: RungsConfig | None, options: Mapping[str, Value]
) -> Iterator[str]:
    """Errors within `search`, each with `KEY: ` first."""
    if algorithm in LINEAGES and (pruner != "none" or rungs or options):
        key = "pruner" if pruner != "none" else "rungs" if rungs else "pruner_options"
        yield f"{key}: {algorithm} selects trials itself at search.options.generations; remove {key}"
        return
    implied = ALGORITHMS.get(algorithm)
    if implied and pruner not in ("none", implied):
        yield f"pruner: {pruner} contradicts algorithm: {algorithm}, which prunes by {implied}; remove pruner"
        return
    chosen = implied or pruner
    if chosen == "none":
        yield from (
            f"{key}: needs a pruner; add pruner: asha, or remove {key}"
            for key, value in (("rungs", rungs), ("pruner_options", options))
            if value
        )
        return
    yield from (f"rungs: {text}" for text in _wrong_rungs(rungs))
    for name, value in options.items():
        yield from (f"pruner_options: {text}" for text in _wrong_option(chosen, name, value))


def _wrong_rungs(rungs: RungsConfig | None) -> Iterator[str]:
    if rungs is None:
        return
    at = rungs.at
    if any(not 0 < x < float("inf") for x in at) or any(a >= b for a, b in pairwise(at)):
        yield f"{_plain(at)} needs increasing numbers above 0, e.g. [0.11, 0.33, 1]"
    elif rungs.unit == "share" and at[-1] != 1:
        yield f"{_plain(at)} does not end with 1, the whole run; add it, or name a unit: {{unit: steps, at: …}}"
    elif rungs.unit != "share" and any(x != int(x) for x in at):
        yield f"{_plain(at)} needs whole numbers of {rungs.unit}"
    elif len(at) < 2:
        yield f"{_plain(at)} is one rung, so that no trial can be pruned before its end; add a smaller rung"


def _plain(numbers: Sequence[float]) -> str:
    return f"[{', '.join(f'{x:g}' for x in numbers)}]"


def _wrong_option(pruner: Pruner, name: str, value: Value) -> Iterator[str]:
    known = OPTIONS[pruner]
    if name not in known:
        yield f"{name} is not an option of {pruner}; {nearest(name, known)}"
        return
    _, low, high = known[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        yield f"{name}: {value!r} needs a number from {low:g} to {high:g}"


def unfit(ladder: Ladder, *, objectives: int, task: str | None, own: bool) -> Iterator[str]:
    """Conflicts of the pruner or its rungs with the rest of the study, each with `KEY: ` first.

    `task`: the lm-eval task of the first objective. `own`: the objective is a function or a command.
    """
    if objectives > 1 and not ladder.is_halving:
        yield f"pruner: {ladder.pruner} supports one objective, this study has {objectives}; write asha or hyperband"
    if ladder.pruner == "wilcoxon" and task is None:
        yield "pruner: wilcoxon compares trials item by item, so the objective needs an lm-eval task; write median"
    if ladder.unit == "items" and task is None:
        yield "rungs: unit: items needs an lm-eval task as the objective; write shares of the run, or steps"
    if ladder.unit == "rows" and own:
        yield "rungs: unit: rows is for the built-in fine-tuning; write shares of the run, or steps as you count them"
