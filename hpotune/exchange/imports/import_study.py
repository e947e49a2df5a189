"""`hpotune import`: what a source is, and the study file and the table of earlier trials that it becomes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpotune.config.space.start_from import point_cell
from hpotune.config.text.outside_text import console_text, csv_text
from hpotune.config.yaml_source import Value, write_yaml
from hpotune.errors import StudyFileError, nearest
from hpotune.exchange.imports.imported_study import (
    SECTIONS,
    Direction,
    ImportedStudy,
    parsed_direction,
    read_yaml,
)
from hpotune.exchange.imports.katib_experiment import import_experiment, is_experiment
from hpotune.exchange.imports.optuna_storage import import_optuna, is_optuna
from hpotune.exchange.imports.trial_tables import import_csv, import_ray, is_ray
from hpotune.exchange.imports.wandb_sweep import import_sweep, is_sweep
from hpotune.workspace.atomic_files import write_atomic

SOURCES = ("optuna", "csv", "wandb", "ray", "katib")
TAKEN = 3
"""Best trials that the new study runs first, where it cannot learn from their values."""
LEARNING, MOST_KNOWN = ("auto", "gp", "tpe"), 500
"""As warm_start/start_point_sources.py: what learns from known results, and how many."""
KNOWN = (
    "search.start_from: known: true takes the values as results of this study; write take: 3 instead where they were "
    "measured on other data or another model"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenStudy:
    """What an import wrote."""

    origin: str
    file: Path
    trials_file: Path | None
    """The earlier trials; None where the source has none."""
    trials: int
    notes: tuple[str, ...]


def import_study(
    source: str,
    *,
    out: Path,
    kind: str | None = None,
    study: str | None = None,
    metric: str | None = None,
    direction: str | None = None,
) -> WrittenStudy:
    """Read a source and write a study file, and beside it the trials that have ended.

    Raises: StudyFileError for a source that cannot be read, or a file that exists.
    """
    trials_file = out.with_name(f"{out.stem}_trials.csv")
    for file in (out, trials_file):
        if file.exists():
            raise StudyFileError(f"{file}: exists already; choose another name with -o")
    wanted = None if direction is None else parsed_direction(direction, where="--direction")
    found = _read(source, kind or _kind(source), study=study, metric=metric, direction=wanted)
    names = _new_names(found)
    text = write_yaml(_study_values(found, names, trials_file=trials_file.name))
    if "known: true" in text:
        found = replace(found, notes=(*found.notes, KNOWN))
    header = "\n".join(
        f"# {console_text(' '.join(line.split()))}"
        for line in (f"Imported from the {found.origin}.", *(f"- {note}" for note in found.notes))
    )
    if found.trials:
        write_atomic(trials_file, trials_text(found, names))
    write_atomic(out, f"{header}\n{text}")
    return WrittenStudy(
        origin=found.origin,
        file=out,
        trials_file=trials_file if found.trials else None,
        trials=len(found.trials),
        notes=(*found.notes, *_missing(found)),
    )


def _kind(source: str) -> str:
    """What a source is.

    Raises: StudyFileError where that cannot be seen.
    """
    path = Path(source)
    if is_optuna(source):
        return "optuna"
    if not path.exists():
        raise StudyFileError(f"{source}: does not exist; needs a file, a folder or the URL of a storage")
    if is_ray(path):
        return "ray"
    if path.suffix == ".csv":
        return "csv"
    if path.suffix in (".yaml", ".yml"):
        values = read_yaml(path)
        if is_experiment(values):
            return "katib"
        if is_sweep(values):
            return "wandb"
    if path.is_file() and path.open("rb").read(1) == b"\x80":
        raise StudyFileError(
            f"{source}: is a Python pickle, which could run any program when it is read; export it as .csv, or in "
            "a storage"
        )
    raise StudyFileError(f"{source}: its format is not known; say it with --as: {', '.join(SOURCES)}")


def _read(
    source: str, kind: str, *, study: str | None, metric: str | None, direction: Direction | None
) -> ImportedStudy:
    if kind not in SOURCES:
        raise StudyFileError(f"--as {kind!r}: is no format; {nearest(kind, SOURCES)}")
    if kind == "optuna":
        return import_optuna(source, study=study)
    if study is not None:
        raise StudyFileError(f"--study: is for Optuna storages, which hold several; leave it out for {kind}")
    if kind == "csv":
        return import_csv(Path(source), metric=metric, direction=direction)
    if kind == "ray":
        return import_ray(Path(source), metric=metric, direction=direction)
    return import_sweep(Path(source)) if kind == "wandb" else import_experiment(Path(source))


def _new_names(found: ImportedStudy) -> dict[str, str]:
    """Name in the source -> dotted name in the study file: under `params`, unless all names are a study file's own."""
    own = all(name.partition(".")[0] in SECTIONS and "." in name for name in found.ranges)
    nested = {name for name in found.ranges for other in found.ranges if other.startswith(f"{name}.")}
    names: dict[str, str] = {}
    for name in found.ranges:
        inner = name.replace("{", "_").replace("}", "_")
        if any(name.startswith(f"{outer}.") for outer in nested):
            inner = inner.replace(".", "_")  # `a.b` beside `a`
        names[name] = inner if own else f"params.{inner}"
    return names


