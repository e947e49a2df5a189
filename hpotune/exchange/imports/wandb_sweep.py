"""A Weights & Biases sweep configuration. Pure.

Source: https://docs.wandb.ai/guides/sweeps/sweep-config-keys and wandb's sweeps/config/schema.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.exchange.imports.imported_study import (
    Direction,
    ImportedStudy,
    choice_range,
    finite,
    number_range,
    parsed_direction,
    read_yaml,
    study_name,
)

_METHODS = {"grid": "grid", "random": "random", "bayes": "auto"}
_DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")


def is_sweep(values: Mapping[str, Value]) -> bool:
    """Whether a YAML file is a sweep."""
    return "parameters" in values and "method" in values


def import_sweep(path: Path) -> ImportedStudy:
    """The sweep of a file.

    Raises: StudyFileError for a file that is no sweep.
    """
    values = read_yaml(path)
    parameters = values.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise StudyFileError(
            f"{path}: parameters: needs a mapping of names; this is no sweep of Weights & Biases"
        )
    notes: list[str] = []
    ranges = dict(_ranges(parameters, notes, prefix="", where=str(path)))
    metric, direction = _metric(values.get("metric"), notes, where=str(path))
    sections: dict[str, Value] = {}
    method = values.get("method")
    if method not in _METHODS:
        notes.append(f"method: {method!r} is no search of hpotune; `auto` is written")
    sections["search"] = {"algorithm": _METHODS.get(str(method), "auto")}
    command = _command(values, list(ranges), notes)
    if command is not None:
        sections["command"] = command
    if isinstance(cap := values.get("run_cap"), int) and cap > 0:
        sections["budget"] = {"trials": cap}
    if "early_terminate" in values:
        notes.append(
            "early_terminate: is not taken over; write search.pruner and search.rungs (docs/rungs.md)"
        )
    known = {
        "parameters",
        "method",
        "metric",
        "program",
        "command",
        "run_cap",
        "name",
        "early_terminate",
        "description",
    }
    notes += [f"{key}: is not taken over" for key in values if key not in known]
    return ImportedStudy(
        name=study_name(str(values.get("name") or path.stem)),
        origin=f"Weights & Biases sweep {path.name}",
        ranges=ranges,
        objectives=((metric, direction),),
        sections=sections,
        notes=tuple(notes),
    )


def _metric(found: Value, notes: list[str], *, where: str) -> tuple[str, Direction]:
    if not isinstance(found, dict) or not found.get("name"):
        notes.append("metric: is missing; `value`, to be minimized, is written")
        return "value", "minimize"
    return str(found["name"]), parsed_direction(found.get("goal", "minimize"), where=f"{where}: metric.goal")


def _command(values: Mapping[str, Value], names: list[str], notes: list[str]) -> str | None:
    """The command line of a run; None where the sweep names no program."""
    program, parts = values.get("program"), values.get("command", list(_DEFAULT_COMMAND))
    if program is None or not isinstance(parts, list):
        return None
    words: list[str] = []
    for part in map(str, parts):
        if part in ("${args}", "${args_no_boolean_flags}"):
            words += [f"--{name}={{{name}}}" for name in names]
        elif part == "${args_no_hyphens}":
            words += [f"{name}={{{name}}}" for name in names]
        elif part in ("${interpreter}", "${program}", "${env}"):
            words += {"${interpreter}": ["python"], "${program}": [str(program)]}.get(part, [])
        elif part.startswith("${"):
            notes.append(f"command: {part} is not taken over")
        else:
            words.append(part.replace("{", "{{").replace("}", "}}"))
    notes.append(
        "command: the program needs to print its metric as the last line, in JSON (docs/own_code.md)"
    )
    return " ".join(words)


def _ranges(
    parameters: Mapping[str, Value], notes: list[str], *, prefix: str, where: str
) -> Iterator[tuple[str, Value]]:
    for key, given in parameters.items():
        name = f"{prefix}{key}"
        if isinstance(given, dict) and isinstance(given.get("parameters"), dict):
            inner = given["parameters"]
            assert isinstance(inner, dict), "as just seen"
            yield from _ranges(inner, notes, prefix=f"{name}.", where=where)
        elif isinstance(given, dict):
            yield name, _range(given, name, notes, where=where)
        else:
            raise StudyFileError(
                f"{where}: parameters.{name}: {given!r} needs a mapping, such as {{value: 1}}"
            )


def _range(given: Mapping[str, Value], name: str, notes: list[str], *, where: str) -> Value:
    """The range of one parameter."""
    if "value" in given:
        return given["value"]
    values = given.get("values")
    if isinstance(values, list) and values:
        if "probabilities" in given:
            notes.append(f"{name}: probabilities are not taken over; its values are drawn alike")
        return choice_range(values)
    kind = str(given.get("distribution", ""))
    low, high = finite(given.get("min")), finite(given.get("max"))
    if kind in ("normal", "q_normal", "log_normal", "q_log_normal", "inv_log_uniform", "beta", "q_beta"):
        return _bell(given, kind, name, notes, where=where)
    if low is None or high is None:
        raise StudyFileError(
            f"{where}: parameters.{name}: needs value, values, or min and max as finite numbers"
        )
    whole = isinstance(given.get("min"), int) and isinstance(given.get("max"), int)
    step = finite(given.get("q")) if kind.startswith("q_") else None
    if kind in ("log_uniform", "q_log_uniform"):
        low, high = math.exp(low), math.exp(high)
    log = kind in ("log_uniform", "log_uniform_values", "q_log_uniform", "q_log_uniform_values")
    if log and step is not None:
        notes.append(f"{name}: q={step:g} is not taken over, since a logarithmic range has no step")
        step = None
    integer = (
        kind == "int_uniform"
        or (not kind and whole)
        or (kind == "q_uniform" and whole and step is not None and step == int(step))
    )
    return number_range("int" if integer else "float", low, high, log=log, step=step)


def _bell(given: Mapping[str, Value], kind: str, name: str, notes: list[str], *, where: str) -> Value:
    mean, sd = finite(given.get("mu", 0.0)), finite(given.get("sigma", 1.0))
    if kind in ("inv_log_uniform", "beta", "q_beta") or mean is None or sd is None:
        raise StudyFileError(
            f"{where}: parameters.{name}: distribution {kind} has no counterpart; write min and max, or values"
        )
    if kind.startswith("q_"):
        notes.append(f"{name}: q is not taken over")
    return {"lognormal" if "log" in kind else "normal": [mean, sd]}
