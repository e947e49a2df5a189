"""What is wrong with constraints and shows only by trying: no point keeps them, or nobody measures their number."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hpotune.config.load import Study
from hpotune.config.space.constraints import texts_of
from hpotune.config.yaml_source import Mistake
from hpotune.errors import nearest
from hpotune.search.propose import feasible_share

NARROW = 0.01
"""Share of the space below which constraints are told to be narrow: a draw tries a hundred thousand points at most."""
SCARCE = 1e-4
"""Share below which a draw may well find none of them."""


def kept(study: Study) -> tuple[float, set[int]]:
    """The share of the space that keeps the constraints known before; where none does, which are never kept."""
    return feasible_share(study.space, study.template) if study.space.constraints else (1.0, set())


def unkeepable(study: Study, *, share: float, never: Collection[int]) -> Iterator[Mistake]:
    """Constraints that no point keeps, alone (`never`) or together, where none of thousands did: `share` is nought."""
    if share:
        return
    advice = "widen a range or the constraint; values that follow from others are written with expr"
    for index, (where, text) in enumerate(texts_of(study.template).items()):
        if index in never:
            yield where, f"constraints: no point of the space keeps {text!r}; {advice}"
    if not never:
        yield ("constraints",), f"constraints: no point of the space keeps all of them together; {advice}"


def narrow(study: Study, *, share: float) -> Iterator[str]:
    """A warning where constraints leave next to nothing."""
    if 0 < share < NARROW:
        place = study.source.location(("constraints",))
        yield (
            f"{place}: constraints: about {100 * share:.1g}% of the points keep them"
            f"{', so few that a trial may find none' * (share < SCARCE)}; narrow the ranges, or tie values with expr, "
            "so that the search need not look for them"
        )


def unheard(study: Study) -> Iterator[str]:
    """A warning where a prior's confidence is given to a search that asks for none: only `auto`'s own model does."""
    search, ranges = study.config.search, study.space.searched
    plain = len(study.config.score.objective) == 1 and not any(r.when for r in ranges)
    if search.algorithm == "auto" and plain:
        return
    for r in ranges:
        if r.confidence != "weak":
            why = (
                "conditions or several objectives are searched without it"
                if search.algorithm == "auto"
                else f"{search.algorithm} takes the prior as its first point alone"
            )
            yield f"{study.source.location(r.where)}: {r.name}: confidence={r.confidence} has no effect: {why}; remove it"


def unmeasured_limits(study: Study, *, training: Collection[str]) -> Iterator[Mistake]:
    """Limits on numbers that no part of a fine-tuning measures; what a function or command returns is its own."""
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
