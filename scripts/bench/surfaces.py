"""The surfaces that searches are played on: the shared ones of real sweeps, and our synthetic shapes.

The shared folder is read only and stays where it is: HPOTUNE_SEARCHBENCH, or ../shared/searchbench beside the checkout.
Its surrogates are fitted once into a cache folder, which then serves every run.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from shapes import SHAPES, Entry, Point

HERE = Path(__file__).resolve()
SHARED = Path(os.environ.get("HPOTUNE_SEARCHBENCH", HERE.parents[3] / "shared" / "searchbench"))
CACHE = Path(os.environ.get("HPOTUNE_SEARCHBENCH_CACHE", "/tmp/hpotune-searchbench"))
REAL = ("llama_3b", "llama_1b", "llama2_7b", "loracliff", "hartmann6", "func3c")
SIBLING = {"llama_3b": "llama_1b", "llama_1b": "llama_3b"}
SETS = {"shared": REAL, "shapes": tuple(SHAPES), "all": (*REAL, *SHAPES), "siblings": tuple(SIBLING)}
DRAWN = 20_000
"""Random points that the median is taken from: regret 1."""


class Surface(Protocol):
    """What a search is played on."""

    space: list[Entry]
    default: Mapping[str, Any]

    def true(self, points: list[Point]) -> np.ndarray:
        """Expected scores."""

    def sample(self, point: Point, rng: np.random.Generator) -> float | None:
        """One run's score."""

    def duration(self, point: Point) -> float:
        """One run's time."""


def named(words: str) -> list[str]:
    """Surfaces of a comma-separated list of names and sets."""
    found = [name for word in words.split(",") for name in SETS.get(word, (word,))]
    unknown = [name for name in found if name not in SETS["all"]]
    if unknown:
        raise SystemExit(f"{unknown[0]!r} is no surface; valid: {', '.join((*SETS, *SETS['all']))}")
    return found


def shared(module: str) -> Any:  # noqa: ANN401 - a module of the shared folder
    """A module of the shared bench, its cache in a folder that can be written."""
    if not (SHARED / "objectives.py").is_file():
        raise SystemExit(f"{SHARED}: no search bench there; set HPOTUNE_SEARCHBENCH to its folder")
    if str(SHARED) not in sys.path:
        sys.path.append(str(SHARED))
    CACHE.mkdir(parents=True, exist_ok=True)
    objectives = importlib.import_module("objectives")
    objectives.CACHE = f"{CACHE}/"
    return importlib.import_module(module)


@cache
def surface(name: str) -> Surface:
    """The surface of that name."""
    found: Surface = SHAPES[name] if name in SHAPES else shared("objectives").get(name)
    return found


@cache
def scale(name: str) -> tuple[float, float]:
    """Best known expected score and the median of random points: regrets 0 and 1."""
    if name not in SHAPES:
        return float(surface(name).fbest), float(surface(name).med)  # type: ignore[attr-defined]
    file = CACHE / f"scale-{name}.json"
    if not file.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_scaled(SHAPES[name])))
    best, median = json.loads(file.read_text())
    return best, median


def regret(name: str, scores: np.ndarray) -> np.ndarray:
    """Regrets of expected scores: 0 at the best known, 1 at the median of random points and below."""
    best, median = scale(name)
    return np.clip((best - scores) / (best - median), 0, 1)


def from_unit(space: list[Entry], unit: np.ndarray) -> dict[str, Any]:
    """The point at shares of the ranges."""
    return {
        entry["name"]: _value(entry, min(max(float(u), 0.0), 1.0))
        for entry, u in zip(space, unit, strict=True)
    }


def to_unit(space: list[Entry], point: Point) -> np.ndarray:
    """The shares of a point's values, clipped to the ranges. Shape (d,)."""
    return np.array([_share(entry, point[entry["name"]]) for entry in space])


def mirrored(name: str) -> dict[str, Any]:
    """The recommended setting reflected in the middle of the cube: a prior that is wrong."""
    space = surface(name).space
    return from_unit(space, 1 - to_unit(space, surface(name).default))


def clipped(space: list[Entry], point: Point) -> dict[str, Any]:
    """A point of a sibling's space, moved into this one."""
    return {
        e["name"]: point[e["name"]] if e["type"] == "cat" else min(max(point[e["name"]], e["low"]), e["high"])
        for e in space
    }


def _ends(entry: Entry) -> tuple[float, float]:
    half = 0.5 if entry["type"] == "int" else 0.0
    low, high = entry["low"] - half, entry["high"] + half
    return (np.log(low), np.log(high)) if entry.get("log") else (low, high)


def _value(entry: Entry, unit: float) -> Any:  # noqa: ANN401
    if entry["type"] == "cat":
        return entry["choices"][min(int(unit * len(entry["choices"])), len(entry["choices"]) - 1)]
    low, high = _ends(entry)
    value = float(np.exp(low + unit * (high - low))) if entry.get("log") else low + unit * (high - low)
    value = min(max(round(value) if entry["type"] == "int" else value, entry["low"]), entry["high"])
    return int(value) if entry["type"] == "int" else float(value)


def _share(entry: Entry, value: Any) -> float:  # noqa: ANN401
    if entry["type"] == "cat":
        return (entry["choices"].index(value) + 0.5) / len(entry["choices"])
    low, high = _ends(entry)
    position = np.log(value) if entry.get("log") else value
    return float(np.clip((position - low) / (high - low), 0, 1))


def _scaled(found: Surface) -> tuple[float, float]:
    """Best and median by random points, then by ever smaller steps from the best of them."""
    rng = np.random.default_rng(0)

    def scores(units: np.ndarray) -> np.ndarray:
        return found.true([from_unit(found.space, unit) for unit in units])

    units = rng.random((DRAWN, len(found.space)))
    values = scores(units)
    median, order = float(np.median(values)), np.argsort(-values)[:30]
    units, values, step = units[order], values[order], 0.15
    for _ in range(60):
        moves = np.repeat(units, 10, axis=0)
        moves = np.clip(
            moves + step * rng.standard_normal(moves.shape) * (rng.random(moves.shape) < 0.5), 0, 1
        )
        units, values = np.vstack([units, moves]), np.concatenate([values, scores(moves)])
        order = np.argsort(-values)[:30]
        units, values, step = units[order], values[order], step * 0.94
    return float(values[0]), median
