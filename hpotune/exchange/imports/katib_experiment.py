"""A Katib Experiment (kubeflow.org/v1beta1), also as the `tune()` call for language models writes it. Pure.

Source: https://www.kubeflow.org/docs/components/katib, pkg/apis/controller/experiments/v1beta1/experiment_types.go;
kubeflow/katib, sdk/python: katib_client.tune.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from hpotune.config.library_keys import check_lora_key, check_train_key
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.exchange.imports.imported_study import (
    ImportedStudy,
    ImportedTrial,
    choice_range,
    finite,
    number_range,
    parsed_direction,
    read_yaml,
    study_name,
)
from hpotune.exchange.imports.katib_settings import PARALLEL, katib_search, katib_stopping, max_failed

_REFERENCE = re.compile(r"\$\{trialParameters\.([\w.-]+)\}")


def is_experiment(values: Mapping[str, Value]) -> bool:
    """Whether a YAML file is an Experiment of Katib."""
    return values.get("kind") == "Experiment" and "kubeflow.org" in str(values.get("apiVersion", ""))


def import_experiment(path: Path) -> ImportedStudy:
    """The experiment of a file.

    Raises: StudyFileError for a parameter or objective that cannot be read.
    """
    values = read_yaml(path)
    spec, status = _mapping(values.get("spec")), _mapping(values.get("status"))
    objective = _mapping(spec.get("objective"))
    metric = str(objective.get("objectiveMetricName", "value"))
    direction = parsed_direction(objective.get("type", "minimize"), where=f"{path}: spec.objective.type")
    notes: list[str] = []
    given = spec.get("parameters")
    if not isinstance(given, list) or not given:
        raise StudyFileError(f"{path}: spec.parameters: needs a list of parameters")
    ranges = {str(_mapping(one).get("name")): _range(_mapping(one), str(path), notes) for one in given}
    sections: dict[str, Value] = {
        "search": _search(spec, ranges, notes),
        "budget": {
            "trials": _count(spec.get("maxTrialCount"), 12),
            "parallel": _count(spec.get("parallelTrialCount"), PARALLEL),
            "max_failed": max_failed(_count(spec.get("maxFailedTrialCount"), 6)),
        },
    }
    renamed = _template(_mapping(spec.get("trialTemplate")), ranges, sections, notes)
    if finite(objective.get("goal")) is not None:
        sections["goal"] = objective["goal"]
    further = objective.get("additionalMetricNames")
    for name in further if isinstance(further, list) else []:
        notes.append(
            f"spec.objective.additionalMetricNames: {name} is not taken over; trials record what they return"
        )
    trials = _optimal_trial(status, metric, ranges)
    if trials:
        notes.append("an Experiment holds its best trial only; the others are not in the file")
    return ImportedStudy(
        name=study_name(str(_mapping(values.get("metadata")).get("name") or path.stem)),
        origin=f"Katib experiment {path.name}",
        ranges={renamed.get(name, name): value for name, value in ranges.items()},
        objectives=((metric, direction),),
        trials=tuple(
            ImportedTrial(
                number=one.number, state=one.state, values=one.values,
                params={renamed.get(name, name): value for name, value in one.params.items()},
            )
            for one in trials
        ),
        sections=sections,
        notes=tuple(notes),
    )  # fmt: skip


def _mapping(value: Value) -> dict[str, Value]:
    return value if isinstance(value, dict) else {}


def _count(value: Value, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def _number(text: Value) -> float | None:
    """A number that Katib writes as text."""
    try:
        return finite(float(str(text)))
    except ValueError:
        return None


def _range(given: Mapping[str, Value], where: str, notes: list[str]) -> Value:
    name, kind, space = given.get("name"), given.get("parameterType"), _mapping(given.get("feasibleSpace"))
    if not name:
        raise StudyFileError(f"{where}: spec.parameters: a parameter has no name")
    listed = space.get("list")
    if kind in ("categorical", "discrete"):
        if not isinstance(listed, list) or not listed:
            raise StudyFileError(f"{where}: spec.parameters: {name}: needs feasibleSpace.list")
        return choice_range([_scalar(one) if kind == "discrete" else one for one in listed])
    low, high, step = (_number(space.get(key)) for key in ("min", "max", "step"))
    if kind not in ("double", "int") or low is None or high is None:
        raise StudyFileError(
            f"{where}: spec.parameters: {name}: needs parameterType double, int, categorical or discrete, and min "
            "and max"
        )
    distribution = str(space.get("distribution", "uniform"))
    if distribution in ("normal", "logNormal"):
        notes.append(f"{name}: distribution {distribution} is not taken over; the range is uniform")
    return number_range(
        "int" if kind == "int" else "float",
        low,
        high,
        log=distribution in ("logUniform", "logNormal"),
        step=step,
    )


def _scalar(text: Value) -> Value:
    number = _number(text)
    return (
        text if number is None else int(number) if number == int(number) and "." not in str(text) else number
    )


def _search(spec: Mapping[str, Value], ranges: dict[str, Value], notes: list[str]) -> dict[str, Value]:
    """The section `search`; the parameter that is hyperband's resource gets its largest value in `ranges`."""
    algorithm, stopping = _mapping(spec.get("algorithm")), _mapping(spec.get("earlyStopping"))
    name = str(algorithm.get("algorithmName", "random"))
    found = katib_search(name, _settings(algorithm))
    notes += [f"{line}; it is not taken over" for line in found.refused]
    search = dict(found.search)
    if found.resource is not None and found.resource[0] in ranges:
        resource, most = found.resource
        ranges[resource] = int(most) if most == int(most) else most
        notes.append(f"{resource}: is hyperband's resource: the whole run, of which the rungs are parts")
    if stopping:
        rule = katib_stopping(str(stopping.get("algorithmName")), _settings(stopping))
        search |= rule.search
        notes += [f"{line}; it is not taken over" for line in rule.refused]
        notes += [
            "earlyStopping: start_step is not taken over: rungs are parts of the run (docs/rungs.md)"
        ] * bool(rule.search)
    return search


