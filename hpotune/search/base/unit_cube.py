"""The unit cube over a space: every parameter an axis from 0 to 1, every whole number or category with an equal share.

Pure arithmetic on Optuna's distributions; no study, no storage. Ambiguities of rounding are settled here once:
u = 0.5 of the whole numbers 1..64 is 33, never half-to-even.
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
"""Values by parameter name, as Optuna stores them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """What a study file says of a parameter beyond its Optuna distribution."""

    ordered: bool = False
    """Of categories: whether neighbours in the list are alike."""
    normal: tuple[float, float] | None = None
    """Mean and standard deviation of a normal prior measure (of the logarithm where the range is log)."""
    prior: Any = None
    """A value that is believed to be good; None: none is known."""
    confidence: float = 0.25
    """How close to `prior` the optimum is believed to lie: a standard deviation in the unit cube."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One parameter as a side of the cube."""

    name: str
    distribution: BaseDistribution
    hint: Hint = field(default_factory=Hint)

    @property
    def unordered(self) -> bool:
        """Whether it holds categories without an order, so that distances mean nothing."""
        return isinstance(self.distribution, CategoricalDistribution) and not self.hint.ordered

    @property
    def size(self) -> int | None:
        """How many values it has; None: a continuum."""
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
        """The value at a share `unit` in [0, 1]."""
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
        assert d.step is not None, "what is counted has a step"
        value = min(d.low + d.step * min(int(unit * size), size - 1), d.high)  # 3 * 0.1 is more than 0.3
        return int(value) if isinstance(d, IntDistribution) else value

    def nth(self, index: int) -> Any:  # noqa: ANN401
        """The value of that place among all of them, from 0 to `size` - 1; their shares of the cube may differ."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[index]
        assert isinstance(d, (IntDistribution, FloatDistribution)), "Optuna has three distributions"
        value = min(d.low + index * (d.step or 0), d.high)
        return int(value) if isinstance(d, IntDistribution) else value

    def unit(self, value: Any) -> float:  # noqa: ANN401
        """The middle of the share that a value has."""
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
        assert d.step is not None, "what is counted has a step"
        return self._to_prior_measure((round((value - d.low) / d.step) + 0.5) / size)

    @property
    def _edges(self) -> tuple[float, float]:
        """Of a logarithmic range, whole numbers widened by a half so that each has its share."""
        d = self.distribution
        assert isinstance(d, (IntDistribution, FloatDistribution)), "categories have no logarithm"
        half = 0.5 if isinstance(d, IntDistribution) else 0.0
        return math.log(d.low - half), math.log(d.high + half)

    def _from_prior_measure(self, unit: float) -> float:
        """The share of the interval at a share of the prior measure; the same where that is uniform."""
        if self.hint.normal is None:
            return unit
        from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]  # 0.1 s, only for such priors

        (low, high), (mean, sd) = self._ends, self.hint.normal
        a, b = float(ndtr((low - mean) / sd)), float(ndtr((high - mean) / sd))
        return min(max((mean + sd * float(ndtri(a + unit * (b - a))) - low) / (high - low), 0.0), 1.0)

    def _to_prior_measure(self, share: float) -> float:
        """The inverse of `_measured`."""
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
    """The axes together. Points are float arrays of shape (d,) or (n, d) in [0, 1]."""

    def __init__(
        self, space: Mapping[str, BaseDistribution], hints: Mapping[str, Hint] | None = None
    ) -> None:
        self.axes = tuple(
            Axis(name=name, distribution=distribution, hint=(hints or {}).get(name, Hint()))
            for name, distribution in space.items()
        )

    def __len__(self) -> int:
        """Dimensions."""
        return len(self.axes)

    @cached_property
    def size(self) -> int | None:
        """How many different points there are; None: a continuum."""
        sizes = [axis.size for axis in self.axes]
        return None if None in sizes else math.prod(size or 1 for size in sizes)

    @cached_property
    def unordered(self) -> np.ndarray:
        """Which axes hold categories without an order. Shape (d,)."""
        return np.array([axis.unordered for axis in self.axes], dtype=bool)

    def params(self, point: np.ndarray) -> Params:
        """The values at a point of shape (d,)."""
        return {axis.name: axis.value(float(u)) for axis, u in zip(self.axes, point, strict=True)}

    def point(self, params: Mapping[str, Any]) -> np.ndarray:
        """The point of a set of values. Shape (d,)."""
        return np.array([axis.unit(params[axis.name]) for axis in self.axes], dtype=float)

    def snap(self, points: np.ndarray) -> np.ndarray:
        """Points of shape (n, d) moved to the middle of their value's share: equal values are equal points."""
        points = np.array(points, dtype=float)
        for index, axis in enumerate(self.axes):
            if axis.size is not None:
                points[:, index] = _snapped(axis, axis.size, points[:, index])
        return points

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether all names are there and every value lies within its range."""
        return all(
            axis.name in params
            and _internal_value(axis.distribution, params[axis.name]) is not None
            and axis.distribution._contains(axis.distribution.to_internal_repr(params[axis.name]))
            for axis in self.axes
        )


def _snapped(axis: Axis, size: int, units: np.ndarray) -> np.ndarray:
    """`axis.unit(axis.value(u))` of many shares: the same to the last bit, without a call for each."""
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
    except ValueError:  # a category that the list does not hold any more
        return None


def params_key(params: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """What two equal sets of values share."""
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
