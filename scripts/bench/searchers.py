"""The searches: our algorithms through `hpotune ask-tell` (or in this process), and peers where they are installed.

Peers run in whatever environment has them; nothing of hpotune is imported for them.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Mapping
from copy import copy
from typing import Any, Protocol

from shapes import Entry
from surfaces import Surface, shared

SAMPLERS = {"tpe", "tpe_uni", "random", "qmc", "gp", "cmaes"}
PEERS = {
    **{f"optuna_{name}": "optuna" for name in sorted(SAMPLERS)},
    "smac_hpo": "smac",
    "smac_bb": "smac",
    "ax": "ax",
    "botorch_qlognei": "botorch",
    "syne_cqr": "syne_tune",
    "syne_bore": "syne_tune",
    "hebo": "hebo",
}
"""Peer -> the package that it needs. Settings are those of the shared bench: each library's own defaults."""


class RefusedError(Exception):
    """An algorithm of ours does not take this space, or needs an option."""


class Searcher(Protocol):
    """One search that is under way."""

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A trial's name, and its point."""

    def tell(self, name: Any, value: float | None) -> None:  # noqa: ANN401
        """A trial's score; None: it failed."""

    def close(self) -> None:
        """Ends it."""


class Piped:
    """Ours by its command line, as any user's program would drive it."""

    def __init__(self, algorithm: str, init: Mapping[str, Any]) -> None:
        command = [sys.executable, "-m", "hpotune", "ask-tell", "--algorithm", algorithm]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say({"op": "init", **init})

    def ask(self) -> tuple[Any, dict[str, Any]]:
        answer = self._say({"op": "ask"})
        return answer["id"], answer["params"]

    def tell(self, name: Any, value: float | None) -> None:  # noqa: ANN401
        self._say({"op": "tell", "id": name, "value": value})

    def close(self) -> None:
        self.process.communicate('{"op": "close"}\n')

    def _say(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None, "opened as a pipe"
        assert self.process.stdout is not None, "opened as a pipe"
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer


class InProcess:
    """The same code without the pipe."""

    def __init__(self, algorithm: str, init: Mapping[str, Any]) -> None:
        from hpotune.errors import StudyFileError
        from hpotune.search.ask_tell import AskTellSearch

        try:
            self.search = AskTellSearch(init, algorithm=algorithm, options={})
        except StudyFileError as error:
            raise RefusedError(str(error)) from None

    def ask(self) -> tuple[Any, dict[str, Any]]:
        return self.search.ask()

    def tell(self, name: Any, value: float | None) -> None:  # noqa: ANN401
        self.search.tell({"id": name, "value": value})

    def close(self) -> None:
        pass


class Hebo:
    """HEBO with its defaults."""

    def __init__(self, space: list[Entry], seed: int) -> None:
        import numpy as np
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        np.random.seed(seed)
        kinds = {
            ("float", False): "num",
            ("float", True): "pow",
            ("int", False): "int",
            ("int", True): "pow_int",
        }
        parsed = [
            {"name": e["name"], "type": "cat", "categories": e["choices"]}
            if e["type"] == "cat"
            else {
                "name": e["name"],
                "type": kinds[e["type"], bool(e["log"])],
                "lb": e["low"],
                "ub": e["high"],
                "base": 10,
            }
            for e in space
        ]
        self.space, self.optimizer = space, HEBO(DesignSpace().parse(parsed), scramble_seed=seed)
        self.asked: dict[int, Any] = {}

    def ask(self) -> tuple[Any, dict[str, Any]]:
        row = self.optimizer.suggest(n_suggestions=1)
        number = len(self.asked)
        self.asked[number] = row
        kinds = {"float": float, "int": int}
        return number, {
            e["name"]: kinds.get(e["type"], lambda v: v)(row.iloc[0][e["name"]]) for e in self.space
        }

    def tell(self, name: Any, value: float | None) -> None:  # noqa: ANN401
        import numpy as np

        self.optimizer.observe(self.asked[name], np.array([[-float(value or 0.0)]]))

    def close(self) -> None:
        pass


def of_one_kind(entry: Entry) -> Entry:
    """A range whose choices are all floats where some are: Syne Tune refuses 0 beside 0.1."""
    choices = entry.get("choices") or []
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in choices)
    mixed = numbers and any(isinstance(one, float) for one in choices)
    return {**entry, "choices": [float(one) for one in choices]} if mixed else entry


def for_peers(surface: Surface) -> Surface:
    """The surface with choices of one kind."""
    adapted = copy(surface)
    # not an assignment: the shapes are frozen dataclasses
    object.__setattr__(adapted, "space", [of_one_kind(entry) for entry in surface.space])
    return adapted


def unavailable(algorithm: str) -> str | None:
    """Why a peer cannot run here; None where it can."""
    package = PEERS.get(algorithm)
    if package is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            __import__(package)
    except Exception as error:  # a peer that breaks on import is skipped, whatever breaks
        return (
            f"{package} cannot be imported here ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        )
    return None


def searcher(algorithm: str, surface: Surface, init: Mapping[str, Any], *, fast: bool) -> Searcher:
    """A new search of an algorithm."""
    logging.disable(logging.WARNING)
    found: Searcher
    if algorithm == "hebo":
        found = Hebo(surface.space, init["seed"])
    elif algorithm in PEERS:
        adapted = for_peers(surface)
        found = shared("samplers").make(algorithm, adapted, init["seed"], init["n_trials"], init["workers"])
    else:
        found = InProcess(algorithm, init) if fast else Piped(algorithm, init)
    return found
