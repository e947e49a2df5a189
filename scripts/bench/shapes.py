"""Synthetic fine-tunings: cliffs, plateaus, steps and crashes, each with the noise of a real score.

They hold what the shared surfaces do not: an optimum right at a cliff, a plain without a slope, scores of two hundred
items, trials that end without a value. Scores are maximised. A space is a list of ranges as `hpotune ask-tell` has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Point = Mapping[str, Any]
Entry = dict[str, Any]


def number(name: str, low: float, high: float, *, log: bool = False) -> Entry:
    """A float range."""
    return {"name": name, "type": "float", "low": low, "high": high, "log": log}


def whole(name: str, low: int, high: int, *, log: bool = False) -> Entry:
    """An int range."""
    return {"name": name, "type": "int", "low": low, "high": high, "log": log}


def category(name: str, *choices: str) -> Entry:
    """Choices without an order."""
    return {"name": name, "type": "cat", "choices": list(choices), "log": False, "ordered": False}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One synthetic fine-tuning."""

    name: str
    space: list[Entry]
    default: dict[str, Any]
    healthy: Callable[[Point], float]
    """The expected score of a run that goes well."""
    broken: Callable[[Point], float]
    """The probability that a run does not."""
    noise: float
    """Standard deviation of a healthy run's score."""
    chance: float
    """The score of a run that collapsed."""
    items: int | None = None
    """Scored items: the score is a share of so many; None: a continuum."""
    crashes: bool = False
    """Whether a broken run has no value at all, instead of `chance`."""

    def true(self, points: list[Point]) -> np.ndarray:
        """Expected scores. Shape (n,)."""
        shares = np.array([self.broken(point) for point in points])
        return (1 - shares) * np.array([self.healthy(point) for point in points]) + shares * self.chance

    def sample(self, point: Point, rng: np.random.Generator) -> float | None:
        """One run's score; None: it crashed."""
        if rng.random() < self.broken(point):
            return None if self.crashes else self.chance + 0.005 * rng.standard_normal()
        score = self.healthy(point) + self.noise * rng.standard_normal()
        if self.items is None:
            return float(score)
        return float(rng.binomial(self.items, min(max(score, 0.0), 1.0)) / self.items)

    def duration(self, point: Point) -> float:
        """Cost of a run; only its order matters."""
        return 1.0


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-max(min(x, 60.0), -60.0)))


def _edge(point: Point) -> float:
    """How far the learning rate is beyond the cliff, in decades: the cliff moves with warm-up and batch."""
    return math.log10(point["lr"]) + 3.2 - 2.0 * point["warmup"] - 0.3 * math.log2(point["batch"] / 16) / 2


CLIFF = Shape(
    name="cliff",  # the score rises up to a fifth of a decade before the edge; what stands nearer survives by luck
    space=[
        number("lr", 1e-6, 1e-1, log=True),
        number("warmup", 0.0, 0.2),
        whole("batch", 4, 128, log=True),
        number("decay", 0.0, 0.3),
        number("dropout", 0.0, 0.3),
    ],
    default={"lr": 1e-4, "warmup": 0.03, "batch": 16, "decay": 0.01, "dropout": 0.05},
    healthy=lambda p: (
        0.50
        + 0.10 * math.exp(0.8 * min(_edge(p), -0.2))
        - 0.08 * max(_edge(p) + 0.2, 0.0)
        - 0.1 * (p["decay"] - 0.1) ** 2
        - 0.2 * p["dropout"] ** 2
    ),
    broken=lambda p: _logistic(25 * _edge(p)),
    noise=0.003,
    chance=0.25,
)

PLAIN = Shape(
    name="plain",  # two thirds of the space look alike: nothing there says where to go
    space=[
        number("lr", 1e-8, 1e-2, log=True),
        whole("rank", 1, 256, log=True),
        number("beta", 0.8, 0.999),
        number("clip", 0.05, 5.0, log=True),
        category("target", "attention", "mlp", "all"),
        category("optimizer", "adamw", "sgd", "lion"),
    ],
    default={"lr": 1e-4, "rank": 8, "beta": 0.9, "clip": 1.0, "target": "all", "optimizer": "adamw"},
    healthy=lambda p: (
        0.40
        + 0.15
        * _logistic(3 * (math.log10(p["lr"]) + 5 - {"adamw": 0.0, "sgd": 2.0, "lion": -0.7}[p["optimizer"]]))
        * math.exp(
            -(
                ((math.log10(p["lr"]) + 4.2 - {"adamw": 0.0, "sgd": 2.0, "lion": -0.7}[p["optimizer"]]) / 1.2)
                ** 2
            )
        )
        * {"attention": 0.8, "mlp": 0.9, "all": 1.0}[p["target"]]
        * (1 - 0.3 * math.exp(-math.log2(p["rank"]) / 2))
        * math.exp(-8 * (p["beta"] - 0.95) ** 2)
        * math.exp(-0.1 * (math.log10(p["clip"]) + 0.3) ** 2)
    ),
    broken=lambda p: 0.0,
    noise=0.004,
    chance=0.40,
)

STEPS = Shape(
    name="steps",  # two hundred scored items: neighbours tie, and the noise is as large as the gain
    space=[
        number("lr", 1e-6, 1e-2, log=True),
        whole("epochs", 1, 6),
        whole("rank", 2, 128, log=True),
        number("alpha", 0.25, 8.0, log=True),
    ],
    default={"lr": 2e-4, "epochs": 2, "rank": 16, "alpha": 2.0},
    healthy=lambda p: (
        0.45
        + 0.20 * math.exp(-((math.log10(p["lr"] * p["alpha"] * p["epochs"] ** 0.5) + 3.0) ** 2) / 0.8)
        + 0.02 * math.log2(p["rank"]) / 7
    ),
    broken=lambda p: _logistic(10 * (math.log10(p["lr"] * p["alpha"]) + 2.0)),
    noise=0.0,
    chance=0.25,
    items=200,
)

CRASH = Shape(
    name="crash",  # larger is better until the memory is full: the best points touch those that give no value
    space=[
        number("lr", 1e-6, 1e-2, log=True),
        whole("rank", 2, 512, log=True),
        whole("batch", 1, 64, log=True),
        whole("length", 256, 4096, log=True),
        number("dropout", 0.0, 0.3),
    ],
    default={"lr": 2e-4, "rank": 16, "batch": 4, "length": 1024, "dropout": 0.05},
    healthy=lambda p: (
        0.50
        + 0.08 * math.exp(-((math.log10(p["lr"]) + 3.7 - 0.3 * math.log2(p["batch"] / 8) / 2) ** 2))
        + 0.03 * math.log2(p["length"] / 256) / 4
        + 0.015 * math.log2(p["rank"]) / 9
        - 0.2 * (p["dropout"] - 0.05) ** 2
    ),
    broken=lambda p: float(p["batch"] * p["length"] * (1 + p["rank"] / 256) > 24_000),
    noise=0.002,
    chance=0.45,
    crashes=True,
)

SHAPES = {shape.name: shape for shape in (CLIFF, PLAIN, STEPS, CRASH)}
