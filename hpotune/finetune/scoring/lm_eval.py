"""Scores of lm-eval tasks for the model in memory, in this process; the items are distributed over the ranks.

The numbers are those of the `lm_eval` command line (same task files, seeds and standard errors); its task index (5 to
12 s), its report on the machine and its output are left out. An adapter is scored unmerged.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from datasets.exceptions import DatasetsError
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from hpotune.config.lm_eval_tasks import TaskIndex, task_index
from hpotune.config.schema.study_config import Objective, ScoreConfig
from hpotune.errors import nearest
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.hub import redirected_datasets
from hpotune.finetune.scoring.distributed_lm import DistributedLM
from hpotune.finetune.scoring.item_scores import ITEMS, EvalResults, item_scores, task_scores, write_items
from hpotune.finetune.trial_errors import DataError, UserError

BOOTSTRAPS = 100_000
"""Bootstrap samples of a standard error, lm-eval's default; those of means are computed without bootstrap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRequest:
    """One lm-eval task, group or tag, with its settings."""

    task: str
    limit: int | None = None
    """The number of first items of each single task; None: all."""
    num_fewshot: int | None = None
    """Examples in the prompt; None: the task's own number."""


def requested_tasks(score: ScoreConfig) -> list[TaskRequest]:
    """The tasks that a trial scores: those of the objectives, and those of `score.record`."""
    index = task_index(score.include_path)
    tasks = [
        TaskRequest(task=objective.task, limit=objective.limit, num_fewshot=objective.num_fewshot)
        for objective in score.objective
        if objective.task is not None
    ]
    of_objectives = {one.task for one in tasks}
    names = [
        name
        for name in score.record
        if name not in of_objectives and index is not None and index.exists(name)
    ]
    return [*dict.fromkeys(tasks), *(TaskRequest(task=name) for name in names)]


def score_tasks(
    model: torch.nn.Module,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    tasks: Sequence[TaskRequest],
    score: ScoreConfig,
    data_root: str | None,
    ranks: Ranks,
    folder: Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Score `tasks` and return every number: `hellaswag/acc_norm`, `hellaswag/acc_norm_stderr`, …, on every rank.

    A group gives its own numbers and those of the groups in it, a tag those of its tasks. A filter other than `none` is
    part of the name: `gsm8k/exact_match,strict-match`.
    Rank 0 writes `folder/items.npz` (plain numpy, readable on login nodes): for every single task `hellaswag/doc_id`
    int64 (items,) and `hellaswag/acc_norm` float64 (items,), in the order of doc_id (NaN: the item has no such metric);
    for every requested name `mmlu/leaves`, its single tasks.

    Raises: UserError for an unknown task, and for tasks that share items but have different settings; DataError for a
    dataset that cannot be read; Paused on every rank if `stop_requested` is true on one.
    """
    if not tasks:
        return {}
    manager, index = _task_manager(tasks, score.include_path)
    scores, items = dict[str, float](), dict[str, np.ndarray]()
    training = model.training
    with redirected_datasets(data_root), _silence_libraries(), _preserve_random_state(ranks.device):
        lm = DistributedLM(
            model, tokenizer, batch_size=score.batch_size, ranks=ranks, stop_requested=stop_requested
        )
        try:
            for names, settings in _evaluate_calls(tasks, index):
                results = _evaluate(lm, manager, names, settings=settings, ranks=ranks)
                scores.update(task_scores(results, names, index))
                items.update(item_scores(results, names, index))
        finally:
            lm.remove_hook()
    model.train(training)
    if ranks.is_main:
        write_items(folder / ITEMS, items)
    return ranks.broadcast_object(scores)


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


def _task_manager(tasks: Sequence[TaskRequest], include_path: str | None) -> tuple[TaskManager, TaskIndex]:
    """lm-eval's task manager of the folders that are needed, and the index of all tasks.

    Raises: UserError for a task that is not in the index.
    """
    index = task_index(include_path)
    assert index is not None, "lm_eval is imported above"
    own = (
        [str(Path(include_path).expanduser())] if include_path else []
    )  # last, so that its tasks take precedence
    unknown = [one.task for one in tasks if not index.exists(one.task)]
    if unknown:
        hints = "; ".join(f"{name!r} {_hint(index.nearest(name))}" for name in unknown)
        raise UserError(f"score: unknown lm-eval task {hints}")
    folders = [str(folder) for folder in index.folders(one.task for one in tasks)]
    with _silence_libraries():
        return TaskManager(include_defaults=False, include_path=folders + own), index


def _hint(names: list[str]) -> str:
    return f"(did you mean {' or '.join(names)}?)" if names else "(`lm_eval ls tasks` lists all)"


def _evaluate_calls(tasks: Sequence[TaskRequest], index: TaskIndex) -> list[tuple[list[str], TaskRequest]]:
    """The names of each call of lm-eval, with a request that has their settings.

    lm-eval refuses a call in which two names share a single task: such names get calls of their own.
    Raises: UserError for tasks that share items but have different settings.
    """
    calls: list[tuple[list[str], TaskRequest]] = []
    for one in dict.fromkeys(tasks):
        matching = None
        for names, settings in calls:
            shared = [name for name in names if index.leaves(one.task) & index.leaves(name)]
            same = (settings.limit, settings.num_fewshot) == (one.limit, one.num_fewshot)
            if shared and not same:
                raise UserError(
                    f"score: {one.task!r} and {shared[0]!r} share items; give them the same limit and num_fewshot"
                )
            if same and not shared:
                matching = names
        if matching is None:
            calls.append(([one.task], one))
        else:
            matching.append(one.task)
    return calls


def _evaluate(
    lm: DistributedLM, manager: TaskManager, names: list[str], *, settings: TaskRequest, ranks: Ranks
) -> EvalResults:
    """lm-eval's results of one call, with the seeds of its command line.

    Raises: DataError for a dataset that cannot be read.
    """
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    try:
        loaded = manager.load(names)
    except (OSError, DatasetsError) as error:
        line = str(error).partition("\n")[0]
        raise DataError(
            f"score: a dataset of {', '.join(names)} cannot be read ({line}); load it once with internet access, "
            "or set data_root to its folder"
        ) from error
    for task in loaded["tasks"].values():
        _set_fewshot(task, settings.num_fewshot)
    # Every rank has all answers; the bootstrap on one of them is enough.
    bootstraps = BOOTSTRAPS if ranks.is_main else 0
    results: EvalResults = evaluate(
        lm=lm, task_dict=loaded, limit=settings.limit, bootstrap_iters=bootstraps, log_samples=True
    )
    return results


def _set_fewshot(task: Task, number: int | None) -> None:
    own = task.get_config("num_fewshot")
    if number is not None and own == 0 and number > 0:
        raise UserError(f"score: {task.config.task} is defined with num_fewshot 0; remove num_fewshot")
    task.set_config(key="num_fewshot", value=number if number is not None else own or 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


@contextlib.contextmanager
def _silence_libraries() -> Iterator[None]:
    """A context without the progress bars and log messages of the libraries; errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _preserve_random_state(device: torch.device) -> Iterator[None]:
    """A context that restores the random states at its end, so that scoring does not change the training."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
