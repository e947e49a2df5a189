"""Points and scores of past studies and of .csv files, for the start points of a new study. Only reads."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.config.space.ranges import Range, leaves, put_point
from hpotune.config.space.start_from import Point, option
from hpotune.config.text.outside_text import read_csv_text
from hpotune.config.text_files import read_file
from hpotune.config.yaml_source import Value, plain
from hpotune.errors import HpotuneError, nearest
from hpotune.schedule.best_trials import eligible_trials
from hpotune.search.base.history import CONSTRAINTS_KEY
from hpotune.search.base.storage_view import is_baseline
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder, folder_of, open_folder

MAX_STUDIES = 100
"""Studies that are read for a portfolio, the latest first; reading one takes some hundredths of a second."""
LARGEST_POINTS = 2**20
"""Bytes of a .csv file of points."""
IGNORED_COLUMNS = ("value", "values", "number", "state", *(f"value_{index}" for index in range(10)))
"""Columns of a .csv file that are allowed and not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastStudy:
    """A past study: its scored points, best first."""

    name: str
    searched: frozenset[str]
    """Dotted names of its ranges."""
    points: tuple[Point, ...]
    """All values of each point by dotted name, including expressions and fixed values."""
    values: tuple[float, ...]
    """Values of the first objective."""
    gains: tuple[float, ...]
    """The same values with the sign such that larger is better."""


def read_study(path: Path) -> PastStudy:
    """The study of a study folder, or of a study file.

    Raises: HpotuneError if there is no study, or its store cannot be read.
    """
    opened = folder_of if path.suffix in (".yaml", ".yml") else open_folder
    folder = opened(path, own=False)
    return _scored_points(folder, folder.load())


def _scored_points(folder: StudyFolder, study: Study) -> PastStudy:
    """The study with its points, which its store is read for."""
    rows = rows_of(folder.provenance().store, study)
    sign = 1.0 if study.config.score.objective[0].sense == "maximize" else -1.0
    best_first = sorted(eligible_trials(rows), key=lambda row: (-sign * row.values[0], row.number))
    return PastStudy(
        name=study.config.name,
        searched=frozenset(r.name for r in study.space.searched),
        points=tuple(_all_values(study, dict(row.params)) for row in best_first),
        values=tuple(row.values[0] for row in best_first),
        gains=tuple(sign * row.values[0] for row in best_first),
    )


def _all_values(study: Study, params: Point) -> Point:
    try:
        return dict(leaves(put_point(study.template, study.space, params)))
    except ValueError:  # an expression has no value at this point
        return params


def studies_in_store(storage: BaseStorage, study: Study, *, but: str) -> Iterator[PastStudy]:
    """Other studies of the same storage over the same names, the latest first; `but`: the new study's name."""
    ranges = {r.name: r for r in study.space.searched}
    for found in sorted(storage.get_all_studies(), key=lambda one: -one._study_id)[:MAX_STUDIES]:
        if found.study_name == but or not found.directions:
            continue
        trials = [
            trial for trial in storage.get_all_trials(found._study_id, deepcopy=False) if _scored(trial)
        ]
        if {name for trial in trials for name in trial.params} == ranges.keys():
            yield _of_trials(found.study_name, trials, found.directions[0], ranges)


def _scored(trial: FrozenTrial) -> bool:
    finished = trial.state == TrialState.COMPLETE and bool(trial.params) and not is_baseline(trial)
    if "race" in trial.user_attrs:  # its score is an estimate
        return False
    return finished and not any(excess > 0 for excess in trial.system_attrs.get(CONSTRAINTS_KEY) or ())


def _of_trials(
    name: str, trials: list[FrozenTrial], direction: StudyDirection, ranges: dict[str, Range]
) -> PastStudy:
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    order = sorted(trials, key=lambda trial: (-sign * trial.values[0], trial.number))
    return PastStudy(
        name=name,
        searched=frozenset(ranges),
        points=tuple({key: _option(ranges[key], value) for key, value in t.params.items()} for t in order),
        values=tuple(trial.values[0] for trial in order),
        gains=tuple(sign * trial.values[0] for trial in order),
    )


