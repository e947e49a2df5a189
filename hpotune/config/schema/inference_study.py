"""What a study that trains nothing may say: it has a model, no data, and searches how the model answers."""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.rungs import LINEAGES
from hpotune.config.schema.score_config import ScoreConfig
from hpotune.config.schema.search_config import SearchConfig

MEASURED = ("sequences_per_second", "peak_memory_gb", "gpu_hours", "process_hours")
"""What a trial measures without training, beside the scores of tasks."""
WITHOUT_DATA = "a study that trains nothing has score.generation or num_fewshot"


def searches_answers(score: ScoreConfig) -> bool:
    """Whether the section says how the model answers, so that a study without data is meant."""
    examples = [score.num_fewshot, *(objective.num_fewshot for objective in score.objective)]
    return bool(score.generation.given) or any(number is not None for number in examples)


def inference_mistakes(score: ScoreConfig, search: SearchConfig, best: BestRule | None) -> Iterator[str]:
    """Errors of such a study, each with `SECTION: KEY: ` first. `best`: of the study file."""
    for objective in score.objective:
        if objective.task is None and objective.metric not in MEASURED:
            yield (
                f"score: objective: {objective.metric!r} is not measured, since nothing is trained without data; name "
                f"a task, or one of {', '.join(MEASURED)}"
            )
    for limit in score.constraints:
        if "/" not in limit.metric and limit.metric not in (*MEASURED, "seconds"):
            yield f"score: constraints: {limit.metric!r} is not measured, since nothing is trained without data"
    for name in sorted(best.names) if best is not None else ():
        if "/" not in name and name not in (*MEASURED, "seconds"):
            yield f"best: {name!r} is not measured, since nothing is trained without data"
    if search.ladder is not None and search.ladder.unit != "items":
        rule = "are parts of a training, and nothing is trained without data"
        yield f"search: pruner: rungs by {search.ladder.unit} {rule}; write rungs: {{unit: items, at: [100, 1000]}}"
    if search.algorithm in LINEAGES:
        yield f"search: algorithm: {search.algorithm} continues trainings, and nothing is trained without data"
