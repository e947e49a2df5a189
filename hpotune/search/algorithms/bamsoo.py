"""BaMSOO, Bayesian multi-scale optimistic optimization: SOO that skips cells by the bounds of a Gaussian process.

Before a child is evaluated, its upper bound mean + B sd is compared with the best value seen. Below it, the child gets
its lower bound mean - B sd as value, without a trial (a later child with the same point is tested again).
B = sqrt(2 ln(pi^2 N^2 / (6 eta))), N the number of cells tested so far, with the root; a cell that has its parent's
value is not counted. Only evaluations change the best value (lower bounds are below it). The first test needs two
values. `eta` matters little (at N = 50, B is 4.25 for 0.5 and 4.08 for 1); `beta_scale` multiplies B.
Parallel: pending points are taken to score the posterior mean; a leaf whose trial runs can be expanded, with its lower
bound as value.
The process is fitted (Matern 5/2, gp/gaussian_process.py) to scores whose lower tail is clipped; with `length`, it is
known, as the paper assumes: mean 0, variance 1, squared exponential kernel of that length in the unit cube, no noise.
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
from hpotune.search.base.options import float_option
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Cube, Params
from hpotune.search.gp.gaussian_process import fit
from hpotune.search.partition.cells import Candidate, Cell
from hpotune.search.partition.tree import Bounds, Evaluation, PartitionTree

JITTER = 1e-8
"""Added to the diagonal of the known process: its matrix is singular where two points are equal."""
MAX_SKIPS_IN_A_ROW = 50
"""Cells skipped in a row before the one with the largest upper bound is evaluated, so that no worker waits."""

MAX_FITTED_POINTS = 100
"""Points that hyperparameters are fitted to, spread over the known ones; the process is conditioned on all.

Three times as many take twenty times as long."""


class Posterior(Protocol):
    """A posterior of the objective."""

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation. Shapes: (m, d) -> (m,), (m,)."""


PosteriorModel = Callable[[list[Evaluation], list[Evaluation]], Posterior]
"""Makes the posterior given evaluated and pending points."""


