"""One trial's point, drawn without writing: where a condition holds, within what is known beforehand, and new.

A sampler proposes; a proposal that breaks a constraint, or repeats a point that was tried or runs, is drawn again with
other random numbers. Where that does not help, any free point is taken, so that no GPU-hour buys a known result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import numpy as np
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.space import expressions
from hpotune.config.space.constraints import broken, fixed_values
from hpotune.config.space.ranges import Range, Space, active
from hpotune.config.space.start_from import option
from hpotune.config.yaml_source import Value
from hpotune.search.base.storage_view import Ended, behind
from hpotune.search.base.unit_cube import Axis, Params

AGAIN = 10
"""Proposals of the algorithm before any free point is taken: a model that proposes known points has converged."""
Drawn = tuple[Params, bool]
"""A point, and whether it is new: neither settled beforehand nor, where nothing else is left, a repeated one."""
ANY = 2_000
"""Random points tried after that."""
RARE = 100_000
"""The same where constraints leave little of the space: `check` warns below 1 %, and refuses if none of these fits."""
COUNTED = 20_000
"""Points of a finite space that are looked through for a free one, when random ones find none."""


def draw(
    space: Space,
    study: Study,
    trial: FrozenTrial,
    *,
    template: Mapping[str, Value],
    make: Callable[[int], BaseSampler],
    fixed: Mapping[str, Value],
    announced: Sequence[Params] = (),
    ended: Ended,
) -> Drawn:
    """Values as Optuna stores them, by name, of every active range; and whether nobody has them. Writes nothing.

    `make`: the sampler, by the number of the attempt. `fixed`: values that are settled, as Optuna stores them.
    `announced`: points that others are about to take. `ended`: what is known of the trials that lead.
    Raises: ValueError where no point keeps the constraints.
    """
    known = fixed_values(template, space)
    trials = study.get_trials(deepcopy=False)

    def points(among: Sequence[FrozenTrial]) -> list[Params]:
        return [other.params for other in among if _counts(other) and other.number != trial.number]

    late = points(behind(trials, ended.count))

    def new(point: Params) -> bool:
        return point not in announced and not ended.has(point) and point not in late

    settled = _settled(space, known, fixed)
    if settled is not None:
        return settled, False
    allowed: list[Params] = []
    for attempt in range(AGAIN):
        try:
            point = _proposed(space, study, trial, known, sampler=make(attempt), fixed=fixed)
        except np.linalg.LinAlgError:  # a model that cannot be computed proposes nothing
            continue
        if fits(space, point, known):
            if new(point):
                return point, True
            allowed.append(point)
    taken = {_key(point) for point in [*announced, *points(trials)]}
    rng = random.Random(f"{study.study_name}:{trial.number}")
    tries = RARE if space.constraints and not allowed else ANY
    any_ = (_walk(space, known, fixed, lambda axis: axis.value(rng.random())) for _ in range(tries))
    every = islice(_every(space, known, fixed), COUNTED) if _finite(space) else iter(())
    for source in (any_, every) if len(taken) < COUNTED else (any_,):
        for point in source:
            if fits(space, point, known):
                if _key(point) not in taken:
                    return point, True
                allowed.append(point)
    if not allowed:
        raise ValueError(
            "no point of the space was found that keeps the constraints; widen a range or a constraint"
        )
    return allowed[0], False


def _settled(space: Space, known: Mapping[str, Value], fixed: Mapping[str, Value]) -> Params | None:
    """The point, where `fixed` holds every value of it: a start, or one that is tried again."""
    left: list[str] = []

    def value(axis: Axis) -> Value:
        left.append(axis.name)
        found: Value = axis.value(0.5)
        return found

    point = _walk(space, known, fixed, value) if fixed else {}
    return point if fixed and not left else None


def fits(space: Space, point: Params, known: Mapping[str, Value]) -> bool:
    """Whether a point, as Optuna stores it, keeps the constraints that are known before it runs."""
    return not space.constraints or not broken(space, decode(space, point), known)


def share_kept(space: Space, template: Mapping[str, Value]) -> tuple[float, set[int]]:
    """The share of points that keeps the constraints known before: of random ones, until enough of them were seen to.

    Of a finite space at least one point's. Nought: a draw would find none either; then also the places of constraints
    that no point keeps, whatever the others say.
    """
    known, rng = fixed_values(template, space), random.Random(0)
    kept, never = 0, set(range(len(space.constraints)))

    def keeps(point: Params) -> bool:
        breaks = broken(space, decode(space, point), known)
        never.intersection_update(breaks)
        return not breaks

    for tried in range(1, RARE + 1):
        kept += keeps(_walk(space, known, {}, lambda axis: axis.value(rng.random())))
        if kept and tried >= ANY:
            return kept / tried, set()
    every = islice(_every(space, known, {}), COUNTED) if _finite(space) else iter(())
    return (1 / COUNTED, set()) if any(map(keeps, every)) else (0.0, never)


def distribution(r: Range) -> BaseDistribution:
    """The range as Optuna knows it."""
    if r.kind == "choice":
        return CategoricalDistribution(r.labels)
    if r.kind == "int":
        return IntDistribution(int(r.low), int(r.high), step=int(r.step or 1), log=r.log)
    return FloatDistribution(r.low, r.high, step=r.step, log=r.log)


def stored(r: Range, value: Value) -> bool | int | float | str | None:
    """A value that the range holds, as Optuna stores it."""
    if r.kind == "choice":
        index = option(r, value)
        assert index is not None, "the value is one of the choices"
        return r.labels[index]
    assert isinstance(value, (int, float)), "a value of an interval is a number"
    return int(value) if r.kind == "int" else float(value)


def decode(space: Space, params: Mapping[str, Value]) -> dict[str, Value]:
    """Optuna's stored parameters as the study file's values (lists come back from their JSON text)."""
    ranges = {r.name: r for r in space.searched if r.kind == "choice"}
    return {
        name: ranges[name].options[ranges[name].labels.index(value)] if name in ranges else value
        for name, value in params.items()
    }


def _proposed(
    space: Space,
    study: Study,
    trial: FrozenTrial,
    known: Mapping[str, Value],
    *,
    sampler: BaseSampler,
    fixed: Mapping[str, Value],
) -> Params:
    """What a sampler says, as Optuna's `Trial` would ask it."""
    sampler.before_trial(study, trial)
    together = sampler.infer_relative_search_space(study, trial)
    relative = sampler.sample_relative(study, trial, together)

    def value(axis: Axis) -> Value:
        d = axis.distribution
        if axis.name in relative and d._contains(d.to_internal_repr(relative[axis.name])):
            found: Value = relative[axis.name]
            return found
        found = sampler.sample_independent(study, trial, axis.name, d)
        return found

    return _walk(space, known, fixed, value)


