"""Scores of lm-eval tasks for the model in memory, in this process; the items are distributed over the ranks.

The numbers are those of the `lm_eval` command line (same task files, seeds and standard errors); its task index (5 to
12 s), its report on the machine and its output are left out. An adapter is scored unmerged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import transformers
from lm_eval.evaluator import evaluate

from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.progress_file import ProgressFile
from hpotune.finetune.scoring.distributed_lm import DistributedLM
from hpotune.finetune.scoring.item_scores import ITEMS, EvalResults, item_scores, task_scores, write_items
from hpotune.finetune.scoring.library_state import preserved_random_state, quiet_libraries, seed_libraries
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
) -> dict[str, float]:
    """Score the tasks and return every number: `hellaswag/acc_norm`, `hellaswag/acc_norm_stderr`, …, on every rank.

    A group gives its own numbers and those of the groups in it (with `subjects` also those of its single tasks), a tag
    those of its tasks. A filter other than `none` is part of the name: `gsm8k/exact_match,strict-match`.
    Rank 0 writes `folder/items.npz` (plain numpy, readable on login nodes): for every single task `hellaswag/doc_id`
    int64 (items,) and `hellaswag/acc_norm` float64 (items,), in the order of doc_id (NaN: the item has no such metric);
    for every requested name `mmlu/leaves`, its single tasks.

    `share_context`: score.share_context. `progress`: where the tasks and their requests are shown. `kept_tokens`:
    tokens of earlier scorings with the same tokenizer.

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
        )
        try:
            for call in built.calls:
                with progress.phase("score", task=", ".join(call.names)):
                    results = _evaluate(lm, call, built, ranks)
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


def _evaluate(lm: DistributedLM, call: BuiltCall, built: BuiltTasks, ranks: Ranks) -> EvalResults:
    """lm-eval's results of one call, with the seeds of its command line."""
    seed_libraries()
    # Every rank has all answers; the bootstrap on one of them is enough.
    bootstraps = BOOTSTRAPS if ranks.is_main else 0
    with _requests_kept(call):
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
def _requests_kept(call: BuiltCall) -> Iterator[None]:
    """A context in which lm-eval's evaluator takes the requests that are built, instead of building them again."""
    tasks = call.loaded["tasks"].values()
    for task in tasks:
        task.build_all_requests = lambda **_: None
    try:
        yield
    finally:
        for task in tasks:
            del task.build_all_requests
