"""Constraints that no point keeps, limits that nothing measures, priors that nothing uses: found by trying points."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hpotune.checks.finding import Finding
from hpotune.config.load import Study
from hpotune.config.space.constraints import texts_of
from hpotune.config.yaml_source import Mistake
from hpotune.errors import nearest
from hpotune.search.propose import feasible_share

NARROW = 0.01
"""Share of the space below which a warning is given: a draw tries a hundred thousand points at most."""
SCARCE = 1e-4
"""Share below which a draw may find no point."""


def infeasible_constraints(study: Study) -> Iterator[Finding]:
    """An error for constraints that no point keeps (none of thousands did); a warning if very few keep them."""
    if not study.space.constraints:
        return
    share, never = feasible_share(study.space, study.template)
    if not share:
        advice = "widen a range or the constraint, or compute dependent values with expr"
        texts = list(texts_of(study.template).items())
        for index in sorted(never):
            key, text = texts[index]
            error = f"constraints: no point of the space keeps {text!r}"
            yield Finding(kind="constraint", level="bad", key=key, text=f"{error}; {advice}")
        if not never:
            error = "constraints: no point of the space keeps all of them together"
            yield Finding(kind="constraint", level="bad", key=("constraints",), text=f"{error}; {advice}")
    elif share < NARROW:
        few = ", so few that a trial may find none" * (share < SCARCE)
        text = f"constraints: about {100 * share:.1g}% of the points keep them{few}"
        advice = "narrow the ranges, or tie values with expr"
        yield Finding(kind="constraint", level="note", key=("constraints",), text=text, advice=advice)


def unused_confidence(study: Study) -> Iterator[Finding]:
    """A warning for the confidence of a prior that the search does not use: only the model of `auto` does."""
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
    """Limits on numbers that fine-tuning does not measure; a function or command may return any."""
    if study.config.model is None:
        return
    score = study.config.score
    tasks = [objective.task for objective in score.objective if objective.task] + [
        name for name in score.record if name not in training
    ]
    known = {"seconds", *training, *(objective.label for objective in score.objective)}
    for index, limit in enumerate(score.constraints):
        task, separator, _ = limit.metric.rpartition("/")
        if limit.metric not in known and not (separator and task in tasks):
            yield (
                ("score", "constraints", index, "metric"),
                f"score.constraints: metric={limit.metric!r} is not measured; {nearest(limit.metric, known)}",
            )
