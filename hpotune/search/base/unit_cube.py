"""The unit cube of a space: each parameter an axis from 0 to 1, each discrete value a section of it.

Pure arithmetic on Optuna's distributions: no study, no storage. Also the translation between values of the study file
and values as Optuna stores them. Sections of an axis are equal (on the logarithm for log ranges), unless a normal range
has its own prior measure. Rounding is defined here once: u = 0.5 of the whole numbers 1..64 is 33, never half-to-even.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpotune.config.space.ranges import Range, Space
from hpotune.config.space.start_from import option
from hpotune.config.yaml_source import Value

Params = dict[str, Any]
"""Values by parameter name, as Optuna stores them (`FrozenTrial.params`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """What a study file says about a parameter beyond its Optuna distribution."""

    ordered: bool = False
    """Whether the order of categories has a meaning, so that neighbours are similar."""
    normal: tuple[float, float] | None = None
    """Mean and standard deviation of a normal prior measure (of the logarithm where the range is log)."""
    prior: Any = None
    """A value believed to be good, as Optuna stores it; None: none is known."""
    confidence: float = 0.25
    """Standard deviation, in the unit cube, of the optimum around `prior`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One parameter as an axis of the unit cube."""

    name: str
    distribution: BaseDistribution
    hint: Hint = field(default_factory=Hint)

    @property
    def unordered(self) -> bool:
        """Whether it is a category without an order, so that distances have no meaning."""
        return isinstance(self.distribution, CategoricalDistribution) and not self.hint.ordered

    @property
    def size(self) -> int | None:
        """Number of values; None: continuous."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if isinstance(d, IntDistribution):
            return (d.high - d.low) // d.step + 1
        assert isinstance(d, FloatDistribution), "Optuna has three distributions"
        if d.step is not None:
            return round((d.high - d.low) / d.step) + 1
        return 1 if d.low == d.high else None

    def value(self, unit: float) -> Any:  # noqa: ANN401 - whatever the distribution holds
        """The value at the coordinate `unit`, clipped to [0, 1]."""
        d, size = self.distribution, self.size
        unit = self._from_prior_measure(min(max(unit, 0.0), 1.0))
        if isinstance(d, CategoricalDistribution):
            return d.choices[min(int(unit * len(d.choices)), len(d.choices) - 1)]
        assert isinstance(d, (IntDistribution, FloatDistribution)), "Optuna has three distributions"
        if d.log:
            low, high = self._edges
            value = math.exp(low + unit * (high - low))
            return min(max(round(value) if isinstance(d, IntDistribution) else value, d.low), d.high)
        if size is None:
            return d.low + unit * (d.high - d.low)
        assert d.step is not None, "a discrete axis has a step"
        value = min(d.low + d.step * min(int(unit * size), size - 1), d.high)  # 3 * 0.1 is more than 0.3
        return int(value) if isinstance(d, IntDistribution) else value

    def nth(self, index: int) -> Any:  # noqa: ANN401
        """The value of an index from 0 to `size` - 1 of a discrete axis; sections of the axis may differ in width."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[index]
        assert isinstance(d, (IntDistribution, FloatDistribution)), "Optuna has three distributions"
        value = min(d.low + index * (d.step or 0), d.high)
        return int(value) if isinstance(d, IntDistribution) else value

    def unit(self, value: Any) -> float:  # noqa: ANN401
        """The coordinate of a value: of a discrete one, the middle of its section."""
        d, size = self.distribution, self.size
        if isinstance(d, CategoricalDistribution):
            return self._to_prior_measure((d.to_internal_repr(value) + 0.5) / len(d.choices))
        assert isinstance(d, (IntDistribution, FloatDistribution)), "Optuna has three distributions"
        if size == 1:
            return 0.5
        if d.log:
            low, high = self._edges
            return self._to_prior_measure(min(max((math.log(value) - low) / (high - low), 0.0), 1.0))
        if size is None:
            return self._to_prior_measure((value - d.low) / (d.high - d.low))
        assert d.step is not None, "a discrete axis has a step"
        return self._to_prior_measure((round((value - d.low) / d.step) + 0.5) / size)

    @property
    def _edges(self) -> tuple[float, float]:
        """Logarithms of the bounds of a log range; of whole numbers widened by 0.5, so that each has a section."""
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution)), "categories have no logarithm"
        half = 0.5 if isinstance(d, IntDistribution) else 0.0
        return math.log(d.low - half), math.log(d.high + half)

    def _from_prior_measure(self, unit: float) -> float:
        """Share of the interval [low, high] at a quantile of the prior measure; the same number where it is uniform.

        The measure is a normal distribution truncated to the interval: with a and b the distribution function at the
        bounds, quantile q is Phi^-1(a + q (b - a)).
        """
        if self.hint.normal is None:
            return unit
        from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]  # 0.1 s, only for such priors

        (low, high), (mean, sd) = self._ends, self.hint.normal
        a, b = float(ndtr((low - mean) / sd)), float(ndtr((high - mean) / sd))
        return min(max((mean + sd * float(ndtri(a + unit * (b - a))) - low) / (high - low), 0.0), 1.0)

    def _to_prior_measure(self, share: float) -> float:
        """The inverse of `_from_prior_measure`: the quantile of a share; the same number where the prior is uniform."""
        if self.hint.normal is None:
            return share
        from scipy.special import ndtr

        (low, high), (mean, sd) = self._ends, self.hint.normal
        a, b = float(ndtr((low - mean) / sd)), float(ndtr((high - mean) / sd))
        return min(max((float(ndtr((low + share * (high - low) - mean) / sd)) - a) / (b - a), 0.0), 1.0)

    @property
    def _ends(self) -> tuple[float, float]:
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution)), "categories have no normal prior"
        return self._edges if d.log else (float(d.low), float(d.high))


