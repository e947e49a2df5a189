"""Racing: a trial that is surely worse than the best one is not scored to its end (docs/racing.md).

What `score.race` says, and the studies in which trials cannot be compared item by item while they are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from hpotune.config.schema import Section
from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.rungs import LINEAGES
from hpotune.config.schema.search_config import SearchConfig

NO_ITEMS = (
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
    "bleu",
    "chrf",
    "ter",
    "mcc",
    "f1",
)
"""Metrics of lm-eval's tasks that are usually no mean over items; the rehearsal looks at the task itself."""


class RaceConfig(Section):
    """How trials are compared with the best one while they are scored."""

    error: float = Field(default=0.05, gt=0, lt=0.5)
    """The probability that a trial ends early although it is as good as the best one."""


def _spelled(value: object) -> object:
    """The mapping form: true is the default error, false is no race."""
    if value is False:
        return None
    if value is True:
        return RaceConfig()
    if value is not None and not isinstance(value, (dict, RaceConfig)):
        raise ValueError("needs true, false, or an error such as {error: 0.05}")
    return value


Race = Annotated[RaceConfig | None, BeforeValidator(_spelled)]


def race_note(race: RaceConfig | None, rung_items: int | None) -> str:
    """What the keys do to the trials, for people; empty where they do nothing."""
    texts = []
    if race is not None:
        texts.append(
            "a trial that is surely worse than the best one is not scored to its end, and has an estimate "
            f"(error {race.error:g}); the times count all items"
        )
    if rung_items is not None:
        texts.append(f"rungs before the last score {rung_items} items of each task, in random order")
    return "; ".join(texts)


def race_mistakes(
    race: RaceConfig | None,
    rung_items: int | None,
    *,
    task: str | None,
    metric: str,
    limit: int | None,
    objectives: int,
    search: SearchConfig,
    rule: BestRule | None,
    limited: Sequence[str] = (),
) -> Iterator[str]:
    """Conflicts of `race` and `rung_items` with the rest of the study, each with `KEY: ` first.

    `task`, `metric`, `limit`: of the first objective; functions and commands have no task. `rule`: of the study file.
    `limited`: the metrics of score.constraints.
    """
    if race is not None:
        yield from (
            f"race: {text}; write race: false"
            for text in _why_no_race(task, metric, objectives, search, rule, limited)
        )
    if rung_items is None or search.is_derived:
        return
    if search.ladder is None or search.ladder.unit == "items" or task is None:
        needs = "rungs of training (search.pruner) and an lm-eval task as the objective"
        yield f"rung_items: {rung_items}: needs {needs}; remove it, or add them"
    elif limit is not None and rung_items >= limit:
        yield f"rung_items: {rung_items} is not below the objective's limit, {limit}; write fewer"


def _why_no_race(
    task: str | None,
    metric: str,
    objectives: int,
    search: SearchConfig,
    rule: BestRule | None,
    limited: Sequence[str],
) -> Iterator[str]:
    if task is None:
        yield "trials are compared by the items of an lm-eval task, and the objective has none"
    elif objectives > 1:
        yield f"trials race by one objective, and this study has {objectives}"
    elif metric.partition(",")[0] in NO_ITEMS:
        yield f"{metric} is not a mean over items, so trials cannot be compared by items"
    elif search.algorithm in LINEAGES:
        yield f"a trial of {search.algorithm} is a part of a run, which others continue"
    elif rule is not None and rule.metric not in (None, f"{task}/{metric}"):
        yield f"`best` ranks trials by {rule.metric}, and a race compares them by the objective"
    elif others := [one for one in limited if "/" in one and one != f"{task}/{metric}"]:
        yield f"a trial that ends early has no {others[0]}, which score.constraints limits"
