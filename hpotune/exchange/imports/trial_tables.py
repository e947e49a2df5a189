"""Trials without a space: a CSV file, or a results folder of Ray Tune. The ranges are guessed from the values. Pure.

Of Ray's folder params.json and result.json of each trial are read; params.pkl, tuner.pkl and the experiment's state
hold pickles and are never opened. Source: https://docs.ray.io/en/latest/tune, ray/tune/logger/json.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hpotune.config.text.outside_text import read_csv_text
from hpotune.config.yaml_source import Value, plain
from hpotune.errors import StudyFileError, nearest
from hpotune.exchange.imports.imported_study import (
    LARGEST,
    MOST_TRIALS,
    Direction,
    ImportedStudy,
    ImportedTrial,
    State,
    finite,
    guessed_range,
    read_text,
    study_name,
)

NOT_PARAMETERS = (
    "number",
    "state",
    "trial",
    "trial_id",
    "id",
    "datetime_start",
    "datetime_complete",
    "duration",
)
"""Columns of a CSV file that are neither parameters nor values, as Optuna's trials_dataframe() writes them too."""
_STATES: dict[str, State] = {
    "": "finished", "finished": "finished", "complete": "finished", "completed": "finished", "terminated": "finished",
    "pruned": "pruned", "stopped": "pruned", "fail": "failed", "failed": "failed", "error": "failed",
}  # fmt: skip
_OF_RAY = re.compile(
    r"(time_|timestamp|training_iteration|iterations_since|trial_id|date$|pid$|node_ip|hostname|config|done$|experiment_|"
    r"checkpoint_dir_name|warmup_time)"
)
"""Starts of the keys that Ray adds to each result."""


def import_csv(path: Path, *, metric: str | None, direction: Direction | None) -> ImportedStudy:
    """The rows of a CSV file as trials: a column for each parameter, and one for the value.

    Raises: StudyFileError where it is not known which column is the value, or in which direction it is better.
    """
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True, restkey="", restval="")
        table.fieldnames = [read_csv_text(name) for name in table.fieldnames or ()]
        rows = list(table)
    except csv.Error as error:
        raise StudyFileError(f"{path}: cannot be read as .csv ({error})") from None
    if not rows:
        raise StudyFileError(f"{path}: has no row below its header")
    columns = [name for name in rows[0] if name]
    if "" in rows[0] or len(set(columns)) < len(columns):
        raise StudyFileError(f"{path}: its rows have more cells than its header; correct it")
    value = _value_column(path, columns, metric)
    left_out = [
        name
        for name in columns
        if name.lower() in NOT_PARAMETERS or name.startswith(("user_attrs_", "system_attrs_"))
    ]
    names = [name for name in columns if name != value and name not in left_out]
    trials = []
    for index, row in enumerate(rows[:MOST_TRIALS]):
        params = {name.removeprefix("params_"): _cell(row[name]) for name in names if row[name].strip()}
        score = finite(_cell(row[value]))
        state = _state(row.get("state") or "", where=f"{path}:{index + 2}")
        trials.append(_trial(index, state, params, score))
    notes = [f"{len(rows) - MOST_TRIALS} rows are left out"] if len(rows) > MOST_TRIALS else []
    return _guessed(
        trials,
        name=path.stem,
        origin=f"the rows of {path.name}",
        metric=value,
        direction=direction,
        notes=notes,
        source=str(path),
    )


def _value_column(path: Path, columns: Sequence[str], metric: str | None) -> str:
    if metric is not None:
        if metric not in columns:
            raise StudyFileError(f"{path}: has no column {metric!r}; {nearest(metric, columns)}")
        return metric
    if "value" in columns:
        return "value"
    raise StudyFileError(
        f"{path}: has no column `value`; name the column with --metric: {', '.join(columns)}"
    )


def _cell(text: str) -> Value:
    """The value of a cell: a scalar as YAML reads it, or JSON."""
    text = text.strip()
    if text[:1] in '[{"':
        try:
            found: Value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return found
    return plain(text)


def _state(text: str, *, where: str) -> State:
    word = text.strip().lower()
    if word not in _STATES:
        raise StudyFileError(f"{where}: state {text!r} is unknown; needs finished, pruned or failed")
    return _STATES[word]


