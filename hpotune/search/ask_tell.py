"""The ask-tell protocol: a search driven by another program, one JSON object per line (`hpotune ask-tell`).

    {"op": "init", "space": [{"name", "type": "float" | "int" | "cat", "low", "high", "log", "choices", "ordered"}],
     "direction": "maximize", "seed": 0, "n_trials": 50, "workers": 1, "default": {...}}   -> {"ok": true}
    {"op": "ask"}                                                          -> {"id": 3, "params": {...}}
    {"op": "tell", "id": 3, "value": 0.55}                                 -> {"ok": true}
    {"op": "close"}                                                        ends it

`default` is the recommended setting: the prior of each range, and the first point. `start_from`: points that come
before it. A list of directions means several objectives, with values as a list. A tell may have `stderr`; a value of
null means a failed trial. A range may have any other key of a study file's range (`step`, `prior`, `when`). An error is
answered by {"error": "..."} and changes nothing. Points are assigned in an in-memory study by the same code as in a
stored one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from hpotune.config.load import Study, build_study
from hpotune.config.yaml_source import Source, Value
from hpotune.errors import HpotuneError, StudyFileError, nearest
from hpotune.search.algorithms.registry import algorithm as algorithm_of
from hpotune.search.algorithms.registry import check_algorithm
from hpotune.search.assign import assign_point
from hpotune.search.base.storage_view import FinishedTrials
from hpotune.search.base.unit_cube import decode
from hpotune.search.sampler_setup import sampler_setup

KINDS = {"float": "float", "int": "int", "cat": "choice"}
"""Range types of the protocol -> keys of a study file."""
NAME = "ask-tell"
PARAMS = "params."
"""Prefix of the ranges in a study file."""
TRIALS = 50
"""Budget where `init` has no `n_trials`."""
KEYS = {
    "init": ("space", "direction", "seed", "n_trials", "workers", "default", "start_from", "options"),
    "ask": (),
    "tell": ("id", "value", "stderr"),
    "close": (),
}
"""Keys of each message besides `op`; those of `close` are not checked, since its sender waits for the end."""
PROTOCOL_WORDS = {
    f"{NAME}:1: ": "",
    PARAMS: "",
    "score.objective.0.direction": "direction",
    "score.objective.direction": "direction",
    "budget.trials": "n_trials",
    "budget.parallel": "workers",
    "search.": "",
    "algorithm=": "--algorithm ",
}
"""Words of study file errors -> words of the protocol."""

_STUDY_FILE_WORD = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, PROTOCOL_WORDS))})")
"""These words, but not inside a name of the user's."""
Message = Mapping[str, Value]


class AskTellSearch:
    """One in-memory search, made by an `init` message."""

    def __init__(self, message: Message, *, algorithm: str, options: Mapping[str, Value]) -> None:
        """Raises: StudyFileError for an invalid message, algorithm or option."""
        self.file = study_from_init(message, algorithm=algorithm, options=options)
        check_algorithm(self.file, sampler_setup(self.file, self.file.config))
        if algorithm_of(self.file.config.search.algorithm).assign_lineage is not None:
            raise StudyFileError(
                f"init: {algorithm} continues from checkpoints of other trials, which answers cannot name; use another"
            )
        self.storage = InMemoryStorage()
        senses = [objective.sense for objective in self.file.config.score.objective]
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.finished = FinishedTrials()
        self.study = optuna.create_study(storage=self.storage, study_name=NAME, directions=senses)

    def ask(self) -> tuple[int, dict[str, Value]]:
        """The next trial's number, and its values by name."""
        id_ = self.storage.create_new_trial(self.study._study_id)
        trial = self.storage.get_trial(id_)
        assign_point(self.storage, self.file, self.file.config, trial, finished=self.finished)
        drawn = decode(self.file.space, self.storage.get_trial(id_).params)
        return trial.number, {name.removeprefix(PARAMS): value for name, value in drawn.items()}

    def tell(self, message: Message) -> None:
        """Finish a trial: with its values, or as failed.

        Raises: StudyFileError for an id that is not running, or a value that is not a number.
        """
        if "id" not in message:
            raise StudyFileError("tell: id is missing; needs the id of an ask")
        id_ = self._running(message["id"])
        values = _numbers(message, "value", count=len(self.study.directions))
        errors = _numbers(message, "stderr", count=len(self.study.directions))
        if errors is not None:
            self.storage.set_trial_user_attr(id_, "stderrs", errors)
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        self.storage.set_trial_state_values(id_, state, values)

    def _running(self, number: Value) -> int:
        states = {trial.number: trial for trial in self.study.get_trials(deepcopy=False)}
        found = states.get(number) if isinstance(number, int) else None
        if found is None:
            raise StudyFileError(f"tell: id={number!r} is unknown; needs the id of an ask")
        if found.state != TrialState.RUNNING:
            raise StudyFileError(f"tell: id={number!r} has a result already; needs an id without one")
        return found._trial_id


def study_from_init(message: Message, *, algorithm: str, options: Mapping[str, Value]) -> Study:
    """The study that an `init` message describes.

    Raises: StudyFileError with every error.
    """
    params = _params(message)
    directions = message.get("direction")
    if not directions:
        raise StudyFileError("init: direction is missing; needs maximize or minimize, or a list of them")
    objectives = directions if isinstance(directions, list) else [directions]
    own = message.get("options") or {}
    if not isinstance(own, dict):
        raise StudyFileError(f"init: options={own!r} needs an object")
    values: dict[str, Value] = {
        "name": NAME,
        "python": "ask.py:tell",
        "params": params,
        "score": {"objective": [{"metric": _metric(i), "direction": d} for i, d in enumerate(objectives)]},
        "search": {
            "algorithm": algorithm,
            "seed": message.get("seed", 0),
            "options": {key: _by_name(value, params) for key, value in {**options, **own}.items()},
            "start_from": _starts(message),
        },
        "budget": {"trials": message.get("n_trials", TRIALS), "parallel": message.get("workers", 1)},
    }
    return build_study(Source(path=Path(NAME), values=values, lines={}))