class Cube:
    """The unit cube of d axes. Points are float arrays in [0, 1], of shape (d,) or (n, d)."""

    def __init__(
        self, space: Mapping[str, BaseDistribution], hints: Mapping[str, Hint] | None = None
    ) -> None:
        self.axes = tuple(
            Axis(name=name, distribution=distribution, hint=(hints or {}).get(name, Hint()))
            for name, distribution in space.items()
        )

    def __len__(self) -> int:
        """Number d of axes."""
        return len(self.axes)

    @cached_property
    def size(self) -> int | None:
        """Number of different points; None: infinite."""
        sizes = [axis.size for axis in self.axes]
        return None if None in sizes else math.prod(size or 1 for size in sizes)

    @cached_property
    def unordered(self) -> np.ndarray:
        """Which axes are categories without an order. Boolean, shape (d,)."""
        return np.array([axis.unordered for axis in self.axes], dtype=bool)

    def params(self, point: np.ndarray) -> Params:
        """The values at a point. Shape (d,)."""
        return {axis.name: axis.value(float(u)) for axis, u in zip(self.axes, point, strict=True)}

    def point(self, params: Mapping[str, Any]) -> np.ndarray:
        """The point of values by name; other names are ignored. Shape (d,)."""
        return np.array([axis.unit(params[axis.name]) for axis in self.axes], dtype=float)

    def snap(self, points: np.ndarray) -> np.ndarray:
        """Points moved to the middle of the sections of their values, so that equal values are equal points.

        Shapes: (n, d) -> (n, d); continuous axes do not change.
        """
        points = np.array(points, dtype=float)
        for index, axis in enumerate(self.axes):
            if axis.size is not None:
                points[:, index] = _snapped(axis, axis.size, points[:, index])
        return points

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether every name has a value, and it lies within its range."""
        return all(
            axis.name in params
            and _internal_value(axis.distribution, params[axis.name]) is not None
            and axis.distribution._contains(axis.distribution.to_internal_repr(params[axis.name]))
            for axis in self.axes
        )


def _snapped(axis: Axis, size: int, units: np.ndarray) -> np.ndarray:
    """`axis.unit(axis.value(u))` for many u, equal to the last bit, without a call for each. Shapes: (n,) -> (n,)."""
    d = axis.distribution
    if axis.hint.normal is None and (isinstance(d, CategoricalDistribution) or not d.log) and size > 1:  # type: ignore[attr-defined]
        found: np.ndarray = (np.clip((units * size).astype(int), 0, size - 1) + 0.5) / size
        return found
    if axis.hint.normal is None and isinstance(d, IntDistribution) and size > 1:
        low, high = axis._edges
        values = np.clip(np.rint(np.exp(low + np.clip(units, 0.0, 1.0) * (high - low))), d.low, d.high)
        each, which = np.unique(values, return_inverse=True)
        return np.array([axis.unit(int(value)) for value in each])[which]
    return np.array([axis.unit(axis.value(float(u))) for u in units])


def _internal_value(distribution: BaseDistribution, value: Any) -> float | None:  # noqa: ANN401
    try:
        return float(distribution.to_internal_repr(value))
    except ValueError:  # a category that the list does not contain any more
        return None


def params_key(params: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """A key that is equal for equal values of these names."""
    return tuple(params.get(name) for name in names)


def distribution(r: Range) -> BaseDistribution:
    """The Optuna distribution of a range."""
    if r.kind == "choice":
        return CategoricalDistribution(r.labels)
    if r.kind == "int":
        return IntDistribution(int(r.low), int(r.high), step=int(r.step or 1), log=r.log)
    return FloatDistribution(r.low, r.high, step=r.step, log=r.log)


def encode(r: Range, value: Value) -> bool | int | float | str | None:
    """A value of the study file, within the range, as Optuna stores it (a list choice: its JSON text)."""
    if r.kind == "choice":
        index = option(r, value)
        assert index is not None, "the value is one of the choices"
        return r.labels[index]
    assert isinstance(value, (int, float)), "a value of an interval is a number"
    return int(value) if r.kind == "int" else float(value)


def decode(space: Space, params: Mapping[str, Value]) -> dict[str, Value]:
    """Parameters as Optuna stores them -> values of the study file (list choices from their JSON text)."""
    ranges = {r.name: r for r in space.searched if r.kind == "choice"}
    return {
        name: ranges[name].options[ranges[name].labels.index(value)] if name in ranges else value
        for name, value in params.items()
    }
