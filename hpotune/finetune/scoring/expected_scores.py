"""The names of the scores that lm-eval tasks will give, found before there is a model.

The first requests of each task are answered with a fixed answer and go through the task's own filters and
`process_results`, and through the groups' aggregation: the same functions that make the names of the real scores.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.evaluator_utils import EvalAcc, aggregate_groups
from lm_eval.tasks.manager import TaskDict

from hpotune.config.lm_eval_tasks import TaskIndex
from hpotune.config.schema.study_config import Objective, ScoreConfig
from hpotune.errors import nearest
from hpotune.finetune.scoring.item_scores import EvalResults, task_scores
from hpotune.finetune.scoring.task_loading import missing_package, reason, task_key
from hpotune.finetune.trial_errors import UserError

ITEMS = 3
"""Items of each task that are answered."""
MORE_ITEMS = 200
"""Items that are answered if one of the task's own metrics is missing: a task may leave it out of some items."""
ANSWERS: Mapping[str, Sequence[object]] = {
    "loglikelihood": [(-1.0, False)],
    "loglikelihood_rolling": [-1.0],
    "generate_until": ["", "1", "A"],
}
"""Kind of request -> answers that are tried in this order until the task accepts one."""
Scores = dict[str, float]


def objective_value(numbers: Mapping[str, float], objective: Objective) -> tuple[float, float | None]:
    """The value of an objective, and its standard error (None if the metric has none).

    Raises: UserError for a metric that was not measured, naming those that were.
    """
    label = objective.label
    if label in numbers:
        return numbers[label], numbers.get(f"{label}_stderr")
    prefix = f"{objective.task}/" if objective.task else ""
    measured = [name for name in numbers if name.startswith(prefix) and not name.endswith("_stderr")]
    if measured:
        valid = nearest(objective.metric, (name.removeprefix(prefix) for name in measured))
        raise UserError(
            f"score.objective: {objective.task or 'the trial'} has no metric {objective.metric!r}; {valid}"
        )
    raise UserError(
        f"score.objective: {objective.task!r} is a tag or group without a score of its own; "
        f"{nearest(label, (name for name in numbers if not name.endswith('_stderr')))}"
    )


def check_scores(loaded: TaskDict, names: Sequence[str], index: TaskIndex, score: ScoreConfig) -> list[str]:
    """Check that every objective and limit on these tasks will be measured; return warnings.

    `loaded`: with its requests built. A task with requests of several kinds is not checked: only its real answers show
    the names of its scores.

    Raises: UserError for a metric, or a filter, that a task does not have, and for a task that cannot score an answer.
    """
    rows = {
        leaf: _answered_row(task, leaf, key=task_key(score, owner))
        for leaf, task in loaded["tasks"].items()
        for owner in [next(name for name in names if leaf in index.leaves(name))]
    }
    known = {name: row for name, row in rows.items() if row is not None}
    scores = _expected_scores(loaded, names, index, known)
    of_tasks = _expected_scores(loaded, [name for name in known if index.exists(name)], index, known)
    for objective in score.objective:
        if objective.task and objective.task in names and index.leaves(objective.task) <= known.keys():
            objective_value(of_tasks | scores, objective)
        if score.race is not None and objective.task in names:
            _check_means(objective, loaded)
    for limit in score.constraints:
        task, _, _ = limit.metric.rpartition("/")
        if task in names and index.leaves(task) <= known.keys() and limit.metric not in scores:
            raise UserError(
                f"score.constraints: metric={limit.metric!r} is not measured; {nearest(limit.metric, scores)}"
            )
    return [text for objective in score.objective for text in _direction_warning(objective, loaded)]


def _check_means(objective: Objective, loaded: TaskDict) -> None:
    """Raises: UserError where the objective is no mean of one answer for each item, so that trials cannot race."""
    metric = objective.metric.partition(",")[0]
    for name, task in loaded["tasks"].items():
        aggregate = task.aggregation().get(metric)
        if aggregate is not None and aggregate is not mean:
            how = getattr(aggregate, "__name__", "a function of its own")
            raise UserError(
                f"score.race: {metric} of {name} is no mean over items ({how}), so trials cannot be compared by items; "
                "write race: false"
            )
        if any(one.repeats > 1 for one in task.instances):
            raise UserError(
                f"score.race: {name} asks each item several times, which a race does not support; write race: false"
            )


def _expected_scores(
    loaded: TaskDict, names: Sequence[str], index: TaskIndex, rows: Mapping[str, Mapping[str, object]]
) -> Scores:
    """A number under each name that the tasks and groups will give."""
    accumulated = EvalAcc(metrics={name: dict(row) for name, row in rows.items()}, groups=loaded["groups"])
    results: EvalResults = {
        "group_subtasks": {name: group.child_names for name, group in loaded["groups"].items()},
        "results": aggregate_groups(accumulated).metrics,
        "samples": {},
    }
    return task_scores(results, names, index)


