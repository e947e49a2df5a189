"""A Gaussian process over the unit cube: Matern 5/2 kernel, a lengthscale per axis. numpy and scipy, no torch.

Source: Rasmussen and Williams 2006 (RW), algorithm 2.1 and equation 5.9; prior of the lengthscales: Hvarfner et al.
2024, ICML, arXiv 2402.02229 (it grows with the dimension, so that no axis matters before the data say so).
Letters in shapes: n finished points, p pending points, m query points, d axes.

Hyperparameters theta, shape (d + 2,), all logarithms: d lengthscales l_j, signal variance s, noise variance v.
    k(x, x') = s (1 + r + r^2 / 3) exp(-r),   r^2 = 5 sum_j (x_j - x'_j)^2 / l_j^2      (Matern 5/2)
    scores = f(points) + noise,   noise_i ~ N(0, v w_i),   w_i: `noise_ratios`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

LOG_LENGTHSCALE_PRIOR = (math.sqrt(2), math.sqrt(3))
"""Mean (log(d) / 2 is added to it) and sd of the logarithm of a lengthscale (Hvarfner et al. 2024, section 4)."""
LOG_SIGNAL_VARIANCE_PRIOR = (0.0, 1.0)
"""Mean and sd of the logarithm of the signal variance: about that of the standardized scores, which is 1."""
LOG_NOISE_VARIANCE_PRIOR = (-4.0, 1.0)
"""Mean and sd of the logarithm of the noise variance: 2 % of the scores' (Hvarfner et al. 2024 and BoTorch)."""
LOG_LENGTHSCALE_BOUNDS = (-4.0, 6.0)
"""Bounds of the logarithm of a lengthscale: at 0.02 points are independent, at 400 the function is constant."""
MIN_NOISE_VARIANCE = 1e-6
"""Below it the covariance matrix of points close to each other is singular."""
LOG_LENGTHSCALE_STARTS = (-0.7, 0.7)
"""Starts of the fit, as the logarithm of all lengthscales: half the cube and twice, as there can be two maxima."""
SINGLE_START_FROM = 100
"""Number of points from which one start is enough: the data outweigh the prior."""
MAX_FITTED_POINTS = 250
"""Most points used to fit hyperparameters: the cost is their number cubed; 250 take 0.1 s."""


@dataclass(frozen=True, kw_only=True)
class GaussianProcess:
    """A Gaussian process conditioned on points. The caller standardizes the scores."""

    points: np.ndarray
    """Shape (n, d)."""
    scores: np.ndarray
    """Shape (n,)."""
    noise_ratios: np.ndarray
    """Noise variance of each score as a multiple of the common noise variance. Shape (n,)."""
    unordered: np.ndarray
    """Which axes are categories without an order. Boolean, shape (d,)."""
    theta: np.ndarray
    """Hyperparameters, see the top of the file. Shape (d + 2,)."""
    pending: np.ndarray
    """Points of running trials, taken to score the posterior mean. Shape (p, d)."""

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of a score with noise ratio 1."""
        return math.exp(0.5 * self.theta[-1])

    @cached_property
    def _factor(self) -> np.ndarray:
        """Lower Cholesky factor of the covariance of finished, then pending scores. Shape (n + p, n + p)."""
        from scipy.linalg import cholesky  # type: ignore[import-untyped]

        every = np.vstack([self.points, self.pending])
        covariance = self.covariance(every, every)
        covariance[np.diag_indices(len(every))] += self.noise**2 * np.append(
            self.noise_ratios, np.ones(len(self.pending))
        )
        found: np.ndarray = cholesky(covariance, lower=True)
        return found

    @cached_property
    def _alpha(self) -> np.ndarray:
        """Inverse covariance of the finished scores times the scores: alpha of RW, algorithm 2.1. Shape (n,)."""
        from scipy.linalg import cho_solve

        n = len(self.points)
        found: np.ndarray = cho_solve((self._factor[:n, :n], True), self.scores)
        return found

    def covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariance k of the function, without noise, between points. Shapes: (n, d), (m, d) -> (n, m)."""
        return math.exp(self.theta[-2]) * matern52(
            scaled_squared_distances(a, b, np.exp(self.theta[:-2]), self.unordered)
        )

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard deviation of the function, without noise. Shapes: (m, d) -> (m,), (m,).

        A pending point that scores the posterior mean does not change the mean anywhere, but reduces the deviation:
        so the mean uses the n finished points alone, the variance all n + p.
        """
        from scipy.linalg import solve_triangular

        cross = self.covariance(np.vstack([self.points, self.pending]), points)
        mean = cross[: len(self.points)].T @ self._alpha
        half = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        variance = math.exp(self.theta[-2]) - np.einsum("ij,ij->j", half, half)
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def sample(self, points: np.ndarray, *, count: int, rng: np.random.Generator) -> np.ndarray:
        """Joint draws of the function from the posterior. Shapes: (m, d) -> (count, m)."""
        from scipy.linalg import solve_triangular

        mean, _ = self.predict(points)
        cross = self.covariance(np.vstack([self.points, self.pending]), points)
        half = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        # an eigendecomposition, because the matrix is singular up to rounding and Cholesky fails
        values, vectors = np.linalg.eigh(self.covariance(points, points) - half.T @ half)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        found: np.ndarray = mean + rng.standard_normal((count, len(points))) @ root.T
        return found

    def with_pending(self, points: np.ndarray) -> GaussianProcess:
        """The process with these pending points, shape (p, d) (kriging believer, Ginsbourger et al. 2010)."""
        return replace(self, pending=points)


def fit(
    points: np.ndarray,
    scores: np.ndarray,
    noise_ratios: np.ndarray,
    unordered: np.ndarray,
    *,
    log_lengthscales: Sequence[float] = LOG_LENGTHSCALE_STARTS,
) -> GaussianProcess:
    """The process with the hyperparameters of the largest posterior density (MAP), found by L-BFGS-B.

    Shapes: `points` (n, d); `scores`, `noise_ratios` (n,); `unordered` (d,). `log_lengthscales`: starts of the
    fit, each the logarithm of all lengthscales. Above
    MAX_FITTED_POINTS points they are fitted to a subset.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    d, subset = points.shape[1], _fitted_subset(len(points))
    data = (squared_distances_by_axis(points[subset], unordered), scores[subset], noise_ratios[subset])
    bounds = [LOG_LENGTHSCALE_BOUNDS] * d + [(-4.0, 4.0), (math.log(MIN_NOISE_VARIANCE), 1.0)]
    best: tuple[float, np.ndarray] = (
        math.inf,
        np.array(
            [LOG_LENGTHSCALE_PRIOR[0]] * d + [LOG_SIGNAL_VARIANCE_PRIOR[0], LOG_NOISE_VARIANCE_PRIOR[0]]
        ),
    )
    for start in log_lengthscales if len(subset) < SINGLE_START_FROM else log_lengthscales[:1]:
        theta = np.array([start] * d + [LOG_SIGNAL_VARIANCE_PRIOR[0], LOG_NOISE_VARIANCE_PRIOR[0]])
        found = minimize(
            negative_log_posterior,
            theta,
            data,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 60},
        )
        if found.fun < best[0]:
            best = (float(found.fun), found.x)
    return GaussianProcess(
        points=points, scores=scores, noise_ratios=noise_ratios, unordered=unordered, theta=best[1],
        pending=np.empty((0, d)),
    )  # fmt: skip


