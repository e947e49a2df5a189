"""FDA, the fractal decomposition algorithm: a tree of nested hyperspheres, searched depth first, then a local search.

A sphere of radius r (the root: the largest within the unit cube) holds 2d smaller ones of radius r / (1 + sqrt 2):
along each axis two that touch its surface. Each is evaluated at three points: its centre, and the centre moved by
inflation * r / sqrt(d) along the diagonal, in both directions. The next sphere is one of the deepest that are left,
with the best score: the largest slope (gain - best) / distance of its points towards the best known one; 0 if it holds
that point. Above the last depth it is decomposed. At the last depth it is exploited by a local search from its best
point: steps of inflation * r along one axis after another, in both directions, moving to the best of the three points;
after a round without improvement the step shrinks, until it is below `precision`. When no sphere is left, the depth
grows by one.
This variant: spheres, their three points and the local search of Nakib et al.; tree search, a slope for scores of any
sign, and clipping to the cube as in Firmin and Talbi's Zellij (Hypersphere, PHS, ILS, depth-first search). Different:
depth 2 and precision 0.01 instead of 5 and 1e-20, which would need thousands of trials.
Spheres do not cover the cube: a small discrete space is completed at random. Categories are moved along their list.
Parallel: the points of all children, and both points of a step, at the same time; while a task waits for a value, the
next sphere is started.
Sources: Nakib, Ouchraa, Shvai, Souquet and Talbi 2017, Deterministic metaheuristic based on fractal decomposition for
large-scale optimization; Firmin and Talbi 2022, A fractal-based decomposition framework for continuous optimization.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.options import float_option, int_option
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.partition.cells import Candidate
from hpotune.search.partition.tree import PartitionTree
from hpotune.search.partition.tree_replay import TreeSampler

MIN_RADIUS = 1e-9
"""Radius below which a sphere is not decomposed: its points are equal up to rounding."""
DISTANCE_EPSILON = 1e-20
"""Added to distances, as in the source: that of the best point itself is 0."""

DIGITS = 12
"""Decimal digits of coordinates: different sums lead to the same point, and round differently."""

Task = Iterator[Candidate | Literal["wait"] | None]
"""Candidates to evaluate; None: too many were rejected; "wait": a value is missing."""


@dataclass(kw_only=True, slots=True, eq=False)
class Sphere:
    """One sphere, and the three points at which it is evaluated."""

    level: int
    centre: np.ndarray
    radius: float
    candidates: list[Candidate]


class FdaTree(PartitionTree):
    """The decomposition and the local searches."""

    def __init__(
        self,
        cube: Cube,
        *,
        depth: int = 2,
        inflation: float = 1.75,
        reduction: float = 0.5,
        precision: float = 0.01,
        is_feasible: Callable[[Params], bool] = lambda params: True,
    ) -> None:
        super().__init__(cube, is_feasible=is_feasible)
        self.depth, self.inflation = depth, inflation
        self.reduction, self.precision = reduction, precision
        self.free: list[Sphere] = []
        """Spheres that were not chosen yet, in the order of their creation."""
        self.used: list[Sphere] = []
        """Spheres that were exploited."""
        self._evaluated_before = 0
        """Number of points when the depth last grew: if that added none, a further depth will not either."""

    def _candidates(self) -> Iterator[Candidate | None]:
        tasks = [self._decompose(self._sphere(0, np.full(len(self.cube), 0.5), 0.5))]
        while tasks:
            for task in list(tasks):
                for found in task:
                    if found == "wait":
                        break
                    yield found
                else:
                    tasks.remove(task)
            sphere = self._next()
            if sphere is not None:
                tasks.append(self._decompose(sphere) if sphere.level < self.depth else self._exploit(sphere))
            elif tasks:
                yield None  # every task waits, and no sphere is left

    def _next(self) -> Sphere | None:
        """The best sphere with known values; else the first one; where none is left, those of the next depth."""
        if not self.free and len(self.evaluations) > self._evaluated_before:
            self._evaluated_before = len(self.evaluations)
            self.free = [sphere for sphere in self.used if sphere.radius > MIN_RADIUS]
            self.used.clear()
            self.depth += 1
        known = [
            sphere
            for sphere in self.free
            if all(self.gain(candidate) is not None for candidate in sphere.candidates)
        ]
        if known:
            top = self._best_point()
            found = max(known, key=lambda sphere: (sphere.level, self._score(sphere, top)))
        elif self.free:
            found = self.free[0]
        else:
            return None
        self.free.remove(found)
        return found

    def _decompose(self, sphere: Sphere) -> Task:
        radius = sphere.radius / (1 + math.sqrt(2))
        children = []
        for axis in range(len(self.cube)):
            for sign in (1.0, -1.0):
                centre = sphere.centre.copy()
                centre[axis] += sign * (sphere.radius - radius)
                children.append(self._sphere(sphere.level + 1, np.clip(centre, 0.0, 1.0), radius))
        self.free += children
        for child in children:
            for candidate in child.candidates:
                yield from self._evaluate(candidate)

    def _exploit(self, sphere: Sphere) -> Task:
        self.used.append(sphere)
        known = [candidate for candidate in sphere.candidates if self.gain(candidate) is not None]
        here = max(known, key=self._known_gain) if known else sphere.candidates[0]
        step = self.inflation * sphere.radius
        while step >= self.precision:
            start = here
            for axis in range(len(self.cube)):
                sides = [self._moved(here, axis, sign * step) for sign in (1.0, -1.0)]
                for candidate in sides:
                    yield from self._evaluate(candidate)
                while any(self.gain(candidate) is None for candidate in (here, *sides)):
                    yield "wait"
                here = max((here, *sides), key=self._known_gain)
            if here is start:
                step *= self.reduction

    def _sphere(self, level: int, centre: np.ndarray, radius: float) -> Sphere:
        offset = self.inflation * radius / math.sqrt(len(self.cube))
        candidates = [self._candidate(centre + sign * offset) for sign in (0.0, 1.0, -1.0)]
        return Sphere(level=level, centre=centre, radius=radius, candidates=candidates)

    def _moved(self, candidate: Candidate, axis: int, step: float) -> Candidate:
        point = candidate.point.copy()
        point[axis] += step
        return self._candidate(point)

    def _candidate(self, point: np.ndarray) -> Candidate:
        point = self.cube.snap(np.round(np.clip(point, 0.0, 1.0), DIGITS)[None])[0]
        params = self.cube.params(point)
        name = " ".join(f"{u:.6g}" for u in point)
        return Candidate(name=name, point=point, params=params, key=tuple(params.values()))

    def _known_gain(self, candidate: Candidate) -> float:
        gain = self.gain(candidate)
        assert gain is not None, "only known candidates are compared"
        return gain

    def _best_point(self) -> tuple[np.ndarray, float] | None:
        """The best known point, shape (d,), and its gain; None before the first."""
        known = [
            (sum(run.gains) / len(run.gains), run.point) for run in self.evaluations.values() if run.gains
        ]
        if not known:
            return None
        gain, point = max(known, key=lambda pair: pair[0])
        return point, gain

    def _score(self, sphere: Sphere, top: tuple[np.ndarray, float] | None) -> float:
        """The largest slope of its points towards the best point; 0 is the best possible."""
        if top is None:
            return 0.0
        point, best = top
        slopes = [
            (self._known_gain(candidate) - best)
            / (float(np.linalg.norm(candidate.point - point)) + DISTANCE_EPSILON)
            for candidate in sphere.candidates
        ]
        return max(slopes)


class FdaSampler(TreeSampler):
    """FDA, rebuilt from the trials of a study for each ask."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        options = self.setup.options
        self.depth = int_option(options, "depth", 2, low=1)
        self.inflation = float_option(options, "inflation", 1.75, low=0.01, high=10.0)
        self.reduction = float_option(options, "reduction", 0.5, low=0.01, high=0.99)
        self.precision = float_option(options, "precision", 0.01, low=MIN_RADIUS, high=1.0)

    def tree(self, cube: Cube, is_feasible: Callable[[Params], bool]) -> PartitionTree:
        """The tree before its first ask."""
        return FdaTree(
            cube, depth=self.depth, inflation=self.inflation, reduction=self.reduction, precision=self.precision,
            is_feasible=is_feasible,
        )  # fmt: skip


ALGORITHM = Algorithm(
    make=FdaSampler,
    when="to reproduce partition-based studies; needs hundreds of trials (6 per parameter for the first decomposition)",
    cost="0.01 s at 50 trials, 0.03 s at 200",
    parallel="6 points per parameter at the same time; no idle workers",
    source="Nakib et al. 2017; Firmin and Talbi 2022",
    options={
        "depth": "decompositions before a sphere is exploited (2)",
        "inflation": "factor on the radius, for the points of a sphere and the first step of its local search (1.75)",
        "reduction": "factor on the step when no direction is better (0.5)",
        "precision": "step, as a share of each range, below which the local search ends (0.01)",
    },
)
