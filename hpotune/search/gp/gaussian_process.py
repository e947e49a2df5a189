"""A Gaussian process over the unit cube: Matern 5/2, one length a dimension, in numpy and scipy.

Source: Rasmussen and Williams 2006, algorithm 2.1 and equation 5.9; the lengths' prior: Hvarfner et al. 2024, ICML,
arXiv 2402.02229 (it grows with the dimension, so that no dimension is thought to matter before the data say so).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

LENGTH = (math.sqrt(2), math.sqrt(3))
"""Mean (log(d) / 2 is added) and sd of the logarithm of a length (Hvarfner et al. 2024, section 4)."""
AMPLITUDE = (0.0, 1.0)
"""The same of the function's variance: about that of the scores, which is 1."""
NOISE = (-4.0, 1.0)
"""The same of the noise's variance: 2 % of the scores' (Hvarfner et al. 2024 and BoTorch)."""
LENGTHS = (-4.0, 6.0)
"""Ends of the logarithm of a length: at 0.02 no point sees another, at 400 the function is a constant."""
LEAST_NOISE = 1e-6
"""Below it, points close to each other make the matrix singular."""
STARTS = (-0.7, 0.7)
"""Logarithms of all lengths from which the fit sets out: half the cube and twice, since there can be two maxima."""
ONE_START = 100
"""Points from which one start is enough: the data outweigh the prior."""
FITTED = 250
"""Most points whose density is computed to find hyperparameters: it costs their number cubed; 250 take 0.1 s."""


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A process given points. Scores are centred and scaled by who fits it."""

    points: np.ndarray
    """Shape (n, d)."""
    scores: np.ndarray
    """Shape (n,)."""
    weights: np.ndarray
    """Noise variances of the scores as multiples of the common one. Shape (n,)."""
    unordered: np.ndarray
    """Which dimensions hold categories without an order. Shape (d,)."""
    theta: np.ndarray
    """Logarithms: d lengths, the function's variance, the noise's variance. Shape (d + 2,)."""
    believed: np.ndarray
    """Points that run, believed at their mean. Shape (p, d)."""

    @property
    def noise(self) -> float:
        """Standard deviation of an ordinary score."""
        return math.exp(0.5 * self.theta[-1])

    @cached_property
    def _factor(self) -> np.ndarray:
        """Lower Cholesky factor over points and believed ones. Shape (n + p, n + p)."""
        from scipy.linalg import cholesky  # type: ignore[import-untyped]

        every = np.vstack([self.points, self.believed])
        cover = self.covariance(every, every)
        cover[np.diag_indices(len(every))] += self.noise**2 * np.append(
            self.weights, np.ones(len(self.believed))
        )
        found: np.ndarray = cholesky(cover, lower=True)
        return found

    @cached_property
    def _solved(self) -> np.ndarray:
        from scipy.linalg import cho_solve

        n = len(self.points)
        found: np.ndarray = cho_solve((self._factor[:n, :n], True), self.scores)
        return found

    def covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of the function between points of shapes (n, d) and (m, d). Shape (n, m)."""
        return math.exp(self.theta[-2]) * matern(squares(a, b, np.exp(self.theta[:-2]), self.unordered))

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the function at points of shape (m, d), noise not counted. Shapes (m,).

        A point believed at its mean leaves the mean as it is everywhere; it narrows the deviation.
        """
        from scipy.linalg import solve_triangular

        cross = self.covariance(np.vstack([self.points, self.believed]), points)
        mean = cross[: len(self.points)].T @ self._solved
        half = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        variance = math.exp(self.theta[-2]) - np.einsum("ij,ij->j", half, half)
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def sample(self, points: np.ndarray, *, count: int, rng: np.random.Generator) -> np.ndarray:
        """Joint draws of the function at points of shape (m, d). Shape (count, m)."""
        from scipy.linalg import solve_triangular

        mean, _ = self.predict(points)
        cross = self.covariance(np.vstack([self.points, self.believed]), points)
        half = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        # singular up to rounding, where Cholesky fails
        values, vectors = np.linalg.eigh(self.covariance(points, points) - half.T @ half)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        found: np.ndarray = mean + rng.standard_normal((count, len(points))) @ root.T
        return found

    def believing(self, points: np.ndarray) -> Surrogate:
        """The same with points of shape (p, d) that run, at their mean (kriging believer, Ginsbourger et al. 2010)."""
        return replace(self, believed=points)


def fit(
    points: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    unordered: np.ndarray,
    *,
    starts: Sequence[float] = STARTS,
) -> Surrogate:
    """The process with the most probable hyperparameters found by L-BFGS from lengths of these logarithms."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    d, some = points.shape[1], _some(len(points))
    known = (parts(points[some], unordered), scores[some], weights[some])
    bounds = [LENGTHS] * d + [(-4.0, 4.0), (math.log(LEAST_NOISE), 1.0)]
    best: tuple[float, np.ndarray] = (math.inf, np.array([LENGTH[0]] * d + [AMPLITUDE[0], NOISE[0]]))
    for start in starts if len(some) < ONE_START else starts[:1]:
        theta = np.array([start] * d + [AMPLITUDE[0], NOISE[0]])
        found = minimize(
            loss, theta, known, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
        )
        if found.fun < best[0]:
            best = (float(found.fun), found.x)
    return Surrogate(
        points=points, scores=scores, weights=weights, unordered=unordered, theta=best[1],
        believed=np.empty((0, d)),
    )  # fmt: skip