def _settings(given: Mapping[str, Value]) -> dict[str, Value]:
    listed = given.get("algorithmSettings")
    return {
        str(one.get("name")): one.get("value")
        for one in map(_mapping, listed if isinstance(listed, list) else [])
    }


def _optimal_trial(
    status: Mapping[str, Value], metric: str, ranges: Mapping[str, Value]
) -> list[ImportedTrial]:
    """The best trial, which the status holds."""
    best = _mapping(status.get("currentOptimalTrial"))
    assigned = best.get("parameterAssignments")
    params: dict[str, Value] = {}
    for one in map(_mapping, assigned if isinstance(assigned, list) else []):
        name, text = str(one.get("name")), one.get("value")
        choice = _mapping(ranges.get(name)).get("choice")
        same = (
            next((option for option in choice if str(option) == str(text)), None)
            if isinstance(choice, list)
            else None
        )
        params[name] = same if same is not None else _scalar(text)
    metrics = _mapping(best.get("observation")).get("metrics")
    values = [
        _number(one.get("latest"))
        for one in map(_mapping, metrics if isinstance(metrics, list) else [])
        if one.get("name") == metric
    ]
    if not params or not values or values[0] is None:
        return []
    return [ImportedTrial(number=0, state="finished", params=params, values=(values[0],))]


def _template(
    template: Mapping[str, Value], ranges: Mapping[str, Value], sections: dict[str, Value], notes: list[str]
) -> dict[str, str]:
    """Adds what the trial's template says to `sections`; returns new names of the parameters.

    The names in the template are those of `trialParameters`, each with the parameter that it stands for.
    """
    listed = template.get("trialParameters")
    names = {
        str(one.get("name")): str(one.get("reference", one.get("name")))
        for one in map(_mapping, listed if isinstance(listed, list) else [])
    }
    containers = list(_containers(template.get("trialSpec")))
    arguments = [word for container in containers for word in _words(container)]
    options = {name: value for name, value in pairwise(arguments) if name.startswith("--")}
    if "--training_parameters" in options or "--model_provider_parameters" in options:
        return _language_model(options, names, sections, notes)
    main = next(
        (
            words
            for container in containers
            if (words := _words(container)) and _REFERENCE.search(" ".join(words))
        ),
        None,
    )
    if main is None:
        notes.append("trialTemplate: no container names the parameters; write command or python")
        return {}
    line = " ".join(
        word.replace("{", "{{").replace("}", "}}") if not _REFERENCE.search(word) else word for word in main
    )
    sections["command"] = _REFERENCE.sub(lambda found: "{" + names.get(found[1], found[1]) + "}", line)
    notes.append(
        "command: the program needs to print its metric as the last line, in JSON (docs/own_code.md); its image "
        "is not taken over"
    )
    return {}


def _containers(value: Value) -> Iterator[dict[str, Value]]:
    """Every container of a manifest, init containers too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("containers", "initContainers") and isinstance(inner, list):
                yield from (one for one in inner if isinstance(one, dict))
            else:
                yield from _containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _containers(inner)


def _words(container: Mapping[str, Value]) -> list[str]:
    return [
        str(word)
        for key in ("command", "args")
        for word in (container.get(key) if isinstance(container.get(key), list) else [])  # type: ignore[union-attr]
    ]


def _language_model(
    options: Mapping[str, str], names: Mapping[str, str], sections: dict[str, Value], notes: list[str]
) -> dict[str, str]:
    """Model, data, `lora` and `train` of an experiment that `tune()` made; returns new names of the parameters."""
    model = _json(options.get("--model_provider_parameters"))
    data = _json(options.get("--dataset_provider_parameters"))
    path = str(model.get("model_uri") or options.get("--model_uri") or "").removeprefix("hf://")
    if path:
        sections["model"] = {"path": path}
    if data.get("repo_id"):
        split = str(data.get("split") or "train")
        sections["data"] = {"path": str(data["repo_id"]), "split": split}
        notes.append("data.prompt: the source does not say how rows become text; `alpaca` is the default")
    renamed: dict[str, str] = {}
    for section, option, error_of in (
        ("train", "--training_parameters", check_train_key),
        ("lora", "--lora_config", check_lora_key),
    ):
        fixed: dict[str, Value] = {}
        for key, value in _json(options.get(option)).items():
            reference = _REFERENCE.fullmatch(str(value))
            if error_of(key) is not None:
                if value is not None and reference is None:
                    notes.append(f"{option.removeprefix('--')}.{key}={value!r}: is not taken over")
                    continue
                if reference is None:
                    continue
            if reference is not None:
                renamed[names.get(reference[1], reference[1])] = f"{section}.{key}"
            elif value is not None:
                fixed[key] = value
        if fixed:
            sections[section] = fixed
    return renamed


def _json(text: str | None) -> dict[str, Value]:
    try:
        return _mapping(json.loads(text)) if text else {}
    except (ValueError, RecursionError):
        return {}
