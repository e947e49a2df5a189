"""Bayesian multi-scale optimistic optimisation: SOO that skips cells which a Gaussian process holds for hopeless.

Before a child is evaluated, its upper bound mean + B sd is compared with the best value seen; below it, the child takes
its lower bound mean - B sd as its value, without a trial (a later child at the same point is tested again).
B = sqrt(2 ln(pi^2 N^2 / (6 eta))), N the cells tested so far with the root; a cell that inherits its parent's value is
not counted. The best value changes by evaluations only (a lower bound lies below it). The first test needs two values.
`eta` matters little (at N = 50, B is 4.25 for 0.5 and 4.08 for 1): `beta_scale` multiplies B.
Side by side: points that run are believed at their mean; a leaf that runs is selectable, valued by its lower bound.
The process: fitted (Matern 5/2, surrogate.py) to winsorised scores; with `length`, the paper's assumption that it is
known: mean 0, variance 1, squared exponential of that length in the unit cube, no noise.
Source: Wang, Shakibi, Jin and de Freitas 2014, Bayesian multi-scale optimistic optimization, AISTATS, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.algorithms.soo import CELL_OPTIONS, SooSampler, SooTree
from hpotune.search.base.options import number
from hpotune.search.base.sampler import Setup
from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.gp.gaussian_process import fit
from hpotune.search.partition.cells import Cell, Spot
from hpotune.search.partition.tree import Bounds, Run, Tree

JITTER = 1e-8
"""On the diagonal of the known process: two equal points would make the matrix singular."""
SKIPS = 50
"""Cells skipped in a row before the one of them with the largest upper bound is evaluated: no worker waits."""

FITTED = 100
"""Points that the process is fitted to, spread over the known ones; it is conditioned on all. Three times as many take
twenty times as long."""


class Belief(Protocol):
    """What is believed of the objective."""

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation at points of shape (m, d)."""


Model = Callable[[list[Run], list[Run]], Belief]
"""The belief after known runs and running ones."""


class KnownProcess:
    """Mean 0, variance 1, squared exponential of a given length; running points believed at their mean."""

    def __init__(self, length: float, known: list[Run], pending: list[Run]) -> None:
        self.length = length
        self.points = np.array([run.point for run in [*known, *pending]])
        self.n = len(known)
        cover = self._cover(self.points) + JITTER * np.eye(len(self.points))
        self.factor = np.linalg.cholesky(cover)
        gains = np.array([np.mean(run.gains) for run in known])
        self.weights = np.linalg.solve(cover[: self.n, : self.n], gains)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation. Shapes (m,)."""
        cross = self._cover(points)
        half = np.linalg.solve(self.factor, cross)
        variance = 1.0 - (half * half).sum(0)
        return cross[: self.n].T @ self.weights, np.sqrt(np.maximum(variance, 0.0))

    def _cover(self, points: np.ndarray) -> np.ndarray:
        far = np.square(self.points[:, None] - points[None]).sum(-1)
        return np.asarray(np.exp(-far / 2 / self.length**2))


def fitted(unordered: np.ndarray) -> Model:
    """The process fitted to what is known, in the scores' own units."""

    def model(known: list[Run], pending: list[Run]) -> Belief:
        return _Scaled(known, pending, unordered)

    return model


class _Scaled:
    """A fitted surrogate, its predictions turned back into gains."""

    def __init__(self, known: list[Run], pending: list[Run], unordered: np.ndarray) -> None:
        gains = np.array([np.mean(run.gains) for run in known])
        low, middle, high = np.quantile(gains, (0.25, 0.5, 0.75))
        clipped = np.maximum(gains, middle - 3 * max(high - middle, middle - low))  # one collapse is no slope
        self.mean, self.scale = float(clipped.mean()), float(clipped.std()) or 1.0
        points, scores = np.array([run.point for run in known]), (clipped - self.mean) / self.scale
        some = np.unique(np.linspace(0, len(known) - 1, min(len(known), FITTED)).astype(int))
        process = fit(points[some], scores[some], np.ones(len(some)), unordered)
        process = replace(process, points=points, scores=scores, weights=np.ones(len(known)))
        believed = np.array([run.point for run in pending]).reshape(len(pending), len(unordered))
        self.process = process.believing(believed)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = self.process.predict(points)
        return self.mean + self.scale * mean, self.scale * sd


