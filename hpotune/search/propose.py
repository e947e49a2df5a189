"""Proposing a point: which point a trial gets. Nothing is written here, and nothing waits (that is assign.py).

A sampler proposes. A proposal that violates a constraint, or repeats the point of another trial, is drawn again with
other random numbers. Where that does not help, any new feasible point is taken, so that no GPU-hour repeats a known
result. A point maps names of active ranges to values as Optuna stores them (`Params`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from optuna import Study
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.space import expressions
from hpotune.config.space.ranges import Range, Space, active, needs
from hpotune.config.yaml_source import Value
from hpotune.search.base.storage_view import FinishedTrials, trials_from
from hpotune.search.base.unit_cube import Axis, Params, decode, distribution

MAX_PROPOSALS = 10
"""Proposals of the sampler before any new point is taken: a model that repeats known points has converged."""
RANDOM_POINTS = 2_000
"""Random points tried after that."""
RANDOM_POINTS_CONSTRAINED = 100_000
"""The same where every proposal violated a constraint: `check` warns below 1 % feasible points, and refuses 0."""
MOST_COMPUTED = 2_000_000
"""Values of ranges and constraints that `feasible_share` computes: seconds. Small spaces get all the points above."""
MAX_ENUMERATED = 20_000
"""Points of a finite space that are enumerated where no random point is new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A point for a trial."""

    params: Params
    is_new: bool
    """Whether no other trial may have it. False: it was fixed beforehand, or every other point is taken."""


def propose_point(
    space: Space,
    study: Study,
    trial: FrozenTrial,
    *,
    make_sampler: Callable[[int], BaseSampler],
    fixed: Mapping[str, Value],
    excluded: Sequence[Params] = (),
    finished: FinishedTrials,
) -> Proposal:
    """A feasible point for a trial, new where there is one. Writes nothing itself; a sampler may keep its own state.

    `study`: as samplers see it (SearchView). `make_sampler`: the sampler, by the number of the attempt. `fixed`: values
    that are given, as Optuna stores them; a point that they determine completely may repeat another trial's.
    `excluded`: further points that are not new. `finished`: the leading finished trials of the study.
    Raises: ValueError where no point satisfies the constraints.
    """
    trials = study.get_trials(deepcopy=False)

    def points_of(among: Sequence[FrozenTrial]) -> list[Params]:
        return [other.params for other in among if _has_point(other) and other.number != trial.number]

    unfinished = points_of(trials_from(trials, finished.searched_count))

    def is_new(point: Params) -> bool:
        return point not in excluded and not finished.has_point(point) and point not in unfinished

    given = _fixed_point(space, fixed)
    if given is not None:
        return Proposal(params=given, is_new=False)
    feasible: list[Params] = []
    for attempt in range(MAX_PROPOSALS):
        try:
            point = _sampled_point(space, study, trial, sampler=make_sampler(attempt), fixed=fixed)
        except np.linalg.LinAlgError:  # a model that cannot be fitted proposes nothing
            continue
        if is_feasible(space, point):
            if is_new(point):
                return Proposal(params=point, is_new=True)
            feasible.append(point)
    taken = {_point_key(point) for point in [*excluded, *points_of(trials)]}
    rng = random.Random(f"{study.study_name}:{trial.number}")
    tries = RANDOM_POINTS_CONSTRAINED if space.constraints and not feasible else RANDOM_POINTS
    random_points = (
        _assembled_point(space, fixed, lambda axis: axis.value(rng.random())) for _ in range(tries)
    )
    enumerated = islice(_enumerated_points(space, fixed), MAX_ENUMERATED) if _is_finite(space) else iter(())
    for source in (random_points, enumerated) if len(taken) < MAX_ENUMERATED else (random_points,):
        for point in source:
            if is_feasible(space, point):
                if _point_key(point) not in taken:
                    return Proposal(params=point, is_new=True)
                feasible.append(point)
    if not feasible:
        raise ValueError("no point of the space satisfies the constraints; widen a range or a constraint")
    return Proposal(params=feasible[0], is_new=False)


def is_feasible(space: Space, point: Params) -> bool:
    """Whether a point satisfies the constraints that can be computed before it runs."""
    return not space.constraints or not space.violated(decode(space, point))


def feasible_share(space: Space) -> tuple[float, set[int]]:
    """The share of random points that satisfy the constraints, and the indices of constraints that none satisfies.

    The share is estimated from RANDOM_POINTS to RANDOM_POINTS_CONSTRAINED points; where none of them is feasible, a
    finite space is enumerated, and one feasible point counts as 1 / MAX_ENUMERATED. Where MOST_COMPUTED leaves out
    points that the search itself would try, the share is 1 / RANDOM_POINTS_CONSTRAINED, for it may find one among them.
    The indices are empty unless the share is 0.
    """
    space = _read_by_constraints(space)
    rng = random.Random(0)
    kept, never = 0, set(range(len(space.constraints)))

    def satisfies(point: Params) -> bool:
        violated = space.violated(decode(space, point))
        never.intersection_update(violated)
        return not violated

    affordable = max(RANDOM_POINTS, MOST_COMPUTED // (len(space.ranges) + len(space.constraints)))
    for tried in range(1, min(RANDOM_POINTS_CONSTRAINED, affordable) + 1):
        kept += satisfies(_assembled_point(space, {}, lambda axis: axis.value(rng.random())))
        if kept and tried >= RANDOM_POINTS:
            return kept / tried, set()
    points = _enumerated_points(space, {}) if _is_finite(space) else iter(())
    if any(map(satisfies, islice(points, min(MAX_ENUMERATED, affordable)))):
        return 1 / MAX_ENUMERATED, set()
    if affordable < RANDOM_POINTS_CONSTRAINED and not (_is_finite(space) and next(points, None) is None):
        return 1 / RANDOM_POINTS_CONSTRAINED, set()
    return 0.0, never


def _read_by_constraints(space: Space) -> Space:
    """The space with the ranges alone that its constraints read, directly or through others."""
    read = {name for text in space.constraints for name in expressions.names_in(text)}
    kept = list[Range]()
    for r in reversed(space.ranges):  # each comes after those that it reads
        if r.name in read:
            kept.append(r)
            read |= needs(r)
    return replace(space, ranges=tuple(reversed(kept)))


def _fixed_point(space: Space, fixed: Mapping[str, Value]) -> Params | None:
    """The point that `fixed` determines completely; None where a value is missing."""
    missing: list[str] = []

    def value(axis: Axis) -> Value:
        missing.append(axis.name)
        found: Value = axis.value(0.5)
        return found

    point = _assembled_point(space, fixed, value) if fixed else {}
    return point if fixed and not missing else None


def _sampled_point(
    space: Space,
    study: Study,
    trial: FrozenTrial,
    *,
    sampler: BaseSampler,
    fixed: Mapping[str, Value],
) -> Params:
    """The point that a sampler proposes, asked in the order in which Optuna's own `Trial` asks."""
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

    return _assembled_point(space, fixed, value)