def loss(
    theta: np.ndarray, apart: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minus the logarithm of the hyperparameters' posterior density (less a constant), and its gradient.

    `apart`: `parts` of the points.
    """
    from scipy.linalg.lapack import dpotrf, dpotri  # type: ignore[import-untyped]

    n, d = len(scores), len(theta) - 2
    inverse, noise = np.exp(-2 * theta[:d]), math.exp(theta[-1])
    far = np.sqrt(5 * (inverse @ apart))
    fall = math.exp(theta[-2]) * np.exp(-far)
    function = (fall * (1 + far + far * far / 3)).reshape(n, n)
    factor, failed = dpotrf(function + np.diag(noise * weights), lower=1)
    if failed:
        return 1e10, np.zeros_like(theta)
    half, _ = dpotri(factor, lower=1)
    precision = np.tril(half) + np.tril(half, -1).T
    solved = precision @ scores
    pull = precision - np.outer(solved, solved)
    slope = (pull.ravel() * fall * (1 + far)) * (5 / 3)  # of the kernel by the squared distance, times -2
    lengths = 0.5 * inverse * (apart @ slope)
    rest = [0.5 * (pull * function).sum(), 0.5 * noise * (np.diag(pull) @ weights)]
    mean, sd = prior(d)
    z = (theta - mean) / sd
    value = 0.5 * scores @ solved + np.log(np.diag(factor)).sum() + 0.5 * z @ z
    return float(value), np.concatenate([lengths, rest]) + z / sd


def log_likelihood(theta: np.ndarray, apart: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Logarithm of the scores' density, less a constant; minus infinity beyond what arithmetic bears."""
    from scipy.linalg.lapack import dpotrf, dpotrs

    if theta[-1] < math.log(LEAST_NOISE) or np.abs(theta).max() > 14:
        return -math.inf
    n = len(scores)
    far = np.sqrt(5 * (np.exp(-2 * theta[:-2]) @ apart))
    cover = (math.exp(theta[-2]) * np.exp(-far) * (1 + far + far * far / 3)).reshape(n, n)
    cover[np.diag_indices(n)] += math.exp(theta[-1]) * weights
    factor, failed = dpotrf(cover, lower=1)
    if failed:
        return -math.inf
    solved, _ = dpotrs(factor, scores, lower=1)
    return float(-0.5 * scores @ solved - np.log(np.diag(factor)).sum())


def drawn(best: Surrogate, *, count: int, every: int, rng: np.random.Generator) -> list[Surrogate]:
    """The process `count` times with hyperparameters drawn from their posterior, `every` steps apart.

    Elliptical slice sampling (Murray, Adams and MacKay 2010): the prior of the logarithms is normal, so there is
    nothing to tune. Starts from the most probable ones, so that no step is thrown away.
    """
    some = _some(len(best.points))
    known = (parts(best.points[some], best.unordered), best.scores[some], best.weights[some])
    mean, sd = prior(len(best.theta) - 2)
    theta, value = best.theta - mean, log_likelihood(best.theta, *known)
    found = []
    for step in range(1, count * every + 1):
        other, level = sd * rng.standard_normal(len(theta)), value - rng.exponential()
        angle = high = rng.uniform(0, 2 * math.pi)
        low = high - 2 * math.pi
        while True:
            new = theta * math.cos(angle) + other * math.sin(angle)
            value = log_likelihood(new + mean, *known)
            if value > level or high - low < 1e-9:
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = rng.uniform(low, high)
        theta = new
        if step % every == 0:
            found.append(replace(best, theta=theta + mean))
    return found


def prior(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the hyperparameters' logarithms in d dimensions. Shapes (d + 2,)."""
    mean = np.array([LENGTH[0] + math.log(d) / 2] * d + [AMPLITUDE[0], NOISE[0]])
    return mean, np.array([LENGTH[1]] * d + [AMPLITUDE[1], NOISE[1]])


def parts(points: np.ndarray, unordered: np.ndarray) -> np.ndarray:
    """Squared distances in each dimension, 0 or 1 between categories. Shape (d, n * n)."""
    apart = np.square(points.T[:, :, None] - points.T[:, None, :])
    apart[unordered] = apart[unordered] > 0
    found: np.ndarray = apart.reshape(len(unordered), -1)
    return found


def squares(a: np.ndarray, b: np.ndarray, lengths: np.ndarray, unordered: np.ndarray) -> np.ndarray:
    """Squared distances over the lengths: numbers by difference, categories by being equal (Hamming). Shape (n, m)."""
    x, y = (points[:, ~unordered] / lengths[~unordered] for points in (a, b))
    found: np.ndarray = np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T, 0.0)
    for j in np.flatnonzero(unordered):
        found += (a[:, j, None] != b[None, :, j]) / lengths[j] ** 2
    return found


def matern(squared: np.ndarray) -> np.ndarray:
    """Matern 5/2 of squared distances."""
    far = np.sqrt(5 * squared)
    found: np.ndarray = (1 + far + far * far / 3) * np.exp(-far)
    return found


def _some(n: int) -> np.ndarray:
    """Which of n points the hyperparameters are fitted on: spread evenly over the trials, early and late alike."""
    return np.arange(n) if n <= FITTED else np.linspace(0, n - 1, FITTED).astype(int)