class BamsooTree(SooTree):
    """SOO with the test. `model`: what is believed; `eta`, `beta_scale`: how wide the bounds are."""

    def __init__(
        self,
        cube: Cube,
        *,
        model: Model,
        eta: float = 0.5,
        beta_scale: float = 1.0,
        k: int = 3,
        h_max: int | None = None,
        fits: Callable[[Params], bool] = lambda params: True,
    ) -> None:
        super().__init__(cube, k=k, h_max=h_max, fits=fits)
        self.model, self.eta, self.beta_scale = model, eta, beta_scale
        self.bounds: dict[str, float] = {}
        """Lower bounds of cells that were tested, by name."""
        self.tested = 0
        self.skipped: list[tuple[float, Cell]] = []
        """Upper bounds and cells."""
        self._row = 0
        self._belief: tuple[tuple[int, int], Belief] | None = None

    def value(self, cell: Cell) -> float | None:
        """The gain; before it is known, the lower bound."""
        gain = self.gain(cell)
        return self.bounds.get(cell.name) if gain is None else gain

    def settle(self, cell: Cell) -> Iterator[Spot | None]:
        """The cell where it must be evaluated: where its values are new and its upper bound is good enough."""
        if cell.key in self.runs or not self.fits(cell.params):
            yield from self._open(cell)
            return
        self.tested += 1
        low, high = self._bounds(cell)
        if math.isfinite(low):
            self.bounds[cell.name] = low
        if high >= self.best:
            self._row = 0
            yield from self._open(cell)
        else:
            yield from self._skip(cell, high)

    def rest(self) -> Iterator[Spot | None]:
        """Cells that were skipped, of a space with few points: those with the largest upper bounds first."""
        for _, cell in sorted(self.skipped, key=lambda pair: -pair[0]):
            yield from self._open(cell)

    def _skip(self, cell: Cell, high: float) -> Iterator[Spot | None]:
        self.skipped.append((high, cell))
        self._row += 1
        if self._row >= SKIPS:
            best = max(self.skipped[-self._row :], key=lambda pair: pair[0])[1]
            self._row = 0
            yield from self._open(best)

    def _bounds(self, cell: Cell) -> Bounds:
        """Infinite where too little is known."""
        if self._kept is not None:
            return self._kept.get(cell.name, (-math.inf, math.inf))
        known = [run for run in self.runs.values() if run.gains]
        if len(known) < 2:
            return -math.inf, math.inf
        pending = [run for run in self.runs.values() if not run.known]
        size = (sum(len(run.gains) for run in known), len(pending))
        if self._belief is None or self._belief[0] != size:
            self._belief = size, self.model(known, pending)
        mean, sd = self._belief[1].predict(cell.point[None])
        wide = self.beta_scale * width(self.tested, self.eta) * float(sd[0])
        found = float(mean[0]) - wide, float(mean[0]) + wide
        self.tests.append((cell.name, *found))
        return found


def width(tested: int, eta: float) -> float:
    """B of the bounds after that many tests."""
    return math.sqrt(2 * math.log(math.pi**2 * tested**2 / (6 * eta)))


class BamsooSampler(SooSampler):
    """Bayesian multi-scale optimistic optimisation, continued from a study's trials."""

    def __init__(self, setup: Setup | None = None) -> None:
        super().__init__(setup)
        options = self.setup.options
        self.eta = number(options, "eta", 0.5, low=1e-9, high=1.0)
        self.beta_scale = number(options, "beta_scale", 1.0, low=0.0, high=math.inf)
        length = options.get("length")
        self.length = None if length is None else number(options, "length", 0.0, low=1e-3, high=1e3)

    def tree(self, cube: Cube, fits: Callable[[Params], bool]) -> Tree:
        """The search before its first ask."""
        return BamsooTree(
            cube, model=self._model(cube), eta=self.eta, beta_scale=self.beta_scale, k=self.k, h_max=self.h_max,
            fits=fits,
        )  # fmt: skip

    def _model(self, cube: Cube) -> Model:
        length = self.length
        if length is None:
            return fitted(cube.unordered)
        return lambda known, pending: KnownProcess(length, known, pending)


ALGORITHM = Algorithm(
    make=BamsooSampler,
    when="as soo where the score is smooth: cells that a model holds for hopeless are skipped; never as a default",
    cost="0.02 s at 50 trials, 0.1 s at 200",
    parallel="children of all selected cells side by side; those that run are valued by their lower bound",
    source="Wang et al. 2014",
    options={
        **CELL_OPTIONS,
        "eta": "how improbable a wrong bound is meant to be, above 0 to 1; larger narrows the bounds a little (0.5)",
        "beta_scale": "factor on the width of the bounds; below 1 skips more (1)",
        "length": "a known process instead of a fitted one: its length in the unit cube (fitted)",
    },
)