def _assembled_point(space: Space, fixed: Mapping[str, Value], value: Callable[[Axis], Value]) -> Params:
    """Values of the active ranges in their order: from `fixed`, the only value of a range, or from `value`.

    An expression that cannot be evaluated activates no condition here; the trial's resolved point reports the error.
    """
    seen, drawn = dict(space.fixed), Params()
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
        value_drawn = drawn[r.name]
        seen[r.name] = r.options[r.labels.index(value_drawn)] if r.kind == "choice" else value_drawn
    return drawn


def _is_finite(space: Space) -> bool:
    return all(Axis(name=r.name, distribution=distribution(r)).size is not None for r in space.searched)


def _enumerated_points(space: Space, fixed: Mapping[str, Value]) -> Iterator[Params]:
    """Every point of a finite space once.

    Counts like an odometer: `digits` are the indices of the values chosen so far. Which ranges are active, and so how
    many digits there are, depends on the earlier digits; hence each point is assembled anew.
    """
    digits: list[int] = []

    def value(axis: Axis) -> Value:
        size = axis.size or 1
        index = digits[len(sizes)] if len(sizes) < len(digits) else 0
        sizes.append(size)
        found: Value = axis.nth(index)
        return found

    while True:
        sizes: list[int] = []
        yield _assembled_point(space, fixed, value)
        digits = (digits + [0] * len(sizes))[: len(sizes)]
        while digits and digits[-1] + 1 >= sizes[len(digits) - 1]:
            digits.pop()
        if not digits:
            return
        digits[-1] += 1


def _has_point(trial: FrozenTrial) -> bool:
    return bool(trial.params) and trial.state != TrialState.WAITING


def _point_key(params: Mapping[str, Value]) -> frozenset[tuple[str, Value]]:
    return frozenset(params.items())
