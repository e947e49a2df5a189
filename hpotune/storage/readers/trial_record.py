"""A trial as a storage holds it, and the TrialRow made of it: the only mapping from stored fields to rows.

The readers without Optuna make records of what they find in a file or a database; `trials/study_trials.py` makes them
of Optuna's trials. The keys are those of the stored user attributes: they never change, whatever the fields of a row
are called. This module neither reads a storage nor imports Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hpotune.config.space.ranges import Space
from hpotune.config.yaml_source import Value
from hpotune.records.lineage import Lineage
from hpotune.records.trial import Attempt, EndedRace, Failure, RegretBound, RungScore, TrialRow, Worker

ROW_KEYS = (
    "kind",
    "stderrs",
    "metrics",
    "failure",
    "worker",
    "beat",
    "attempts",
    "retry_of",
    "breaks",
    "rung",
    "rungs",
    "outlook",
    "lineage",
    "race",
)
"""User attributes that a row is made of."""
ChoiceOptions = Mapping[str, Mapping[Value, Value]]
"""The option that each stored label of a choice stands for, by the choice's name."""
_STATES = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished", "PRUNED": "stopped"}


@dataclass(kw_only=True, slots=True)
class TrialRecord:
    """One trial as the storage holds it. A reader may fill it in steps."""

    number: int
    state: str
    """Optuna's name: WAITING, RUNNING, COMPLETE, PRUNED, FAIL."""
    start: float | None = None
    """Unix seconds."""
    end: float | None = None
    """Unix seconds."""
    params: dict[str, Value] = field(default_factory=dict)
    """Drawn values as Optuna stores them: of a choice its label."""
    values: list[float] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)
    """User attributes, by the stored keys (ROW_KEYS)."""


def choice_options(space: Space) -> ChoiceOptions:
    """The options of every choice of a space, by name and label.

    Older studies stored the options of `[1, true]` as they are: there the first of equal ones counts.
    """
    options: dict[str, dict[Value, Value]] = {}
    for r in space.searched:
        if r.kind == "choice":
            options[r.name] = {}
            for label, option in zip(r.labels, r.options, strict=True):
                options[r.name].setdefault(label, option)
            for option in r.options:
                if not isinstance(option, (list, dict)):
                    options[r.name].setdefault(option, option)
    return options


def row_of(record: TrialRecord, options: ChoiceOptions, *, forgiven: bool = False) -> TrialRow:
    """The row of a trial. `options`: of the study's space; `forgiven`: as TrialRow.forgiven.

    Raises: LookupError for a label that is none of the choice's.
    """
    attrs = record.attrs
    return TrialRow(
        number=record.number,
        kind="baseline" if attrs.get("kind") == "baseline" else "trial",
        # a trial that lost a race is complete for Optuna, whose samplers read its estimate, but never the best
        state=_STATES.get("PRUNED" if "race" in attrs else record.state, "failed"),  # type: ignore[arg-type]
        params={
            key: options[key][value] if key in options else value for key, value in record.params.items()
        },
        values=tuple(record.values),
        stderrs=tuple(attrs.get("stderrs", ())),
        metrics=attrs.get("metrics", {}),
        failure=Failure.model_validate(attrs["failure"]) if "failure" in attrs else None,
        worker=Worker(**attrs["worker"]) if attrs.get("worker") else None,
        start=record.start,
        end=record.end,
        last_heartbeat=attrs.get("beat"),
        attempts=attempts_of(attrs),
        forgiven=forgiven,
        retry_of=attrs.get("retry_of"),
        breaks=tuple(attrs.get("breaks", ())),
        rung=attrs.get("rung"),
        rung_scores=rung_scores_of(attrs),
        regret_bound=RegretBound(**attrs["outlook"]) if "outlook" in attrs else None,
        lineage=Lineage.from_stored(attrs["lineage"]) if "lineage" in attrs else None,
        race=EndedRace.model_validate(attrs["race"]) if "race" in attrs else None,
    )


def attempts_of(attrs: Mapping[str, Any]) -> tuple[Attempt, ...]:
    """The attempts that a trial's user attributes hold, oldest first."""
    return tuple(_attempt(**stored) for stored in attrs.get("attempts", ()))


def _attempt(*, worker: dict[str, Any], swept: bool = False, **stored: Any) -> Attempt:  # noqa: ANN401 - JSON
    return Attempt(worker=Worker(**worker), ended_by_other=swept, **stored)


def stored_attempts(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """The same attempts as the user attribute holds them."""
    return [
        {"swept" if key == "ended_by_other" else key: value for key, value in asdict(attempt).items()}
        for attempt in attempts
    ]


def rung_scores_of(attrs: Mapping[str, Any]) -> tuple[RungScore, ...]:
    """The rung scores that a trial's user attributes hold, lowest rung first."""
    return tuple(
        RungScore(**{**stored, "values": tuple(stored["values"]), "stderrs": tuple(stored["stderrs"])})
        for stored in attrs.get("rungs", ())
    )
