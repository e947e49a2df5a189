"""Scores of lm-eval tasks for the model in memory, in this process; the items are distributed over the ranks.

The numbers are those of the `lm_eval` command line (same task files, seeds and standard errors); its task index (5 to
12 s), its report on the machine and its output are left out. An adapter is scored unmerged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate

from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.progress_file import ProgressFile
from hpotune.finetune.scoring.distributed_lm import DistributedLM
from hpotune.finetune.scoring.generation_speed import GenerationSpeed
from hpotune.finetune.scoring.item_scores import ITEMS, EvalResults, item_scores, task_scores, write_items
from hpotune.finetune.scoring.library_state import preserved_random_state, quiet_libraries, seed_libraries
from hpotune.finetune.scoring.race import Race, decision, documents, first_in_order, parts, requests_of
from hpotune.finetune.scoring.request_tokens import KeptTokens
from hpotune.finetune.scoring.task_requests import BuiltCall, BuiltTasks, reset_answers
from hpotune.finetune.training.pass_limit import PassLimit

BOOTSTRAPS = 100_000
"""Bootstrap samples of a standard error, lm-eval's default; those of means are computed without bootstrap."""


def score_tasks(
    model: torch.nn.Module,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    built: BuiltTasks,
    limit: PassLimit,
    ranks: Ranks,
    folder: Path,
    subjects: bool = False,
    share_context: bool = True,
    stop_requested: Callable[[], bool] = lambda: False,
    progress: ProgressFile | None = None,
    kept_tokens: KeptTokens | None = None,
    race: Race | None = None,
    first_items: tuple[int, int] | None = None,
    seed: int = 0,
    speed: GenerationSpeed | None = None,
) -> dict[str, float]:
    """Score the tasks and return every number: `hellaswag/acc_norm`, `hellaswag/acc_norm_stderr`, …, on every rank.

    A group gives its own numbers and those of the groups in it (with `subjects` also those of its single tasks), a tag
    those of its tasks. A filter other than `none` is part of the name: `gsm8k/exact_match,strict-match`.
    Rank 0 writes `folder/items.npz` (plain numpy, readable on login nodes): for every single task `hellaswag/doc_id`
    int64 (items,) and `hellaswag/acc_norm` float64 (items,), in the order of doc_id (NaN: the item has no such metric);
    for every requested name `mmlu/leaves`, its single tasks.

    `race`: how the items of the objective are scored in parts; where it ends early (`race.ended`), no number is
    returned, and items.npz holds the items until then. `first_items`: how many items of each single task are scored,
    and the seed of their order; None: all.
    `share_context`: score.share_context. `progress`: where the tasks and their requests are shown. `kept_tokens`:
    tokens of earlier scorings with the same tokenizer. `seed`: of the random numbers of sampled answers. `speed`: where
    the generated answers of this rank are counted.

    Raises: Paused on every rank if `stop_requested` is true on one.
    """
    if not built.calls:
        return {}
    assert built.index is not None, "there are tasks"
    scores, items = dict[str, float](), dict[str, np.ndarray]()
    training, progress = model.training, progress or ProgressFile()
    reset_answers(built)
    with quiet_libraries(), preserved_random_state(ranks.device):
        lm = DistributedLM(
            model,
            tokenizer,
            limit=limit,
            ranks=ranks,
            share_context=share_context,
            stop_requested=stop_requested,
            progress=progress,
            kept_tokens=kept_tokens,
            seed=seed,
            speed=speed,
        )
        try:
            for call in built.calls:
                if race is not None and call.settings.in_parts:
                    items.update(_score_in_parts(lm, call, built, ranks, race, progress=progress))
                    if race.ended is not None:
                        scores.clear()
                        break
                with progress.phase("score", task=", ".join(call.names)):
                    chosen = first_in_order(call.loaded, *first_items) if first_items else None
                    results = _evaluate(lm, call, built, ranks, chosen=chosen)
                    lm.known.clear()
                scores.update(task_scores(results, call.names, built.index, subjects=subjects))
                items.update(item_scores(results, call.names, built.index))
        finally:
            lm.remove_hook()
    model.train(training)
    _say_why_not_shared(lm.why_not_shared, ranks)
    if ranks.is_main:
        write_items(folder / ITEMS, items)
    return ranks.broadcast_object(scores)


