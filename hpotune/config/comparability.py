"""Rules over the whole study file: where ranges are not allowed, objectives that cannot be measured, unused keys.

All trials of a study and its baseline must share a model, rows and scoring, so that their numbers can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.config.metrics import COSTS, LABEL_METRICS, TRAINING_METRICS
from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.study_config import MULTI_LABEL, REGRESSION, Objective, StudyConfig
from hpotune.config.yaml_source import KeyPath, Mistake, Value
from hpotune.errors import nearest

SEARCHABLE = ("model", "data", "lora", "train", "params")
BASE = ("path", "revision", "dtype", "tokenizer", "task", "num_labels", "problem_type", "quantization")
"""Keys of `model` that change the base model."""
OF_VALIDATION = ("eval_loss", *(name for names in LABEL_METRICS.values() for name in names))
OF_ROWS = (*dict.fromkeys(OF_VALIDATION), "train_loss", "final_train_loss")
"""Metrics that are measured on the study's own rows."""
OF_TRAINING_ROWS = ("train_loss", "final_train_loss")
"""Those of them that are measured on the training rows."""
OF_TRAINING = ("samples_per_second", "tokens_per_second", "train_seconds")
"""Metrics that only training has."""
APART = "make a study for each"


def check_range_allowed(where: KeyPath, values: dict[str, Value]) -> None:
    """Raises: ValueError for a key that cannot be a range."""
    if _is_answering(where):
        return
    if where and where[0] == "score":
        rule = "all trials are scored in the same way (only score.generation and num_fewshot may be ranges)"
        raise ValueError(f"is a range, but {rule}; {APART}")
    if not where or where[0] not in SEARCHABLE:
        raise ValueError(f"is a range; ranges are allowed under {', '.join(SEARCHABLE)}, score.generation")
    if len(where) == 1:
        raise ValueError("is a range as a whole; give a range for one value, such as lora.r: {int: [4, 64]}")
    if where[0] == "model" and where[1] in BASE:
        raise ValueError(f"is a range, but the baseline and all trials share one base model; {APART}")
    if where[0] == "data":
        _check_rows(where, values)


def _is_answering(where: KeyPath) -> bool:
    """Whether a key says how the model is asked and answers: it may be a range, though it is under `score`."""
    if where[:2] == ("score", "generation"):
        return len(where) > 2
    return where == ("score", "num_fewshot") or (
        where[:2] == ("score", "objective") and where[-1] == "num_fewshot"
    )


def _check_rows(where: KeyPath, values: dict[str, Value]) -> None:
    if where[-1] == "streaming":
        raise ValueError(
            "is a range, but all trials have the same batches with it and without; give one value"
        )
    if where[-1] in ("seed", "validation"):
        raise ValueError("is a range, but all trials use the same rows for validation; give one value")
    # The validation rows of a mixture are the same for any weights; the training rows are not.
    of_rows = OF_TRAINING_ROWS if where[1] == "mixture" and where[-1] == "weight" else OF_ROWS
    own = [metric for metric in _metrics(values) if metric in of_rows]
    if own:
        raise ValueError(
            f"is a range, but the objective {own[0]} is measured on these rows, so trials could not be compared; "
            f"use an lm-eval task as the objective, or {APART}"
        )


def _metrics(values: dict[str, Value]) -> list[Value]:
    """The metrics of the objectives without a task, as the file has them."""
    score = values.get("score")
    found = score.get("objective") if isinstance(score, dict) else None
    objectives = found if isinstance(found, list) else [found]
    return [one.get("metric") for one in objectives if isinstance(one, dict) and one.get("task") is None]


def unmeasured_objectives(values: dict[str, Value], config: StudyConfig) -> Iterator[Mistake]:
    """Objectives of a fine-tuning that nothing measures, or that its baseline does not have."""
    if config.model is None:
        return
    score = values.get("score")
    several = isinstance(score, dict) and isinstance(score.get("objective"), list)
    for index, objective in enumerate(config.score.objective):
        where: KeyPath = ("score", "objective", *([index] if several else []), "metric")
        if objective.task is not None:
            continue
        if objective.metric == "seconds":
            yield where, "metric='seconds' is not measured by fine-tuning; did you mean 'train_seconds'?"
        kind = config.model.problem_type or "single_label_classification"
        measured = LABEL_METRICS[kind] if config.model.task == "sequence_classification" else ()
        if objective.metric in OF_VALIDATION[1:] and objective.metric not in measured:
            has = ", ".join(("eval_loss", *measured))
            rule = f"is not measured with task: {config.model.task}{f' and problem_type: {kind}' if measured else ''}"
            yield where, f"metric={objective.metric!r} {rule}; it has {has}"
        if objective.metric in OF_TRAINING and config.data is not None and config.checks.baseline:
            yield (
                where,
                f"metric={objective.metric!r} is not defined for the base model; write checks: "
                "{baseline: false}, or put it under score.record and choose another objective",
            )


def differently_asked(values: dict[str, Value], config: StudyConfig) -> Iterator[Mistake]:
    """An error for a race between trials that are asked differently."""
    score = values.get("score")
    if config.score.race is None or not isinstance(score, dict):
        return
    generation, listed = score.get("generation"), score.get("objective")
    sections = [score, *(listed if isinstance(listed, list) else [listed])]
    ranges = [f"generation.{key}" for key, value in _items(generation) if isinstance(value, dict)]
    ranges += [
        "num_fewshot" for one in sections for key, value in _items(one)
        if key == "num_fewshot" and isinstance(value, dict)
    ]  # fmt: skip
    if ranges:
        yield (
            ("score", "race"),
            f"score.race: compares the answers of trials to the same requests, and {ranges[0]} is a range; write false",
        )