class FixedLengthProcess:
    """Mean 0, variance 1, squared exponential kernel of a given length, no noise."""

    def __init__(self, length: float, known: list[Evaluation], pending: list[Evaluation]) -> None:
        self.length = length
        self.points = np.array([one.point for one in [*known, *pending]])
        self.n = len(known)
        covariance = self._covariance(self.points) + JITTER * np.eye(len(self.points))
        self.factor = np.linalg.cholesky(covariance)
        gains = np.array([np.mean(one.gains) for one in known])
        self.weights = np.linalg.solve(covariance[: self.n, : self.n], gains)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard deviation. Shapes: (m, d) -> (m,), (m,)."""
        cross = self._covariance(points)
        half = np.linalg.solve(self.factor, cross)
        variance = 1.0 - (half * half).sum(0)
        return cross[: self.n].T @ self.weights, np.sqrt(np.maximum(variance, 0.0))

    def _covariance(self, points: np.ndarray) -> np.ndarray:
        far = np.square(self.points[:, None] - points[None]).sum(-1)
        return np.asarray(np.exp(-far / 2 / self.length**2))


def fitted_process(unordered: np.ndarray) -> PosteriorModel:
    """The fitted process, in units of the gains. `unordered`: which axes are categories, shape (d,)."""

    def model(known: list[Evaluation], pending: list[Evaluation]) -> Posterior:
        return _FittedProcess(known, pending, unordered)

    return model


class _FittedProcess:
    """A Gaussian process fitted to standardized gains; its predictions in units of the gains."""

    def __init__(self, known: list[Evaluation], pending: list[Evaluation], unordered: np.ndarray) -> None:
        gains = np.array([np.mean(one.gains) for one in known])
        low, middle, high = np.quantile(gains, (0.25, 0.5, 0.75))
        clipped = np.maximum(
            gains, middle - 3 * max(high - middle, middle - low)
        )  # a collapsed run says nothing about the slope
        self.mean, self.scale = float(clipped.mean()), float(clipped.std()) or 1.0
        points, scores = np.array([one.point for one in known]), (clipped - self.mean) / self.scale
        subset = np.unique(np.linspace(0, len(known) - 1, min(len(known), MAX_FITTED_POINTS)).astype(int))
        process = fit(points[subset], scores[subset], np.ones(len(subset)), unordered)
        process = replace(process, points=points, scores=scores, noise_ratios=np.ones(len(known)))
        pending_points = np.array([one.point for one in pending]).reshape(len(pending), len(unordered))
        self.process = process.with_pending(pending_points)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, sd = self.process.predict(points)
        return self.mean + self.scale * mean, self.scale * sd


class BamsooTree(SooTree):
    """SOO with tests by a model. `eta`, `beta_scale`: the width of the bounds."""

    def __init__(
        self,
        cube: Cube,
        *,
        model: PosteriorModel,
        eta: float = 0.5,
        beta_scale: float = 1.0,
        k: int = 3,
        h_max: int | None = None,
        is_feasible: Callable[[Params], bool] = lambda params: True,
    ) -> None:
        super().__init__(cube, k=k, h_max=h_max, is_feasible=is_feasible)
        self.model, self.eta, self.beta_scale = model, eta, beta_scale
        self.bounds: dict[str, float] = {}
        """Lower bounds of tested cells, by name."""
        self.tested = 0
        self.skipped_cells: list[tuple[float, Cell]] = []
        """Upper bound and cell, in the order of the tests."""
        self._skipped_in_a_row = 0
        self._posterior: tuple[tuple[int, int], Posterior] | None = None

    def leaf_value(self, cell: Cell) -> float | None:
        """The gain of a cell; its lower bound while there is none."""
        gain = self.gain(cell)
        return self.bounds.get(cell.name) if gain is None else gain

    def evaluate_child(self, cell: Cell) -> Iterator[Candidate | None]:
        """The new child, if its point is new and its upper bound is not below the best value."""
        if cell.key in self.evaluations or not self.is_feasible(cell.params):
            yield from self._evaluate(cell)
            return
        self.tested += 1
        low, high = self._bounds(cell)
        if math.isfinite(low):
            self.bounds[cell.name] = low
        if high >= self.best:
            self._skipped_in_a_row = 0
            yield from self._evaluate(cell)
        else:
            yield from self._skip(cell, high)

    def remaining(self) -> Iterator[Candidate | None]:
        """Skipped cells, those with the largest upper bounds first (small finite spaces)."""
        for _, cell in sorted(self.skipped_cells, key=lambda pair: -pair[0]):
            yield from self._evaluate(cell)

    def _skip(self, cell: Cell, high: float) -> Iterator[Candidate | None]:
        self.skipped_cells.append((high, cell))
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPS_IN_A_ROW:
            best = max(self.skipped_cells[-self._skipped_in_a_row :], key=lambda pair: pair[0])[1]
            self._skipped_in_a_row = 0
            yield from self._evaluate(best)

    def _bounds(self, cell: Cell) -> Bounds:
        """Lower and upper bound of the gain; infinite while fewer than two values are known."""
        if self._stored_bounds is not None:
            return self._stored_bounds.get(cell.name, (-math.inf, math.inf))
        known = [one for one in self.evaluations.values() if one.gains]
        if len(known) < 2:
            return -math.inf, math.inf
        pending = [one for one in self.evaluations.values() if not one.known]
        size = (sum(len(one.gains) for one in known), len(pending))
        if self._posterior is None or self._posterior[0] != size:
            self._posterior = size, self.model(known, pending)
        mean, sd = self._posterior[1].predict(cell.point[None])
        half_width = self.beta_scale * confidence_width(self.tested, self.eta) * float(sd[0])
        found = float(mean[0]) - half_width, float(mean[0]) + half_width
        self.computed_bounds.append((cell.name, *found))
        return found


def confidence_width(tested: int, eta: float) -> float:
    """B, the half-width of the bounds in standard deviations, after that many tests."""
    return math.sqrt(2 * math.log(math.pi**2 * tested**2 / (6 * eta)))


class BamsooSampler(SooSampler):
    """BaMSOO, rebuilt from the trials of a study for each ask."""

    def __init__(self, setup: SamplerSetup | None = None) -> None:
        super().__init__(setup)
        options = self.setup.options
        self.eta = float_option(options, "eta", 0.5, low=1e-9, high=1.0)
        self.beta_scale = float_option(options, "beta_scale", 1.0, low=0.0, high=math.inf)
        length = options.get("length")
        self.length = None if length is None else float_option(options, "length", 0.0, low=1e-3, high=1e3)

    def tree(self, cube: Cube, is_feasible: Callable[[Params], bool]) -> PartitionTree:
        """The tree before its first ask."""
        return BamsooTree(
            cube, model=self._model(cube), eta=self.eta, beta_scale=self.beta_scale, k=self.k, h_max=self.h_max,
            is_feasible=is_feasible,
        )  # fmt: skip

    def _model(self, cube: Cube) -> PosteriorModel:
        length = self.length
        if length is None:
            return fitted_process(cube.unordered)
        return lambda known, pending: FixedLengthProcess(length, known, pending)


ALGORITHM = Algorithm(
    make=BamsooSampler,
    when="as soo, for smooth scores: cells whose upper bound is below the best value are skipped; never as a default",
    cost="0.02 s at 50 trials, 0.1 s at 200",
    parallel="children of all expanded cells at the same time; running ones count with their lower bound",
    source="Wang et al. 2014",
    options={
        **CELL_OPTIONS,
        "eta": "probability of a wrong bound, above 0 to 1; larger values narrow the bounds a little (0.5)",
        "beta_scale": "factor on the width of the bounds; below 1 skips more cells (1)",
        "length": "lengthscale, in the unit cube, of a known process instead of a fitted one (fitted)",
    },
)
