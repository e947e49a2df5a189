"""Checks of a study's constraints (can any point satisfy them), of its limits, and of the confidence of priors."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hpotune.checks.finding import Finding
from hpotune.config.load import Study
from hpotune.config.space.constraints import texts_of
from hpotune.config.yaml_source import Mistake
from hpotune.errors import nearest
from hpotune.search.propose import feasible_share

LOW_SHARE = 0.01
"""Share of feasible points below which a warning is given: a draw tries at most a hundred thousand points."""
TOO_LOW_SHARE = 1e-4
"""Share of feasible points below which a draw may find none."""


def infeasible_constraints(study: Study) -> Iterator[Finding]:
    """An error for constraints that none of thousands of points satisfies; a warning if very few satisfy them."""
    if not study.space.constraints:
        return
    share, never = feasible_share(study.space)
    if not share:
        advice = "widen a range or the constraint, or compute dependent values with expr"
        texts = list(texts_of(study.template).items())
        for index in sorted(never):
            key, text = texts[index]
            error = f"constraints: no point of the space satisfies {text!r}"
            yield Finding(kind="constraint", level="bad", key=key, text=f"{error}; {advice}")
        if not never:
            error = "constraints: no point of the space satisfies all of them"
            yield Finding(kind="constraint", level="bad", key=("constraints",), text=f"{error}; {advice}")
    elif share < LOW_SHARE:
        few = ", so few that the search may find none" * (share < TOO_LOW_SHARE)
        text = f"constraints: about {100 * share:.1g}% of the points satisfy them{few}"
        advice = "narrow the ranges, or compute dependent values with expr"
        yield Finding(kind="constraint", level="note", key=("constraints",), text=text, advice=advice)


def unused_confidence(study: Study) -> Iterator[Finding]:
    """A warning for each confidence of a prior that the search does not use; only `algorithm: auto` uses it."""
    search, ranges = study.config.search, study.space.searched
    single = len(study.config.score.objective) == 1 and not any(r.when for r in ranges)
    if search.algorithm == "auto" and single:
        return
    why = (
        "it is not used with conditions or several objectives"
        if search.algorithm == "auto"
        else f"{search.algorithm} uses the prior as its first point only"
    )
    for r in ranges:
        if r.confidence != "weak":
            text = f"{r.name}: confidence={r.confidence} has no effect: {why}"
            yield Finding(kind="confidence", level="note", key=r.where, text=text, advice="remove it")


def unmeasured_limits(study: Study, *, training: Collection[str]) -> Iterator[Mistake]:
    """An error for each limit on a number that fine-tuning does not measure; functions and commands may return any."""
    if study.config.model is None:
        return
    score = study.config.score
    tasks = [objective.task for objective in score.objective if objective.task] + [
        one.task for one in score.record if one.task not in training
    ]
    known = {"seconds", *training, *(objective.label for objective in score.objective)}
    for index, limit in enumerate(score.constraints):
        task, separator, _ = limit.metric.rpartition("/")
        if limit.metric not in known and not (separator and task in tasks):
            yield (
                ("score", "constraints", index, "metric"),
                f"score.constraints: metric={limit.metric!r} is not measured; {nearest(limit.metric, known)}",
            )