def negative_log_posterior(
    theta: np.ndarray, squared: np.ndarray, scores: np.ndarray, noise_ratios: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative log posterior density of the hyperparameters, without its constant, and its gradient (d + 2,).

    Shapes: `theta` (d + 2,); `squared` (d, n * n), from `squared_distances_by_axis`; `scores`, `noise_ratios` (n,).
    Where the covariance matrix is not positive definite: a large value and a zero gradient.
    """
    from scipy.linalg.lapack import dpotrf, dpotri  # type: ignore[import-untyped]

    n, d = len(scores), len(theta) - 2
    inverse_squares, noise = np.exp(-2 * theta[:d]), math.exp(theta[-1])  # 1 / l_j^2, and v
    r = np.sqrt(5 * (inverse_squares @ squared))
    decay = math.exp(theta[-2]) * np.exp(-r)
    kernel = (decay * (1 + r + r * r / 3)).reshape(n, n)
    factor, failed = dpotrf(kernel + np.diag(noise * noise_ratios), lower=1)
    if failed:
        return 1e10, np.zeros_like(theta)
    lower, _ = dpotri(factor, lower=1)  # the lower half of the inverse covariance
    precision = np.tril(lower) + np.tril(lower, -1).T
    alpha = precision @ scores
    # RW equation 5.9: the derivative of -log p(scores) by a hyperparameter t is 0.5 trace(G dK/dt) with this G
    gradient = precision - np.outer(alpha, alpha)
    # dk/d(log l_j) = (5 / 3) s (1 + r) exp(-r) (x_j - x'_j)^2 / l_j^2
    slope = (gradient.ravel() * decay * (1 + r)) * (5 / 3)
    by_lengthscale = 0.5 * inverse_squares * (squared @ slope)
    by_variance = [0.5 * (gradient * kernel).sum(), 0.5 * noise * (np.diag(gradient) @ noise_ratios)]
    mean, sd = hyperparameter_prior(d)
    z = (theta - mean) / sd
    value = 0.5 * scores @ alpha + np.log(np.diag(factor)).sum() + 0.5 * z @ z
    return float(value), np.concatenate([by_lengthscale, by_variance]) + z / sd


def log_likelihood(
    theta: np.ndarray, squared: np.ndarray, scores: np.ndarray, noise_ratios: np.ndarray
) -> float:
    """Log marginal likelihood of the scores, without its constant; shapes as above.

    Minus infinity for hyperparameters outside the range of floating-point arithmetic.
    """
    from scipy.linalg.lapack import dpotrf, dpotrs

    if theta[-1] < math.log(MIN_NOISE_VARIANCE) or np.abs(theta).max() > 14:
        return -math.inf
    n = len(scores)
    r = np.sqrt(5 * (np.exp(-2 * theta[:-2]) @ squared))
    covariance = (math.exp(theta[-2]) * np.exp(-r) * (1 + r + r * r / 3)).reshape(n, n)
    covariance[np.diag_indices(n)] += math.exp(theta[-1]) * noise_ratios
    factor, failed = dpotrf(covariance, lower=1)
    if failed:
        return -math.inf
    alpha, _ = dpotrs(factor, scores, lower=1)
    return float(-0.5 * scores @ alpha - np.log(np.diag(factor)).sum())


def sample_hyperparameters(
    best: GaussianProcess, *, count: int, every: int, rng: np.random.Generator
) -> list[GaussianProcess]:
    """`count` processes with hyperparameters sampled from their posterior, each `every` steps of the chain.

    Elliptical slice sampling (Murray, Adams and MacKay 2010, figure 2): it has no step size to tune where the prior is
    normal, as that of the logarithms is. The chain starts at the most probable hyperparameters, so there is no burn-in.
    """
    subset = _fitted_subset(len(best.points))
    data = (
        squared_distances_by_axis(best.points[subset], best.unordered),
        best.scores[subset],
        best.noise_ratios[subset],
    )
    mean, sd = hyperparameter_prior(len(best.theta) - 2)
    theta, value = best.theta - mean, log_likelihood(best.theta, *data)
    found = []
    for step in range(1, count * every + 1):
        # a second draw of the prior defines an ellipse through theta; the slice is a log(uniform) below the likelihood
        other, level = sd * rng.standard_normal(len(theta)), value - rng.exponential()
        angle = high = rng.uniform(0, 2 * math.pi)
        low = high - 2 * math.pi
        while True:
            new = theta * math.cos(angle) + other * math.sin(angle)
            value = log_likelihood(new + mean, *data)
            if value > level or high - low < 1e-9:
                break
            low, high = (
                (angle, high) if angle < 0 else (low, angle)
            )  # shrink the bracket towards theta (angle 0)
            angle = rng.uniform(low, high)
        theta = new
        if step % every == 0:
            found.append(replace(best, theta=theta + mean))
    return found


def hyperparameter_prior(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the normal prior of theta for d axes. Shapes: (d + 2,), (d + 2,)."""
    mean = np.array(
        [LOG_LENGTHSCALE_PRIOR[0] + math.log(d) / 2] * d
        + [LOG_SIGNAL_VARIANCE_PRIOR[0], LOG_NOISE_VARIANCE_PRIOR[0]]
    )
    return mean, np.array(
        [LOG_LENGTHSCALE_PRIOR[1]] * d + [LOG_SIGNAL_VARIANCE_PRIOR[1], LOG_NOISE_VARIANCE_PRIOR[1]]
    )


def squared_distances_by_axis(points: np.ndarray, unordered: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs along each axis, 0 or 1 between categories. Shapes: (n, d) -> (d, n * n)."""
    squared = np.square(points.T[:, :, None] - points.T[:, None, :])
    squared[unordered] = squared[unordered] > 0
    found: np.ndarray = squared.reshape(len(unordered), -1)
    return found


def scaled_squared_distances(
    a: np.ndarray, b: np.ndarray, lengthscales: np.ndarray, unordered: np.ndarray
) -> np.ndarray:
    """Squared distances divided by squared lengthscales, summed over axes; categories: 0 if equal, else 1 (Hamming).

    Shapes: `a` (n, d), `b` (m, d), `lengthscales` (d,) -> (n, m).
    """
    x, y = (points[:, ~unordered] / lengthscales[~unordered] for points in (a, b))
    # |x - y|^2 = x^2 + y^2 - 2 x y, which rounding can make negative
    found: np.ndarray = np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T, 0.0)
    for j in np.flatnonzero(unordered):
        found += (a[:, j, None] != b[None, :, j]) / lengthscales[j] ** 2
    return found


def matern52(squared: np.ndarray) -> np.ndarray:
    """Matern 5/2 correlation of scaled squared distances, element by element."""
    r = np.sqrt(5 * squared)
    found: np.ndarray = (1 + r + r * r / 3) * np.exp(-r)
    return found


def _fitted_subset(n: int) -> np.ndarray:
    """Indices of the points that hyperparameters are fitted to: all, or MAX_FITTED_POINTS spread evenly over trials."""
    return np.arange(n) if n <= MAX_FITTED_POINTS else np.linspace(0, n - 1, MAX_FITTED_POINTS).astype(int)