def _answered_row(task: Task, name: str, *, key: str) -> dict[str, object] | None:
    """The task's row of lm-eval's results, with a number under each `metric,filter`; None if it cannot be tried.

    Raises: UserError for a filter or a function of the task that fails with every answer, or a package that it imports
    when it compares answers.
    """
    kinds = {instance.request_type for instance in task.instances}
    if len(kinds) != 1 or not kinds <= ANSWERS.keys():
        return None
    _check_filters(task, name, key=key)
    answers = [*ANSWERS[next(iter(kinds))], *_right_answers(task)]
    values = _values(task, name, answers, ITEMS, key=key)
    if any(label not in values for label in _declared(task)):
        values |= _values(task, name, answers, MORE_ITEMS, key=key)
    labels = [label for label, found in values.items() if _number(task, label, found, name, key=key)]
    numbers = {part: 0.5 for label in labels for part in (label, _stderr(label))}
    return {"name": name, "alias": name, "sample_len": ITEMS, **numbers}


def _check_filters(task: Task, name: str, *, key: str) -> None:
    """Raises: UserError for a filter that cannot be made of its settings: lm-eval makes it after the answers only."""
    for pipeline in task._filters:
        for make in pipeline.filters:
            try:
                make()
            except Exception as error:
                raise UserError(
                    f"{key}: {name} has a filter ({pipeline.name}) that cannot be used: {reason(error)}; correct "
                    "filter_list in its task file"
                ) from error


def _right_answers(task: Task) -> Iterator[str]:
    """The right answer of the first item, where the model writes one: filters that look for a form find it there."""
    first = task.instances[0]
    if first.request_type == "generate_until":
        try:
            right = task.doc_to_target(first.doc)
        except Exception:  # a task that needs none
            return
        yield str(right[0] if isinstance(right, list) and right else right)


def _values(
    task: Task, name: str, answers: Sequence[object], items: int, *, key: str
) -> dict[str, list[object]]:
    """`metric,filter` -> scores of the first items, of all answers that the task accepts.

    Raises: UserError if it accepts none.
    """
    values: dict[str, list[object]] = {}
    refused: list[Exception] = []
    for answer in answers:
        try:
            for label, found in _answered(task, answer, items).items():
                values.setdefault(label, found)
        except ImportError as error:
            raise UserError(f"{key}: {name} needs {missing_package(error, None) or reason(error)}") from error
        except Exception as error:  # the task's own code may refuse an answer that no model gives
            refused.append(error)
    if len(refused) == len(answers):
        text = type(refused[-1]).__name__ if key == "score.test" else reason(refused[-1])
        raise UserError(
            f"{key}: {name} cannot score an answer: {text}; correct filter_list or process_results in its task file"
        ) from refused[-1]
    return values


def _answered(task: Task, answer: object, count: int) -> dict[str, list[object]]:
    """`metric,filter` -> the scores that the task gives for this answer to its first items."""
    items: dict[int, list[Instance]] = {}
    for instance in task.instances:
        if instance.doc_id in items or len(items) < count:
            one = copy.copy(instance)
            one.resps, one.filtered_resps = [copy.copy(answer)] * (instance.repeats or 1), {}
            items.setdefault(instance.doc_id, []).append(one)
    every = [one for ones in items.values() for one in ones]
    for pipeline in task._filters:
        pipeline.apply(every)
    found: dict[str, list[object]] = {}
    for ones in items.values():
        for kind in ones[0].filtered_resps:
            metrics = task.process_results(ones[0].doc, [one.filtered_resps[kind] for one in ones])
            for metric, value in metrics.items():
                found.setdefault(f"{metric},{kind}", []).append(value)
    return found


def _number(task: Task, label: str, values: Sequence[object], name: str, *, key: str) -> bool:
    """As `_is_number`. Raises: UserError for a package that the aggregation imports."""
    try:
        return _is_number(task, label, values)
    except ImportError as error:
        raise UserError(f"{key}: {name} needs {missing_package(error, None) or reason(error)}") from error


def _is_number(task: Task, label: str, values: Sequence[object]) -> bool:
    """Whether the score over all items is a number; True if that cannot be found from these values."""
    aggregate = task.aggregation().get(label.partition(",")[0])
    if aggregate is None:
        return True  # lm-eval takes the mean
    try:
        return isinstance(aggregate(values), (int, float, np.number))
    except ImportError:
        raise
    except Exception:  # of three equal answers, say, there may be no correlation
        return True


def _declared(task: Task) -> Iterator[str]:
    """The scores that a task with its own code declares: it may leave one out of some items."""
    if not isinstance(task, ConfigurableTask) or callable(task.config.process_results):
        yield from (
            f"{metric},{pipeline.name}" for metric in task.aggregation() for pipeline in task._filters
        )


def _stderr(label: str) -> str:
    metric, _, kind = label.partition(",")
    return f"{metric}_stderr,{kind}"


def _direction_warning(objective: Objective, loaded: TaskDict) -> Iterator[str]:
    """A warning where the study optimizes a metric against the direction that the task's file gives."""
    task = loaded["tasks"].get(objective.task or "")
    higher = task.higher_is_better().get(objective.metric.partition(",")[0]) if task is not None else None
    if isinstance(higher, bool) and higher != (objective.sense == "maximize"):
        yield (
            f"score.objective: {objective.label} is {objective.sense}d, but its task file says higher_is_better: "
            f"{str(higher).lower()}; set direction if the file is right"
        )
