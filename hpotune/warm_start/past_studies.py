"""What earlier studies and .csv files tell a new study: settings by dotted name, and what they reached. Reads only."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpotune.config.load import Study
from hpotune.config.space.ranges import Range, leaves, put_point
from hpotune.config.space.start_from import Point, option
from hpotune.config.yaml_source import Value, plain
from hpotune.errors import HpotuneError, nearest
from hpotune.schedule.best_trials import eligible_trials
from hpotune.search.base.history import CONSTRAINTS_KEY
from hpotune.search.base.storage_view import is_baseline
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder, folder_of

LOOKED = 100
"""Studies that are looked at for a portfolio, the latest: each costs some hundredths of a second."""
BESIDE = ("value", "values", "number")
"""Columns of a .csv that may stand beside names, and are not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """A study that was made before: its scored settings, best first."""

    name: str
    searched: frozenset[str]
    """Names that it searched."""
    points: tuple[Point, ...]
    """Every value of each setting by dotted name, tied and fixed ones too."""
    values: tuple[float, ...]
    """Of the first objective."""
    gains: tuple[float, ...]
    """The same, larger is better."""


def of_folder(path: Path) -> Earlier:
    """The study of a folder, or of a study file with its folder beside it.

    Raises: HpotuneError where there is none, or its store cannot be read.
    """
    folder = folder_of(path) if path.suffix in (".yaml", ".yml") else StudyFolder(path=path)
    study = folder.load()
    rows = rows_of(folder.provenance().store, study)
    sign = 1.0 if study.config.score.objective[0].sense == "maximize" else -1.0
    told = sorted(eligible_trials(rows), key=lambda row: (-sign * row.values[0], row.number))
    return Earlier(
        name=study.config.name,
        searched=frozenset(r.name for r in study.space.searched),
        points=tuple(_whole(study, dict(row.params)) for row in told),
        values=tuple(row.values[0] for row in told),
        gains=tuple(sign * row.values[0] for row in told),
    )


def _whole(study: Study, params: Point) -> Point:
    try:
        return dict(leaves(put_point(study.template, study.space, params)))
    except ValueError:  # an expression that has no value there
        return params


def in_store(storage: BaseStorage, study: Study, *, but: str) -> Iterator[Earlier]:
    """Other studies of the same storage over the same names, the latest first; `but`: the name of the new one."""
    ranges = {r.name: r for r in study.space.searched}
    for found in sorted(storage.get_all_studies(), key=lambda one: -one._study_id)[:LOOKED]:
        if found.study_name == but or not found.directions:
            continue
        trials = [
            trial for trial in storage.get_all_trials(found._study_id, deepcopy=False) if _scored(trial)
        ]
        if {name for trial in trials for name in trial.params} == ranges.keys():
            yield _of_trials(found.study_name, trials, found.directions[0], ranges)


def _scored(trial: FrozenTrial) -> bool:
    done = trial.state == TrialState.COMPLETE and bool(trial.params) and not is_baseline(trial)
    return done and not any(excess > 0 for excess in trial.system_attrs.get(CONSTRAINTS_KEY) or ())


def _of_trials(
    name: str, trials: list[FrozenTrial], direction: StudyDirection, ranges: dict[str, Range]
) -> Earlier:
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    order = sorted(trials, key=lambda trial: (-sign * trial.values[0], trial.number))
    return Earlier(
        name=name,
        searched=frozenset(ranges),
        points=tuple({key: _option(ranges[key], value) for key, value in t.params.items()} for t in order),
        values=tuple(trial.values[0] for trial in order),
        gains=tuple(sign * trial.values[0] for trial in order),
    )


def _option(r: Range, label: Value) -> Value:
    """The choice that a label of Optuna's stands for, where the range has it."""
    return r.options[r.labels.index(label)] if r.kind == "choice" and label in r.labels else label


def of_csv(path: Path, study: Study) -> tuple[list[tuple[int, Point]], list[str]]:
    """Line and point of each row of a .csv file, and what is wrong with the file and its cells, one line each."""
    ranges = {r.name: r for r in study.space.searched}
    try:
        with path.open(
            encoding="utf-8-sig", newline=""
        ) as lines:  # spreadsheets put a mark before the first name
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [f"{path.name}: cannot be read as .csv ({getattr(error, 'strerror', None) or error})"]
    if told := [*_header(path, header, ranges)]:
        return [], told
    found, wrong = [], []
    for line, row in rows:
        if len(row) != len(header):
            has = f"has {len(row)} cell{'s' * (len(row) > 1)}"
            wrong.append(f"{path.name}:{line}: {has}; its first line names {len(header)}: needs as many")
            continue
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        point = {name: _cell(ranges[name], cell) for name, cell in cells.items() if name in ranges and cell}
        found.append((line, point))
    return found, wrong


def column_of(path: Path, name: str) -> int:
    """The column of a name, from 1; of a file that was read before."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        header = [cell.strip() for cell in next(csv.reader(lines), [])]
    return header.index(name) + 1 if name in header else 1


def _header(path: Path, header: list[str], ranges: dict[str, Range]) -> Iterator[str]:
    for number, name in enumerate(header, start=1):
        if header.index(name) + 1 < number:
            yield f"{path.name}:1, column {number}: {name!r} stands twice; remove one"
        elif name not in ranges and name not in BESIDE:
            yield f"{path.name}:1, column {number}: {name!r} is no range of the study; {nearest(name, ranges)}"
    if not ranges.keys() & set(header):
        yield f"{path.name}:1: names no range of the study; its first line needs some of {', '.join(ranges)}"


def _cell(r: Range, text: str) -> Value:
    """A cell as the study file would read it; a list as JSON."""
    value = plain(text)
    if r.kind != "choice" or option(r, value) is not None:
        return value
    try:
        found: Value = json.loads(text)
    except ValueError:
        return value
    return found if option(r, found) is not None else value


def beside(folder: Path) -> Iterator[Earlier]:
    """The studies in the folders next to this one, the latest first; those that cannot be read are left out."""
    try:
        near = [
            path for path in folder.parent.iterdir() if path != folder and (path / "resolved.yaml").is_file()
        ]
        near.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return
    for path in near[:LOOKED]:
        try:
            yield of_folder(path)
        except (HpotuneError, OSError, ValueError):
            continue
