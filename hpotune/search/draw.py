"""One trial of the space, drawn through Optuna's define-by-run interface so that conditions hold."""

from __future__ import annotations

from contextlib import suppress

from optuna.trial import BaseTrial

from hpotune.study import expr
from hpotune.study.source import Value
from hpotune.study.space import Range, Space, active, leaves


def draw(space: Space, trial: BaseTrial, template: dict[str, Value]) -> dict[str, Value]:
    """Values by dotted name of every range that is active; the template tells the fixed values that conditions read.

    An expression that cannot be computed here holds no condition; the trial's point tells it as a mistake.
    """
    names = {r.name for r in space.ranges}
    known = {name: value for name, value in leaves(template) if name not in names}
    drawn: dict[str, Value] = {}
    for r in space.ranges:
        if not active(r, known):
            continue
        if r.kind == "expr":
            with suppress(ValueError):
                known[r.name] = expr.evaluate(r.text, known)
        else:
            drawn[r.name] = known[r.name] = _suggest(r, trial)
    return drawn


def _suggest(r: Range, trial: BaseTrial) -> Value:
    if r.kind == "choice":
        label = trial.suggest_categorical(r.name, r.labels)
        return r.options[r.labels.index(label)]
    if r.kind == "int":
        return trial.suggest_int(r.name, int(r.low), int(r.high), step=int(r.step or 1), log=r.log)
    return trial.suggest_float(r.name, r.low, r.high, step=r.step, log=r.log)


def prior_point(space: Space) -> dict[str, bool | int | float | str | None]:
    """The priors as Optuna stores them, by name; empty where the file gives none."""
    return {r.name: _stored(r) for r in space.searched if r.prior is not None}


def decode(space: Space, params: dict[str, Value]) -> dict[str, Value]:
    """Optuna's stored parameters as the study file's values (lists come back from their JSON text)."""
    ranges = {r.name: r for r in space.searched if r.kind == "choice"}
    return {
        name: ranges[name].options[ranges[name].labels.index(value)] if name in ranges else value
        for name, value in params.items()
    }


def _stored(r: Range) -> bool | int | float | str | None:
    if r.kind == "choice":
        return r.labels[r.options.index(r.prior)]
    assert isinstance(r.prior, (int, float)), "a prior of an interval is a number"
    return int(r.prior) if r.kind == "int" else float(r.prior)