def _study_values(found: ImportedStudy, names: Mapping[str, str], *, trials_file: str) -> dict[str, Value]:
    sections = {key: value for key, value in found.sections.items() if key != "goal"}
    values: dict[str, Value] = {"name": found.name, **sections}
    for name, value in found.ranges.items():
        if isinstance(value, dict) and "when" in value:
            when = value["when"]
            assert isinstance(when, dict), "made by this package"
            value = {**value, "when": {names.get(key, key): wanted for key, wanted in when.items()}}
        _put(values, names[name], value)
    has_model = "model" in values or any(name.startswith(("lora.", "train.")) for name in names.values())
    if "params" in values and "command" not in values and not has_model:
        values["command"] = _command(found, names)
    objectives: list[Value] = [
        {
            "metric": metric,
            "direction": direction,
            **({"goal": found.sections["goal"]} if "goal" in found.sections else {}),
        }
        for metric, direction in found.objectives
    ]
    values["score"] = {"objective": objectives[0] if len(objectives) == 1 else objectives}
    values.setdefault("budget", {"trials": max(20, len(found.trials))})
    if any(trial.state == "finished" and trial.values for trial in found.trials) and _has_ranges(found):
        search = values.setdefault("search", {})
        assert isinstance(search, dict), "made by this package"
        search["start_from"] = [_start_from(found, search.get("algorithm", "auto"), trials_file)]
    return values


def _command(found: ImportedStudy, names: Mapping[str, str]) -> str:
    """A command line with every value that all trials have; the program finds the others in its environment."""
    shown = [
        names[name].removeprefix("params.")
        for name, value in found.ranges.items()
        if not (isinstance(value, dict) and "when" in value)
    ]
    return " ".join(["python objective.py", *(f"--{name} {{{name}}}" for name in shown)])


def _start_from(found: ImportedStudy, algorithm: Value, trials_file: str) -> dict[str, Value]:
    """How the new study uses the trials: as known results where it can, else its first trials repeat the best."""
    if algorithm not in LEARNING or len(found.objectives) > 1:
        return {"path": trials_file, "take": TAKEN}
    count = sum(bool(trial.values) for trial in found.trials)
    return {"path": trials_file, "known": True, **({"take": MOST_KNOWN} if count > MOST_KNOWN else {})}


def _has_ranges(found: ImportedStudy) -> bool:
    return any(
        isinstance(value, dict) and value.keys() & {"float", "int", "choice", "normal", "lognormal"}
        for value in found.ranges.values()
    )


def _put(values: dict[str, Value], name: str, value: Value) -> None:
    """Put a value at its dotted name."""
    node = values
    *outer, last = name.split(".")
    for key in outer:
        inner = node.setdefault(key, {})
        assert isinstance(inner, dict), "_new_names leaves no value inside another"
        node = inner
    node[last] = value


def _missing(found: ImportedStudy) -> tuple[str, ...]:
    """What the user has to write before the study can run."""
    if "command" in found.sections or "model" in found.sections:
        return ()
    if all(name.startswith(("lora.", "train.", "model.", "data.")) for name in found.ranges):
        return ("model, data: the source does not say them; write them before `hpotune check`",)
    return ("command: the source does not say the program; write yours instead of `python objective.py`",)


def trials_text(found: ImportedStudy, names: Mapping[str, str]) -> str:
    """The trials as a .csv file that `search.start_from` reads: best first, then those without a value."""
    searched = [
        name for name, value in found.ranges.items() if isinstance(value, dict) and not _is_fixed(value)
    ]
    values = (
        ["value"]
        if len(found.objectives) == 1
        else [f"value_{index}" for index in range(len(found.objectives))]
    )
    sign = 1.0 if found.objectives[0][1] == "minimize" else -1.0
    with_value = sorted(
        (one for one in found.trials if one.values), key=lambda one: (sign * one.values[0], one.number)
    )
    without = [one for one in found.trials if not one.values]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", *values, *(csv_text(names[name]) for name in searched)])
    for trial in (*with_value, *without):
        scores = [repr(value) for value in trial.values] or [""] * len(values)
        cells = (point_cell(trial.params[name]) if name in trial.params else "" for name in searched)
        writer.writerow([trial.number, trial.state, *scores, *cells])
    return text.getvalue()


def _is_fixed(value: Mapping[str, Value]) -> bool:
    return not value.keys() & {"float", "int", "choice", "normal", "lognormal"}
