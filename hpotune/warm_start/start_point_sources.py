"""The start points of a new study, from its study file, past studies and .csv files. Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from os.path import relpath
from pathlib import Path

import numpy as np

from hpotune.config.load import Study
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
from hpotune.warm_start.past_studies import (
    PastStudy,
    column_of,
    csv_values,
    read_csv_points,
    read_study,
    sibling_studies,
    studies_in_store,
)
from hpotune.warm_start.portfolio import MIN_TRIALS, SIZE, Source, portfolio

LEARNING = ("auto", "gp", "tpe")
"""Algorithms that learn from any point with a value; others propose by a plan of their own."""
MOST_KNOWN = 500
"""Known results, which every worker reads with each trial."""
NAMED = 3
"""Past studies that a note names."""
SOURCES = 20
"""Past studies that a portfolio uses, the latest first."""


def start_points(study: Study, *, home: Path, found: Mistakes) -> tuple[list[StartPoint], list[str]]:
    """The points of `search.start_from`, and a note for each point of a past study that had to be changed.

    `study` has absolute paths; `home` is the folder of the study file. An error is added to `found` for each source
    without points and each value that is not in the study's ranges.
    """
    starts: list[StartPoint] = []
    notes: list[str] = []
    for item in items(study.template):
        if not item.path:
            starts.append(StartPoint(params=encode_point(study, item.point), origin="from the file"))
        elif item.known:
            starts += _known_from_csv(study, item, home, found)
        elif Path(item.path).suffix == ".csv":
            starts += _from_csv(study, item, home, found)
        else:
            from_study, item_notes = _from_study(study, item, home, found)
            starts += from_study
            notes += item_notes
    return distinct_start_points(starts), notes


def all_start_points(
    study: Study, starts: Sequence[StartPoint], *, folder: Path, url: str
) -> list[StartPoint]:
    """The given start points, then the portfolio from past studies, then the recommended points."""
    return distinct_start_points(
        [*starts, *_portfolio(study, folder=folder, url=url), *recommended_start_points(study, study.config)]
    )


def unused_studies_note(study: Study, *, folder: Path) -> Iterator[str]:
    """A note if sibling folders hold studies over the same names and the file takes no start points from any."""
    search, names = study.config.search, {r.name for r in study.space.searched}
    if search.portfolio != 0 or search.start_from or not names:
        return
    past = (one for one in sibling_studies(folder, searched=names) if len(one.points) >= MIN_TRIALS)
    if found := [*islice(past, NAMED)]:
        yield (
            f"earlier studies over the same parameters: {', '.join(one.name for one in found)}; "
            f"`search.portfolio: {SIZE}` begins with settings that were good there (docs/space.md)"
        )


def exhausted_budget_warning(study: Study, starts: Sequence[StartPoint]) -> Iterator[str]:
    """A warning if there are as many start points as trials, so that the algorithm proposes none."""
    own = study.config.budget.trials - study.config.has_baseline
    starts = [start for start in starts if not start.known]
    if starts and len(starts) >= own:
        location = study.source.location(("search", "start_from"))
        yield (
            f"{location}: search.start_from gives {len(starts)} points for {own} trials, so that the algorithm "
            "proposes no point; raise budget.trials, or take fewer points"
        )


def _shown(path: str, home: Path) -> str:
    """A path as in the study file: relative to its folder if that is shorter."""
    relative = relpath(path, home)
    return relative if len(relative) < len(path) else path


def _from_csv(study: Study, item: Item, home: Path, found: Mistakes) -> list[StartPoint]:
    path, shown = Path(item.path), _shown(item.path, home)
    if not path.is_file():
        found[item.where] = (
            f"search.start_from: {shown!r} does not exist; paths are relative to the study file"
        )
        return []
    rows, wrong = read_csv_points(path, study)
    for index, text in enumerate(wrong):
        found.setdefault((*item.where, index), f"search.start_from: {text}")
    if not rows and not wrong:
        found.setdefault(item.where, f"search.start_from: {shown!r} has no row below its header")
    starts = []
    for line, point in rows[: item.take]:
        for name, text in faults(point, study.space).items():
            location = f"{path.name}:{line}" + (f", column {column_of(path, name)}" if name else "")
            found.setdefault((*item.where, line, name), f"search.start_from: {location}: {text}")
        if not faults(point, study.space):
            starts.append(StartPoint(params=encode_point(study, point), origin=f"from {shown}"))
    return starts


def _known_from_csv(study: Study, item: Item, home: Path, found: Mistakes) -> list[StartPoint]:
    """The rows with a value as known results; incomplete rows, and those outside the ranges, are left out."""
    search, shown = study.config.search, _shown(item.path, home)
    if search.algorithm not in LEARNING or search.pruner != "none" or len(study.config.score.objective) > 1:
        found[item.where] = (
            f"search.start_from: known: true needs one of the algorithms {', '.join(LEARNING)}, no pruner, "
            "and one objective"
        )
        return []
    if not Path(item.path).is_file():
        found[item.where] = (
            f"search.start_from: {shown!r} does not exist; paths are relative to the study file"
        )
        return []
    rows, wrong = read_csv_points(Path(item.path), study)
    for index, text in enumerate(wrong):
        found.setdefault((*item.where, index), f"search.start_from: {text}")
    values = {} if wrong else csv_values(Path(item.path))
    needed = {r.name for r in study.space.searched if not r.when}
    kept = [
        StartPoint(
            params=encode_point(study, point), origin=f"known from {shown}", value=values[line], known=True
        )
        for line, point in rows
        if line in values and needed <= point.keys() and not faults(point, study.space)
    ][: item.take]
    if not wrong and not kept:
        found.setdefault(
            item.where, f"search.start_from: {shown!r} has no row with a `value` inside the ranges"
        )
    if len(kept) > MOST_KNOWN:
        found.setdefault(
            item.where,
            f"search.start_from: {shown!r} has {len(kept)} known results; add take: {MOST_KNOWN} or less",
        )
    return kept


def _from_study(study: Study, item: Item, home: Path, found: Mistakes) -> tuple[list[StartPoint], list[str]]:
    shown = _shown(item.path, home)
    errors = list(_source_mistakes(study, item, shown))
    if errors:
        found.update(errors)
        return [], []
    past, take = read_study(Path(item.path)), item.take or BEST
    starts: list[StartPoint] = []
    notes, left_out = [], 0
    for point, value in zip(past.points, past.values, strict=True):
        start, moved_names = _converted(study, point, origin=f"from {shown}", value=value)
        left_out += start is None
        if start is not None and start not in starts:
            starts.append(start)
            if moved_names:
                names = ", ".join(moved_names)
                notes.append(
                    f"{shown}: the point with value {value:.4g} is outside this study's ranges and was moved to the "
                    f"nearest values (a missing choice is drawn at random): {names}"
                )
        if len(starts) == take:
            break
    if left_out:
        notes.append(
            f"{shown}: {left_out} of its best points are not possible in this study and are left out"
        )
    return starts, notes


def _source_mistakes(study: Study, item: Item, shown: str) -> Iterator[Mistake]:
    """The error of a past study from which no start points can be taken."""
    names = [r.name for r in study.space.searched]
    try:
        past = read_study(Path(item.path))
    except (HpotuneError, OSError) as error:
        reason = str(error).splitlines()[0]
        yield item.where, f"search.start_from: {shown!r} is neither a study nor a .csv file ({reason})"
        return
    if not past.points:
        yield item.where, f"search.start_from: {shown!r} has no scored trial that satisfies its constraints"
    elif not set(names) & {name for point in past.points for name in point}:
        yield (
            item.where,
            f"search.start_from: {shown!r} has no range in common with this study; it has "
            f"{', '.join(sorted(past.searched))}, and this study has {', '.join(names)}",
        )


def _converted(
    study: Study, point: Point, *, origin: str, value: float
) -> tuple[StartPoint | None, list[str]]:
    """A point of a past study as a start point of this study, and the names whose values were changed.

    None if no name is a range of this study, or if the point violates a constraint.
    """
    inside, changed = point_within_ranges(study, point)
    params = encode_point(study, inside)
    if not params or not is_feasible(study.space, params):
        return None, changed
    return StartPoint(params=params, origin=origin, value=value), changed


def _portfolio(study: Study, *, folder: Path, url: str) -> list[StartPoint]:
    """Start points chosen from past studies over the same names; empty if there are no such studies."""
    wanted = study.config.search.portfolio
    size = SIZE if wanted == "auto" else wanted
    names = {r.name for r in study.space.searched}
    if not size or not names:
        return []
    cube = Cube(
        {r.name: distribution(r) for r in study.space.searched},
        {r.name: Hint(ordered=r.ordered, normal=r.measure) for r in study.space.searched},
    )
    kept: list[tuple[PastStudy, list[StartPoint]]] = []
    sources: list[Source] = []
    for past in islice(_past_studies(study, names, folder=folder, url=url), SOURCES):
        origin = f"of the portfolio from {past.name}"
        pairs = [
            (start, gain)
            for point, value, gain in zip(past.points, past.values, past.gains, strict=True)
            if (start := _converted(study, point, origin=origin, value=value)[0])
        ]
        if len(pairs) >= MIN_TRIALS:
            kept.append((past, [start for start, _ in pairs]))
            points = np.array([_unit(cube, start) for start, _ in pairs])
            sources.append(Source(points=points, gains=np.array([gain for _, gain in pairs])))
    return [kept[index][1][at] for index, at in portfolio(cube, sources, size=size)]


def _unit(cube: Cube, start: StartPoint) -> np.ndarray:
    """A start point in the unit cube; missing names are at 0.5."""
    return np.array(
        [axis.unit(start.params[axis.name]) if axis.name in start.params else 0.5 for axis in cube.axes]
    )


def _past_studies(study: Study, names: set[str], *, folder: Path, url: str) -> Iterator[PastStudy]:
    """Past studies over the same names, each once: those of the same store, then those in sibling folders."""
    seen = set()
    shared = "://" in study.config.store
    stored = studies_in_store(connect.connect(url), study, but=study.config.name) if shared else iter(())
    for source in (stored, sibling_studies(folder, searched=names)):
        for past in source:
            if past.name not in seen:
                seen.add(past.name)
                yield past