def _walk(
    space: Space, known: Mapping[str, Value], fixed: Mapping[str, Value], value: Callable[[Axis], Value]
) -> Params:
    """Values of the active ranges in their order, each from `fixed`, its only value, or `value`.

    An expression that cannot be computed here holds no condition; the trial's point tells it as a mistake.
    """
    seen, drawn = dict(known), Params()
    for r in space.ranges:
        if not active(r, seen):
            continue
        if r.kind == "expr":
            with suppress(ValueError):
                seen[r.name] = expressions.evaluate(r.text, seen)
            continue
        axis = Axis(name=r.name, distribution=distribution(r))
        drawn[r.name] = (
            fixed[r.name] if r.name in fixed else axis.value(0.5) if axis.size == 1 else value(axis)
        )
        seen[r.name] = decode(space, {r.name: drawn[r.name]})[r.name]
    return drawn


def _finite(space: Space) -> bool:
    return all(Axis(name=r.name, distribution=distribution(r)).size is not None for r in space.searched)


def _every(space: Space, known: Mapping[str, Value], fixed: Mapping[str, Value]) -> Iterator[Params]:
    """Every point of a finite space, once: an odometer over the choices that `_walk` meets."""
    turns: list[int] = []

    def value(axis: Axis) -> Value:
        size = axis.size or 1
        index = turns[len(sizes)] if len(sizes) < len(turns) else 0
        sizes.append(size)
        found: Value = axis.nth(index)
        return found

    while True:
        sizes: list[int] = []
        yield _walk(space, known, fixed, value)
        turns = (turns + [0] * len(sizes))[: len(sizes)]
        while turns and turns[-1] + 1 >= sizes[len(turns) - 1]:
            turns.pop()
        if not turns:
            return
        turns[-1] += 1


def _counts(trial: FrozenTrial) -> bool:
    return bool(trial.params) and trial.state != TrialState.WAITING


def _key(params: Mapping[str, Value]) -> frozenset[tuple[str, Value]]:
    return frozenset(params.items())