def _say_why_not_shared(why: str | None, ranks: Ranks) -> None:
    """Say in the trial's log why the items of a rank were scored by lm-eval's own code."""
    found = [text for text in dict.fromkeys(ranks.all_gather_object(why)) if text is not None]
    if found and ranks.is_main:
        sys.stderr.write(f"scored without shared contexts: {'; '.join(found)}\n")


def _score_in_parts(
    lm: DistributedLM,
    call: BuiltCall,
    built: BuiltTasks,
    ranks: Ranks,
    race: Race,
    *,
    progress: ProgressFile,
) -> dict[str, np.ndarray]:
    """Answer the requests of a call part by part; the arrays of the items so far where the race ends (on rank 0).

    All ranks have the answers; rank 0 decides for all.
    """
    assert built.index is not None, "there are tasks"
    if ranks.is_main:
        race.read_leader()
    compared = ranks.broadcast_object(race.leader is not None)
    every = documents(call.loaded)
    seed_libraries()
    for look, chosen in parts(call.loaded, race.seed):
        whole = all(len(chosen[task]) == len(ids) for task, ids in every.items())
        share = sum(map(len, chosen.values())) / sum(map(len, every.values()))
        with progress.phase("score", task=f"{', '.join(call.names)}, to {100 * share:.0f} % of its items"):
            asked = requests_of(call.loaded, chosen)
            lm.answer_in_advance([one for one in asked if id(one) not in lm.known])
        if whole or not compared:
            continue
        arrays: dict[str, np.ndarray] = {}
        ended = None
        if ranks.is_main:
            results = _evaluate(lm, call, built, ranks, chosen=chosen, bootstraps=0)
            reset_answers(built)
            arrays = item_scores(results, call.names, built.index)
            ended = decision(race, look, arrays, every)
        race.ended = ranks.broadcast_object(ended)
        if race.ended is not None:
            return arrays
    return {}


def _evaluate(
    lm: DistributedLM,
    call: BuiltCall,
    built: BuiltTasks,
    ranks: Ranks,
    *,
    chosen: Mapping[str, set[int]] | None = None,
    bootstraps: int = BOOTSTRAPS,
) -> EvalResults:
    """lm-eval's results of one call, with the seeds of its command line.

    `chosen`: the documents of each single task that are scored; None: all whose requests are built.
    """
    seed_libraries()
    # Every rank has all answers; the bootstrap on one of them is enough.
    bootstraps = bootstraps if ranks.is_main else 0
    with _requests_kept(call, chosen):
        results: EvalResults = evaluate(
            lm=lm,
            task_dict=call.loaded,
            limit=call.settings.limit,
            bootstrap_iters=bootstraps,
            log_samples=True,
            system_instruction=built.system,
            apply_chat_template=built.chat_template,
            fewshot_as_multiturn=built.chat_template,
            confirm_run_unsafe_code=built.confirm_unsafe_code,
        )
    return results


@contextmanager
def _requests_kept(call: BuiltCall, chosen: Mapping[str, set[int]] | None) -> Iterator[None]:
    """A context in which lm-eval's evaluator takes the requests that are built, instead of building them again.

    `chosen`: only those of these documents.
    """
    tasks = call.loaded["tasks"]
    built = {name: task.instances for name, task in tasks.items()}
    for name, task in tasks.items():
        task.build_all_requests = lambda **_: None
        if chosen is not None:
            task._instances = [one for one in built[name] if one.doc_id in chosen[name]]
            task.doc_iterator = partial(_documents, task, chosen[name])
    try:
        yield
    finally:
        for name, task in tasks.items():
            del task.build_all_requests
            if chosen is not None:
                del task.doc_iterator
                task._instances = built[name]


def _documents(task: Task, chosen: set[int], **_: object) -> Iterator[tuple[int, object]]:
    """The chosen documents of a task with their numbers, instead of Task.doc_iterator, which numbers them anew."""
    return ((number, doc) for number, doc in enumerate(task.eval_docs) if number in chosen)
