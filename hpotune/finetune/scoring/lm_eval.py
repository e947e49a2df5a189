"""Scores of lm-eval tasks for the model in memory, in this process; several ranks share the items.

The numbers are those of the `lm_eval` command line (same task files, same seeds, same standard errors); left
out are its task index (5 to 12 s), its survey of the machine and its noise. An adapter is scored unmerged.
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
from datasets.exceptions import DatasetsError
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from hpotune.config.lm_eval_tasks import TaskIndex, task_index
from hpotune.config.schema.study_config import Json, Objective, ScoreConfig
from hpotune.errors import nearest
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.model.hub import redirected_datasets
from hpotune.finetune.scoring.distributed_lm import SharedLM
from hpotune.finetune.scoring.item_scores import ITEMS, items_of, numbers_of, write_items
from hpotune.finetune.trial_errors import DataError, UserError

BOOTSTRAPS = 100_000
"""lm-eval's default; means have a closed form and draw none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One lm-eval task, group or tag, and how it is asked."""

    task: str
    limit: int | None = None
    """First items of each single task; null: all."""
    num_fewshot: int | None = None
    """null: the task's own number."""


def wanted(score: ScoreConfig) -> list[Wanted]:
    """What an ordinary trial scores: the tasks of the objective, and those that are recorded beside it."""
    index = task_index(score.include_path)
    tasks = [
        Wanted(task=objective.task, limit=objective.limit, num_fewshot=objective.num_fewshot)
        for objective in score.objective
        if objective.task is not None
    ]
    chosen = {one.task for one in tasks}
    names = [name for name in score.record if name not in chosen and index is not None and index.exists(name)]
    return [*dict.fromkeys(tasks), *(Wanted(task=name) for name in names)]


def score_tasks(
    model: torch.nn.Module,
    tokenizer: Json,
    *,
    tasks: Sequence[Wanted],
    score: ScoreConfig,
    data_root: str | None,
    ranks: Ranks,
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Every number of `tasks`: `hellaswag/acc_norm`, `hellaswag/acc_norm_stderr`, …; the same on every rank.

    A group gives its own numbers and those of the groups in it, a tag those of its tasks. A filter other than
    `none` stands in the name: `gsm8k/exact_match,strict-match`.
    Rank 0 writes `folder/items.npz` (plain numpy, for login nodes): for every single task `hellaswag/doc_id` int64
    (items,) and `hellaswag/acc_norm` float64 (items,), sorted by doc_id (NaN: the item has no such metric); for
    every name asked for `mmlu/leaves`, its single tasks.

    Raises: UserError for an unknown task, and for tasks that share items but are asked in two ways; DataError for
    a dataset that is not here; Paused on every rank where `stop` turns true on one.
    """
    if not tasks:
        return {}
    manager, index = _manager(tasks, score.include_path)
    numbers, items = dict[str, float](), dict[str, np.ndarray]()
    training = model.training
    with redirected_datasets(data_root), _quiet(), _seeds_kept(ranks.device):
        lm = SharedLM(model, tokenizer, batch_size=score.batch_size, ranks=ranks, stop=stop)
        try:
            for names, how in _calls(tasks, index):
                found = _evaluate(lm, manager, names, how=how, ranks=ranks)
                numbers.update(numbers_of(found, names, index))
                items.update(items_of(found, names, index))
        finally:
            lm.release()
    model.train(training)
    if ranks.first_one:
        write_items(folder / ITEMS, items)
    return ranks.first(numbers)


def value_of(numbers: Mapping[str, float], objective: Objective) -> tuple[float, float | None]:
    """An objective's value and its standard error (null where the metric has none).

    Raises: UserError for a metric that was not measured, naming those that were.
    """
    label = objective.label
    if label in numbers:
        return numbers[label], numbers.get(f"{label}_stderr")
    prefix = f"{objective.task}/" if objective.task else ""
    near = [name for name in numbers if name.startswith(prefix) and not name.endswith("_stderr")]
    if near:
        valid = nearest(objective.metric, (name.removeprefix(prefix) for name in near))
        raise UserError(
            f"score.objective: {objective.task or 'the trial'} has no metric {objective.metric!r}; {valid}"
        )
    raise UserError(
        f"score.objective: {objective.task!r} gathers tasks without a number of its own; "
        f"{nearest(label, (name for name in numbers if not name.endswith('_stderr')))}"
    )


def _manager(tasks: Sequence[Wanted], include_path: str | None) -> tuple[TaskManager, TaskIndex]:
    """lm-eval's manager of only the folders needed, and the index that found them.

    Raises: UserError for a task that is not in the index.
    """
    index = task_index(include_path)
    assert index is not None, "lm_eval is imported above"
    own = [str(Path(include_path).expanduser())] if include_path else []  # last, so that it wins
    unknown = [one.task for one in tasks if not index.exists(one.task)]
    if unknown:
        hints = "; ".join(f"{name!r} {_hint(index.nearest(name))}" for name in unknown)
        raise UserError(f"score: unknown lm-eval task {hints}")
    folders = [str(folder) for folder in index.folders(one.task for one in tasks)]
    with _quiet():
        return TaskManager(include_defaults=False, include_path=folders + own), index


def _hint(names: list[str]) -> str:
    return f"(did you mean {' or '.join(names)}?)" if names else "(lm_eval ls tasks lists all)"


def _calls(tasks: Sequence[Wanted], index: TaskIndex) -> list[tuple[list[str], Wanted]]:
    """Names that one call of lm-eval can take together, with how they are asked.

    lm-eval refuses a call in which two names share a single task: such names go one after the other.
    """
    calls: list[tuple[list[str], Wanted]] = []
    for one in dict.fromkeys(tasks):
        home = None
        for names, how in calls:
            shared = [name for name in names if index.leaves(one.task) & index.leaves(name)]
            same = (how.limit, how.num_fewshot) == (one.limit, one.num_fewshot)
            if shared and not same:
                raise UserError(
                    f"score: {one.task!r} and {shared[0]!r} share items; give them the same limit and num_fewshot"
                )
            if same and not shared:
                home = names
        if home is None:
            calls.append(([one.task], one))
        else:
            home.append(one.task)
    return calls


def _evaluate(lm: SharedLM, manager: TaskManager, names: list[str], *, how: Wanted, ranks: Ranks) -> Json:
    """lm-eval's result of one call, seeded as its command line does.

    Raises: DataError for a dataset that is not here.
    """
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    try:
        loaded = manager.load(names)
    except (OSError, DatasetsError) as error:
        line = str(error).partition("\n")[0]
        raise DataError(
            f"score: a dataset of {', '.join(names)} cannot be read ({line}); load it once where there is internet, "
            "or name a folder with data_root"
        ) from error
    for task in loaded["tasks"].values():
        _set_fewshot(task, how.num_fewshot)
    # Every rank has all answers and could do the statistics; one is enough.
    draws = BOOTSTRAPS if ranks.first_one else 0
    return evaluate(lm=lm, task_dict=loaded, limit=how.limit, bootstrap_iters=draws, log_samples=True)


def _set_fewshot(task: Json, number: int | None) -> None:
    own = task.get_config("num_fewshot")
    if number is not None and own == 0 and number > 0:
        raise UserError(f"score: {task.config.task} is written for num_fewshot 0; leave num_fewshot out")
    task.set_config(key="num_fewshot", value=number if number is not None else own or 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars and lm-eval's remarks go nowhere; errors are raised, not printed."""
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
def _seeds_kept(device: torch.device) -> Iterator[None]:
    """The random states of before, afterwards: training goes on as if nothing had been scored."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
