"""The starting points of a study that will be made, from its file, earlier studies and .csv files. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from os.path import relpath
from pathlib import Path

import numpy as np

from hpotune.config.load import Study
from hpotune.config.space.constraints import fixed_values
from hpotune.config.space.start_from import BEST, Item, Point, faults, items
from hpotune.config.yaml_source import Mistake, Mistakes
from hpotune.errors import HpotuneError
from hpotune.search.base.unit_cube import Cube, Hint, distribution
from hpotune.search.propose import is_feasible
from hpotune.search.start_points import (
    StartPoint,
    distinct_start_points,
    encode_point,
    point_within_ranges,
    recommended_start_points,
)
from hpotune.storage.backends import connect
from hpotune.warm_start.past_studies import Earlier, beside, column_of, in_store, of_csv, of_folder
from hpotune.warm_start.portfolio import FEWEST, SIZE, Source, portfolio

SOURCES = 20
"""Earlier studies that a portfolio looks at, the latest."""


def start_points(study: Study, *, home: Path, found: Mistakes) -> tuple[list[StartPoint], list[str]]:
    """The points of `search.start_from`, and what had to be changed in those of earlier studies.

    `study`: with absolute paths; `home`: where the file's relative ones begin. `found` gains a mistake for each file
    that gives no points, and each value that the study's ranges do not hold.
    """
    starts: list[StartPoint] = []
    notes: list[str] = []
    for item in items(study.template):
        if not item.path:
            starts.append(StartPoint(params=encode_point(study, item.point), origin="from the file"))
        elif Path(item.path).suffix == ".csv":
            starts += _from_csv(study, item, home, found)
        else:
            told, changed = _from_study(study, item, home, found)
            starts += told
            notes += changed
    return distinct_start_points(starts), notes


def with_rest(study: Study, starts: Sequence[StartPoint], *, folder: Path, url: str) -> list[StartPoint]:
    """The same, then a portfolio of earlier studies, then the recommended setting."""
    return distinct_start_points(
        [*starts, *_portfolio(study, folder=folder, url=url), *recommended_start_points(study, study.config)]
    )


def crowded(study: Study, starts: Sequence[StartPoint]) -> Iterator[str]:
    """A warning where the starting points leave the search nothing to do."""
    own = study.config.budget.trials - (study.config.checks.baseline and study.config.model is not None)
    if starts and len(starts) >= own:
        place = study.source.location(("search", "start_from"))
        yield (
            f"{place}: search.start_from gives {len(starts)} points, and the budget has {own} trials to search with: "
            "the algorithm chooses none; raise budget.trials, or take less"
        )


def _shown(path: str, home: Path) -> str:
    """A path as the study file may have written it."""
    near = relpath(path, home)
    return near if len(near) < len(path) else path


def _from_csv(study: Study, item: Item, home: Path, found: Mistakes) -> list[StartPoint]:
    path, shown = Path(item.path), _shown(item.path, home)
    if not path.is_file():
        found[item.where] = f"search.start_from: {shown!r} is not there; paths are relative to the study file"
        return []
    rows, wrong = of_csv(path, study)
    for index, text in enumerate(wrong):
        found.setdefault((*item.where, index), f"search.start_from: {text}")
    if not rows and not wrong:
        found.setdefault(item.where, f"search.start_from: {shown!r} holds no row below its first line")
    starts = []
    for line, point in rows[: item.take]:
        for name, text in faults(point, study.template, study.space).items():
            place = f"{path.name}:{line}" + (f", column {column_of(path, name)}" if name else "")
            found.setdefault((*item.where, line, name), f"search.start_from: {place}: {text}")
        if not faults(point, study.template, study.space):
            starts.append(StartPoint(params=encode_point(study, point), origin=f"from {shown}"))
    return starts


def _from_study(study: Study, item: Item, home: Path, found: Mistakes) -> tuple[list[StartPoint], list[str]]:
    shown = _shown(item.path, home)
    told = list(_source_mistakes(study, item, shown))
    if told:
        found.update(told)
        return [], []
    earlier, take = of_folder(Path(item.path)), item.take or BEST
    starts: list[StartPoint] = []
    notes, left_out = [], 0
    for point, value in zip(earlier.points, earlier.values, strict=True):
        start, moved_names = _taken(study, point, origin=f"from {shown}", value=value)
        left_out += start is None
        if start is not None and start not in starts:
            starts.append(start)
            if moved_names:
                names = ", ".join(moved_names)
                notes.append(
                    f"{shown}: the point that reached {value:.4g} lay outside this study's ranges and was moved to the "
                    f"nearest values (a choice that is not there is drawn): {names}"
                )
        if len(starts) == take:
            break
    if left_out:
        notes.append(
            f"{shown}: {left_out} of its best points cannot be points of this study, and are left out"
        )
    return starts, notes


def _source_mistakes(study: Study, item: Item, shown: str) -> Iterator[Mistake]:
    """What keeps an earlier study from being a source."""
    names = [r.name for r in study.space.searched]
    try:
        earlier = of_folder(Path(item.path))
    except (HpotuneError, OSError) as error:
        told = str(error).splitlines()[0]
        yield item.where, f"search.start_from: {shown!r} is neither a study nor a .csv file ({told})"
        return
    if not earlier.points:
        yield item.where, f"search.start_from: {shown!r} has no scored trial that keeps its constraints yet"
    elif not set(names) & {name for point in earlier.points for name in point}:
        yield (
            item.where,
            f"search.start_from: {shown!r} shares no name with this study; it has "
            f"{', '.join(sorted(earlier.searched))}, and this one {', '.join(names)}",
        )


def _taken(study: Study, point: Point, *, origin: str, value: float) -> tuple[StartPoint | None, list[str]]:
    """A setting of an earlier study as a start of this one, and the names whose values had to change.

    None where no value of it lies in this study, or a constraint forbids it.
    """
    inside, changed = point_within_ranges(study, point)
    params = encode_point(study, inside)
    if not params or not is_feasible(study.space, params, fixed_values(study.template, study.space)):
        return None, changed
    return StartPoint(params=params, origin=origin, value=value), changed


def _portfolio(study: Study, *, folder: Path, url: str) -> list[StartPoint]:
    """Settings chosen from earlier studies over the same names; none where there is no such study."""
    wanted = study.config.search.portfolio
    size = (SIZE if study.config.search.algorithm == "auto" else 0) if wanted == "auto" else wanted
    names = {r.name for r in study.space.searched}
    if not size or not names:
        return []
    cube = Cube(
        {r.name: distribution(r) for r in study.space.searched},
        {r.name: Hint(ordered=r.ordered, normal=r.measure) for r in study.space.searched},
    )
    kept: list[tuple[Earlier, list[StartPoint]]] = []
    sources: list[Source] = []
    for earlier in islice(_earlier(study, names, folder=folder, url=url), SOURCES):
        origin = f"of the portfolio from {earlier.name}"
        pairs = [
            (start, gain)
            for point, value, gain in zip(earlier.points, earlier.values, earlier.gains, strict=True)
            if (start := _taken(study, point, origin=origin, value=value)[0])
        ]
        if len(pairs) >= FEWEST:
            kept.append((earlier, [start for start, _ in pairs]))
            points = np.array([_unit(cube, start) for start, _ in pairs])
            sources.append(Source(points=points, gains=np.array([gain for _, gain in pairs])))
    return [kept[index][1][at] for index, at in portfolio(cube, sources, size=size)]


def _unit(cube: Cube, start: StartPoint) -> np.ndarray:
    """A start in the cube; what it does not have stands in the middle."""
    return np.array(
        [axis.unit(start.params[axis.name]) if axis.name in start.params else 0.5 for axis in cube.axes]
    )


def _earlier(study: Study, names: set[str], *, folder: Path, url: str) -> Iterator[Earlier]:
    """Studies over the same names, each once: those of the same store, then those beside this one's folder."""
    seen = set()
    shared = "://" in study.config.store
    stored = in_store(connect.connect(url), study, but=study.config.name) if shared else iter(())
    for source in (stored, beside(folder)):
        for earlier in source:
            if earlier.searched == names and earlier.name not in seen:
                seen.add(earlier.name)
                yield earlier
