"""Scores an objective's items in random order, in parts, and ends where the trial is surely worse than the leader.

The order is the same for all trials of a study: it follows from the seed and the name of each single task. After each
part rank 0 compares the items so far with those of the leader (statistics/group_sequential.py). Without a leader, as in
repeats and reruns, the parts are the same and nothing is compared, so that a trial that has all items has the same
numbers in any case.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.tasks.manager import TaskDict

from hpotune.config.json_file import optional_object
from hpotune.config.schema.study_config import Objective
from hpotune.records.trial import EndedRace
from hpotune.statistics.group_sequential import Floats, Stratum, limits, looks, paired_estimate
from hpotune.workspace.item_file import read_arrays

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leader:
    """The trial that others are compared with, read from the file that a worker wrote (worker/leader_file.py)."""

    trial: int
    value: float
    stderr: float | None
    values: Mapping[str, Mapping[int, float]]
    """Score of each item, by single task and number of the document."""
    weights: Mapping[str, float]
    """Of each single task in the value; they add up to 1."""


@dataclass(kw_only=True, slots=True)
class Race:
    """The race of one trial."""

    objective: Objective
    error: float
    """As score.race.error."""
    seed: int
    """The study's; of the order of the items."""
    leader_file: Path | None = None
    """None: every item is scored."""
    leader: Leader | None = None
    """As it is when the scoring begins; on rank 0 only."""
    requests: Mapping[str, str] = field(default_factory=dict)
    """Hashes of this trial's requests by task, on rank 0; the leader must have been asked the same."""
    why_alone: str = ""
    """Why there is a leader that this trial cannot be compared with; on rank 0 only."""
    ended: EndedRace | None = None
    """Why the scoring ended early; the same on every rank."""

    def read_leader(self) -> None:
        """Read the leader, once: the error of the test holds for one comparison."""
        try:
            if self.leader_file is not None:
                self.leader = read_leader(self.leader_file, self.objective, requests=self.requests)
        except ValueError as error:
            self.why_alone = str(error)

    def value(self) -> tuple[float, float | None]:
        """The estimate of the score over all items, and its standard error.

        The error is that of a score over all items, as the leader has it, and that of the difference.
        """
        assert self.ended is not None, "called where the race has ended early"
        found, error = self.ended, self.ended.leader_stderr
        stderr = None if error is None else math.hypot(error, found.difference_stderr)
        return found.leader_value + found.difference, stderr


def read_leader(file: Path, objective: Objective, *, requests: Mapping[str, str]) -> Leader | None:
    """The leader; None: there is none yet.

    Raises: ValueError where there is one that trials cannot be compared with, and why.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        trial, value, stderr = int(found["trial"]), float(found["value"]), found["stderr"]
        stored = Path(found["items"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    arrays = read_arrays(stored)
    if not arrays:
        raise ValueError(f"trial {trial} leads, and its {stored.name} is gone or damaged")
    asked = (optional_object(stored.with_name("provenance.json")) or {}).get("inputs")
    own = requests.get(str(objective.task))
    if own is not None and isinstance(asked, dict) and asked.get(objective.task, own) != own:
        raise ValueError(f"trial {trial} leads, and it was asked another version of {objective.task}")
    tasks = [str(leaf) for leaf in arrays.get(f"{objective.task}/leaves", [])]
    scores = {task: items_of(arrays, task, objective.metric) for task in tasks}
    if not scores or not all(scores.values()):
        raise ValueError(f"trial {trial} leads, and it has no {objective.metric} of each item")
    means = np.array([np.mean([*one.values()]) for one in scores.values()])
    sizes = np.array([len(one) for one in scores.values()])
    for weights in (sizes / sizes.sum(), np.full(len(sizes), 1 / len(sizes))):  # a group's weight_by_size
        if math.isclose(float(weights @ means), value, abs_tol=1e-9):
            return Leader(
                trial=trial,
                value=value,
                stderr=None if stderr is None else float(stderr),
                values=scores,
                weights=dict(zip(scores, weights.tolist(), strict=True)),
            )
    raise ValueError(f"trial {trial} leads, and its score is no mean over its items or tasks")


def items_of(arrays: Arrays, task: str, metric: str) -> dict[int, float]:
    """The score of each item by the number of its document; empty where the task has no such metric."""
    ids, values = arrays.get(f"{task}/doc_id"), arrays.get(f"{task}/{metric}")
    if ids is None or values is None or len(ids) != len(values) or not np.isfinite(values).all():
        return {}
    return dict(zip(ids.tolist(), values.tolist(), strict=True))


def documents(loaded: TaskDict) -> dict[str, list[int]]:
    """The documents of each single task that are scored."""
    return {name: sorted({one.doc_id for one in task.instances}) for name, task in loaded["tasks"].items()}


def random_order(ids: Sequence[int], task: str, seed: int) -> list[int]:
    """The documents in the order in which all trials of a study score them."""
    order = np.random.default_rng([seed, zlib.crc32(task.encode())]).permutation(len(ids))
    return [ids[position] for position in order]


def parts(loaded: TaskDict, seed: int) -> Iterator[tuple[int, dict[str, set[int]]]]:
    """The documents after each part, of each single task the same share: (number of looks before it, documents)."""
    order = {name: random_order(ids, name, seed) for name, ids in documents(loaded).items()}
    shares = looks(sum(map(len, order.values())))
    for index, share in enumerate((*shares, 1.0)):
        yield index, {name: set(ids[: math.ceil(share * len(ids))]) for name, ids in order.items()}


def first_in_order(loaded: TaskDict, count: int, seed: int) -> dict[str, set[int]]:
    """The first `count` documents of each single task in its random order."""
    return {name: set(random_order(ids, name, seed)[:count]) for name, ids in documents(loaded).items()}


def requests_of(loaded: TaskDict, chosen: Mapping[str, set[int]]) -> list[Instance]:
    """The requests of the chosen documents."""
    return [
        one for name, task in loaded["tasks"].items() for one in task.instances if one.doc_id in chosen[name]
    ]


def decision(race: Race, look: int, arrays: Arrays, every: Mapping[str, Sequence[int]]) -> EndedRace | None:
    """Why the trial ends at this look (from 0); None: it goes on.

    `arrays`: of its items so far, as item_scores gives them. `every`: all documents of each single task.
    """
    leader, metric = race.leader, race.objective.metric
    if leader is None or {task: set(ids) for task, ids in every.items()} != {
        task: set(values) for task, values in leader.values.items()
    }:
        return None
    total = sum(map(len, every.values()))
    sign = 1.0 if race.objective.sense == "maximize" else -1.0
    strata, scored = [], 0
    for task, ids in every.items():
        own = items_of(arrays, task, metric)
        if not own:
            return None
        scored += len(own)
        differences: Floats = np.array([own[one] - leader.values[task][one] for one in own])
        strata.append(Stratum(differences=sign * differences, size=len(ids), weight=leader.weights[task]))
    found = paired_estimate(strata)
    if found.statistic >= limits(looks(total), race.error)[look]:
        return None
    return EndedRace(
        leader=leader.trial,
        leader_value=leader.value,
        leader_stderr=leader.stderr,
        scored_items=scored,
        items=total,
        difference=sign * found.difference,
        difference_stderr=found.stderr,
        error=race.error,
    )