def _items(section: Value) -> Iterator[tuple[str, Value]]:
    yield from section.items() if isinstance(section, dict) else ()


def unread_smoothing(values: dict[str, Value], config: StudyConfig) -> Iterator[Mistake]:
    """Smoothed labels, where a label is no single class."""
    train = values.get("train")
    smoothing = train.get("label_smoothing_factor") if isinstance(train, dict) else None
    kind = config.model.problem_type if config.model is not None else None
    if kind in (MULTI_LABEL, REGRESSION) and smoothing not in (None, 0, 0.0):
        rule = f"has no effect with model.problem_type: {kind}; remove it"
        yield ("train", "label_smoothing_factor"), f"train.label_smoothing_factor: {rule}"


def is_cost(objective: Objective) -> bool:
    """Whether a number says what a trial took and not how good it is: the base model has none to compare with."""
    name = objective.metric
    return objective.task is None and (name in COSTS or (name in TRAINING_METRICS and name not in OF_ROWS))


def unmeasured_rule(values: dict[str, Value], config: StudyConfig) -> Iterator[Mistake]:
    """Names in `best` that no trial measures, and sealed tasks; functions and commands may return any number."""
    rule = config.best
    for name in sorted(rule.names) if rule is not None else ():
        text = rule_name_mistake(config, name)
        if text is not None and rule is not None:
            yield rule_key(rule, name), f"best: {text}"


def rule_name_mistake(config: StudyConfig, name: str) -> str | None:
    """The error of a name that a rule reads; None if trials measure it."""
    score = config.score
    task, separator, _ = name.rpartition("/")
    known = {
        *COSTS,
        *(o.label for o in score.objective),
        *(c.metric for c in score.constraints),
    }
    if config.model is None:
        return None if not separator or name in known else f"{name!r} is not measured; {nearest(name, known)}"
    if name in OF_VALIDATION and config.data and not config.data.holds_out:
        return f"{name!r} needs data.validation above 0, e.g. 0.05"
    tasks = {o.task for o in score.objective if o.task} | {one.task for one in score.record}
    if name in known or name in TRAINING_METRICS or (separator and task in tasks - {*TRAINING_METRICS}):
        return None
    sealed = [one.task for one in score.test]
    if any((task or name) == one or (task or name).startswith(f"{one}_") for one in sealed):
        return f"{name!r} is of a sealed task (score.test), which never chooses a trial; name an objective"
    return f"{name!r} is not measured; {nearest(name, [*known, *TRAINING_METRICS])}"


def rule_key(rule: BestRule, name: str) -> KeyPath:
    """The key under `best` that reads a name."""
    if name == rule.metric:
        return "best", rule.sense
    return "best", "subject_to"


def changing_forms(values: dict[str, Value], config: StudyConfig) -> Iterator[Mistake]:
    """An error where `score.chat_template: auto` would ask the tasks of the trials in different forms."""
    data = values.get("data")
    prompt = data.get("prompt") if isinstance(data, dict) else None
    options = prompt.get("choice") if isinstance(prompt, dict) else None
    tasks = any(objective.task for objective in config.score.objective)
    if tasks and config.score.chat_template == "auto" and isinstance(options, list) and "chat" in options:
        yield (
            ("data", "prompt"),
            "data.prompt: is a range with chat, which score.chat_template: auto follows, so that the trials could not "
            "be compared; write score.chat_template: true or false",
        )


_FINE_TUNING_ONLY: tuple[KeyPath, ...] = (
    ("data_root",),
    ("keep",),
    ("checks",),
    ("env", "offline"),
    ("score", "batch_size"),
    ("score", "chat_template"),
    ("score", "system"),
    ("score", "confirm_unsafe_code"),
    ("score", "include_path"),
    ("score", "generation"),
    ("score", "num_fewshot"),
)
"""Keys that only the built-in fine-tuning reads."""


_TRAINING_ONLY: tuple[KeyPath, ...] = (
    ("keep",),
    ("checks", "identity"),
    ("checks", "moved"),
    ("checks", "reload"),
)
"""Keys that have no meaning where nothing is trained."""


def unused_keys(values: dict[str, Value], config: StudyConfig) -> Iterator[Mistake]:
    """An error for each key that nothing would read."""
    own = next((key for key in ("python", "command") if getattr(config, key) is not None), None)
    for key in _FINE_TUNING_ONLY if own else ():
        if _is_given(values, key):
            yield key, f"{'.'.join(map(str, key))}: is used by fine-tuning only, not by `{own}:`; remove it"
    untrained = config.model is not None and config.data is None and not config.search.is_derived
    for key in _TRAINING_ONLY if untrained else ():
        if _is_given(values, key):
            rule = "is used by training only, and without data nothing is trained"
            yield key, f"{'.'.join(map(str, key))}: {rule}; remove it"
    classifies = config.model is not None and config.model.task == "sequence_classification"
    if classifies and config.data is not None and config.data.response is not None:
        yield ("data", "response"), "data.response: is not used by sequence_classification; remove it"


def _is_given(value: Value, key: KeyPath) -> bool:
    for part in key:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[str(part)]
    return True