def _option(r: Range, label: Value) -> Value:
    """The option of a label that Optuna stores, if the range has it; else the label."""
    return r.options[r.labels.index(label)] if r.kind == "choice" and label in r.labels else label


def read_csv_points(path: Path, study: Study) -> tuple[list[tuple[int, Point]], list[str]]:
    """Line number and point of each row of a .csv file, and the errors of the file, one line each."""
    ranges = {r.name: r for r in study.space.searched}
    try:
        # spreadsheets write a byte order mark
        text = read_file(path, largest=LARGEST_POINTS).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [read_csv_text(name.strip()) for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [f"{path.name}: cannot be read as .csv ({getattr(error, 'strerror', None) or error})"]
    if errors := [*_header_errors(path, header, ranges)]:
        return [], errors
    found, wrong = [], []
    for line, row in rows:
        if len(row) != len(header):
            cells_text = f"{len(row)} cell{'s' * (len(row) > 1)}"
            wrong.append(
                f"{path.name}:{line}: has {cells_text}, and the header {len(header)}; needs equal numbers"
            )
            continue
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        point = {name: _cell(ranges[name], cell) for name, cell in cells.items() if name in ranges and cell}
        found.append((line, point))
    return found, wrong


def csv_values(path: Path) -> dict[int, float]:
    """Line number -> the finite number in the column `value`; rows whose state is not finished are left out."""
    text = read_file(path, largest=LARGEST_POINTS).decode("utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    found = {}
    for row in reader:
        value = plain((row.get("value") or "").strip())
        finished = (row.get("state") or "finished").strip().lower() in ("finished", "complete")
        if (
            finished
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
        ):
            found[reader.line_num] = float(value)
    return found


def column_of(path: Path, name: str) -> int:
    """The column of a name, counted from 1; 1 if the header does not have it."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        header = [read_csv_text(cell.strip()) for cell in next(csv.reader(lines), [])]
    return header.index(name) + 1 if name in header else 1


def _header_errors(path: Path, header: list[str], ranges: dict[str, Range]) -> Iterator[str]:
    for number, name in enumerate(header, start=1):
        if header.index(name) + 1 < number:
            yield f"{path.name}:1, column {number}: {name!r} is given twice; remove one"
        elif name not in ranges and name not in IGNORED_COLUMNS:
            yield f"{path.name}:1, column {number}: {name!r} is not a range of the study; {nearest(name, ranges)}"
    if not ranges.keys() & set(header):
        yield f"{path.name}:1: has no range of the study in its header; needs some of {', '.join(ranges)}"


def _cell(r: Range, text: str) -> Value:
    """The value of a cell, parsed as in the study file; lists, and text that a spreadsheet would compute, as JSON."""
    read = read_csv_text(text)
    if read != text and option(r, read) is not None:
        return read
    value = plain(text)
    if r.kind != "choice" or option(r, value) is not None:
        return value
    try:
        found: Value = json.loads(text)
    except (ValueError, RecursionError):
        return value
    return found if option(r, found) is not None else value


def sibling_studies(folder: Path, *, searched: Set[str] | None = None) -> Iterator[PastStudy]:
    """The studies in sibling folders, the latest first; unreadable studies are omitted.

    `searched`: those over exactly these names; the stores of others are not read.
    """
    try:
        siblings = [
            path for path in folder.parent.iterdir() if path != folder and (path / "resolved.yaml").is_file()
        ]
        siblings.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return
    for path in siblings[:MAX_STUDIES]:
        try:
            sibling = open_folder(path, own=False)
            study = sibling.load()
            if searched is None or searched == {r.name for r in study.space.searched}:
                yield _scored_points(sibling, study)
        except (HpotuneError, OSError, ValueError):
            continue