def _trial(number: int, state: State, params: Mapping[str, Value], score: float | None) -> ImportedTrial:
    """A trial; one without a number as its value has failed."""
    if state == "finished" and score is None:
        state = "failed"
    return ImportedTrial(
        number=number,
        state=state,
        params=params,
        values=(score,) if state == "finished" and score is not None else (),
    )


def is_ray(path: Path) -> bool:
    """Whether a folder holds results of Ray Tune."""
    return path.is_dir() and next(path.glob("*/params.json"), None) is not None


def import_ray(path: Path, *, metric: str | None, direction: Direction | None) -> ImportedStudy:
    """The trials of a results folder, each with its last result.

    Raises: StudyFileError where it is not known which number is the value, or a file is no JSON.
    """
    folders = sorted(file.parent for file in path.glob("*/params.json"))
    results = {folder: _last_result(folder / "result.json") for folder in folders}
    numbers = sorted({name for one in results.values() for name in _own_numbers(one)})
    if metric is None:
        if len(numbers) != 1:
            raise StudyFileError(
                f"{path}: has several numbers; name one with --metric: {', '.join(numbers) or 'none found'}"
            )
        metric = numbers[0]
    elif metric not in numbers:
        raise StudyFileError(f"{path}: has no number {metric!r}; {nearest(metric, numbers)}")
    trials = []
    for number, folder in enumerate(folders[:MOST_TRIALS]):
        failed = (folder / "error.txt").exists() or (folder / "error.pkl").exists()
        params = dict(_flat(_json(folder / "params.json", read_text(folder / "params.json"))))
        trials.append(
            _trial(number, "failed" if failed else "finished", params, finite(results[folder].get(metric)))
        )
    notes = ["params.pkl, tuner.pkl and the experiment's state are pickles, and were not opened"]
    return _guessed(
        trials,
        name=path.name,
        origin=f"Ray Tune results {path.name}",
        metric=metric,
        direction=direction,
        notes=notes,
        source=str(path),
    )


def _last_result(file: Path) -> Mapping[str, Value]:
    """The last line of a trial's results; empty where it gave none."""
    if not file.is_file() or file.stat().st_size == 0:
        return {}
    if file.stat().st_size > LARGEST:
        with file.open("rb") as stream:
            stream.seek(-LARGEST // 8, 2)
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    else:
        lines = read_text(file).splitlines()
    return dict(_flat(_json(file, next((line for line in reversed(lines) if line.strip()), "{}"))))


def _json(file: Path, text: str) -> Mapping[str, Value]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyFileError(f"{file}: is no JSON ({str(error)[:100]})") from None
    if not isinstance(found, dict):
        raise StudyFileError(f"{file}: holds no JSON object")
    return found


def _flat(values: Mapping[str, Value], prefix: str = "") -> Iterator[tuple[str, Value]]:
    """Every value by its dotted name."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _own_numbers(result: Mapping[str, Value]) -> Iterable[str]:
    return (name for name, value in result.items() if finite(value) is not None and not _OF_RAY.match(name))


def _guessed(
    trials: Sequence[ImportedTrial],
    *,
    name: str,
    origin: str,
    metric: str,
    direction: Direction | None,
    notes: list[str],
    source: str,
) -> ImportedStudy:
    """A study whose ranges are those of its trials' values."""
    from hpotune.config.metrics import known_sense

    if direction is None:
        sense = known_sense(metric)
        if sense is None:
            raise StudyFileError(
                f"{source}: it is not known whether a higher {metric} is better; add --direction"
            )
        direction = "maximize" if sense == "maximize" else "minimize"
    names = dict.fromkeys(key for trial in trials for key in trial.params)
    if not names:
        raise StudyFileError(f"{source}: has no parameter")
    ranges = {
        key: guessed_range(trial.params[key] for trial in trials if key in trial.params) for key in names
    }
    notes = [
        *notes,
        "the source does not say the space: each range is that of the trials' values; widen it where it is too narrow",
    ]
    return ImportedStudy(
        name=study_name(name),
        origin=origin,
        ranges=ranges,
        objectives=((metric, direction),),
        trials=tuple(trials),
        notes=tuple(notes),
    )