def _params(message: Message) -> dict[str, Value]:
    """The ranges by name, the recommended setting as their priors."""
    defaults, space = message.get("default") or {}, message.get("space")
    if not isinstance(defaults, dict):
        raise StudyFileError(f"init: default={defaults!r} needs an object of values by name")
    if not isinstance(space, list) or not space:
        raise StudyFileError(f"init: space={space!r} needs a list of at least one range")
    params = dict(_range(entry, defaults) for entry in space)
    if len(params) < len(space):
        raise StudyFileError("init: space has two ranges of one name; needs different names")
    stray = sorted(defaults.keys() - params.keys())
    if stray:
        raise StudyFileError(
            f"init: default: {stray[0]!r} is not a name of the space; {nearest(stray[0], params)}"
        )
    return params


def answers(
    lines: Iterable[str], *, algorithm: str, options: Mapping[str, Value]
) -> Iterator[dict[str, Value]]:
    """One answer per line until `close`; an error is answered by {"error": ...} and changes nothing."""
    search: AskTellSearch | None = None
    for line in filter(str.strip, lines):
        try:
            message = _message(line)
            if message["op"] == "close":
                return
            if message["op"] == "init":
                if search is not None:
                    raise StudyFileError("init: sent twice; a session has one search")
                search = AskTellSearch(message, algorithm=algorithm, options=options)
                yield {"ok": True}
                continue
            if search is None:
                raise StudyFileError(f"{message['op']}: sent before init; send init first")
            yield OPS[str(message["op"])](search, message)
        except (HpotuneError, ValueError) as error:
            text = "; ".join(str(error).splitlines())
            yield {"error": _STUDY_FILE_WORD.sub(lambda found: PROTOCOL_WORDS[found.group()], text)}


def _ask(search: AskTellSearch, message: Message) -> dict[str, Value]:
    number, params = search.ask()
    return {"id": number, "params": cast(Value, params)}


def _tell(search: AskTellSearch, message: Message) -> dict[str, Value]:
    search.tell(message)
    return {"ok": True}


OPS: Mapping[str, Callable[[AskTellSearch, Message], dict[str, Value]]] = {"ask": _ask, "tell": _tell}


def _message(line: str) -> dict[str, Value]:
    try:
        message = json.loads(line)
    except json.JSONDecodeError as error:
        raise StudyFileError(
            f"{line.strip()[:80]!r} is not JSON ({error.msg}); needs one object per line"
        ) from None
    if not isinstance(message, dict):
        raise StudyFileError(f'{line.strip()[:80]!r} is not an object; needs one such as {{"op": "ask"}}')
    op = message.get("op")
    if op not in list(KEYS):
        raise StudyFileError(f"op={op!r} is unknown; valid: {', '.join(KEYS)}")
    if op != "close" and (stray := sorted(message.keys() - {"op", *KEYS[op]})):
        advice = nearest(stray[0], KEYS[op]) if KEYS[op] else "it has none"
        raise StudyFileError(f"{op}: {stray[0]}: unknown key; {advice}")
    return message


def _metric(index: int) -> str:
    return f"value{index or ''}"


def _range(entry: Value, defaults: Mapping[str, Value]) -> tuple[str, Value]:
    """The name of a range, and the range as in a study file."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise StudyFileError(f"init: space: {entry!r} needs an object with a name")
    rest = {key: value for key, value in entry.items() if value is not None and value is not False}
    name, kind = str(rest.pop("name")), rest.pop("type", None)
    if kind not in KINDS:
        raise StudyFileError(f"init: space: {name}: type={kind!r} is unknown; valid: {', '.join(KINDS)}")
    low, high, choices = (rest.pop(key, None) for key in ("low", "high", "choices"))
    default = {"prior": defaults[name]} if name in defaults else {}
    when = rest.get("when")
    if isinstance(when, dict):
        rest["when"] = {PARAMS + other: value for other, value in when.items()}
    return name, {KINDS[kind]: choices if kind == "cat" else [low, high], **default, **rest}


def _by_name(value: Value, params: Mapping[str, Value]) -> Value:
    """An option's value; where it is an object by range name, with the names of the study file."""
    if not isinstance(value, dict) or value.keys() - params.keys():
        return value
    return {PARAMS + name: inner for name, inner in value.items()}


def _starts(message: Message) -> list[Value]:
    """The points of `start_from` as in a study file."""
    points = message.get("start_from") or []
    listed = points if isinstance(points, list) else [points]
    by_name = [point for point in listed if isinstance(point, dict)]
    if not isinstance(points, list) or len(by_name) < len(listed):
        raise StudyFileError(f"init: start_from={points!r} needs a list of objects of values by name")
    return [{PARAMS + name: value for name, value in point.items()} for point in by_name]


def _numbers(message: Message, key: str, *, count: int) -> list[float] | None:
    """The numbers of a tell; None where there are none, or one is not finite."""
    found = message.get(key)
    if found is None:
        return None
    numbers = found if isinstance(found, list) else [found]
    if len(numbers) != count or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        raise StudyFileError(f"tell: {key}={found!r} needs {count} number{'s' * (count > 1)}, or null")
    values = [float(cast(float, n)) for n in numbers]
    return values if all(map(math.isfinite, values)) else None
