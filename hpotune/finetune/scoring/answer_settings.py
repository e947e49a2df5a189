"""Asks the built requests of generate_until tasks with a point's `score.generation`, after the checks of what it asks.

The requests are built with the tasks' own generation_kwargs, so that trials at different points share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import transformers
from lm_eval.api.task import Task
from lm_eval.models.utils import normalize_gen_kwargs

from hpotune.config.schema.generation_settings import SAMPLING
from hpotune.config.schema.study_config import ScoreConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.scoring.generation_speed import METRIC
from hpotune.finetune.scoring.request_checks import (
    MAX_GEN_TOKS,
    LongQuestion,
    check_length,
    long_warnings,
)
from hpotune.finetune.scoring.task_requests import BuiltTasks, key_of_task
from hpotune.finetune.trial_errors import UserError

KEY = "score.generation"


def ask_with(
    built: BuiltTasks,
    score: ScoreConfig,
    *,
    tokenizer: transformers.PreTrainedTokenizerBase,
    config: transformers.PretrainedConfig,
    sealed: bool = False,
) -> list[str]:
    """Let the requests generate as `score.generation` says, and the tasks' own settings otherwise; return warnings.

    `config`: of the base model. `sealed`: they are those of the sealed test, which need not generate.

    Raises: UserError for settings that no task reads or that have no effect on one, and for a task that generates as
    many tokens as the model can read.
    """
    given = score.generation.given
    built.set_generation(given)
    tasks = [*_generating(built)]
    if not sealed:
        _check_read(tasks, score)
    for task in tasks:
        _check_settings(task, given)
    long: dict[str, list[LongQuestion]] = {}
    assert built.index is not None or not built.calls, "there are tasks"
    for call in built.calls:
        for name, task in call.loaded["tasks"].items():
            assert built.index is not None, "there are tasks"
            key = key_of_task(call, name, built.index, score)
            if (question := check_length(task, config, tokenizer, key=key)) is not None:
                long.setdefault(key, []).append(question)
    return [text for key, found in long.items() for text in long_warnings(key, found)] + [*_warnings(score)]


def _generating(built: BuiltTasks) -> Iterator[Task]:
    """The single tasks whose answers are generated."""
    for call in built.calls:
        for task in call.loaded["tasks"].values():
            if task.instances and task.instances[0].request_type == "generate_until":
                yield task


def _check_read(tasks: Sequence[Task], score: ScoreConfig) -> None:
    """Raises: UserError where something depends on generated answers, and there are none."""
    if tasks:
        return
    if score.generation.given:
        name = next(iter(score.generation.given))
        raise UserError(
            f"{KEY}: {name} has no effect: no task of this study generates its answers (output_type: generate_until); "
            "remove the section, or score such a task"
        )
    if any(objective.task is None and objective.metric == METRIC for objective in score.objective):
        raise UserError(
            f"score.objective: {METRIC} is measured on tasks that generate their answers (output_type: "
            "generate_until), and this study has none; score one under score.record"
        )


def check_searched(built: BuiltTasks, score: ScoreConfig) -> None:
    """Check that an objective depends on `score.generation`, of which a key is a range.

    Raises: UserError where the search would vary it for nothing.
    """
    generating = {task.config.task for task in _generating(built)}
    tasks = [one.task for one in score.objective if one.task is not None]
    index = built.index
    found = {leaf for task in tasks for leaf in (index.leaves(task) if index is not None else ())}
    timed = any(one.task is None and one.metric == METRIC for one in score.objective)
    if generating and not timed and not found & generating:
        raise UserError(
            f"{KEY}: has a range, and no objective depends on it: the tasks of the objectives do not generate their "
            "answers; write one value, or make a task that generates them an objective"
        )


def _check_settings(task: Task, given: Mapping[str, Value]) -> None:
    """Raises: UserError where the settings and the task's own ones contradict each other."""
    settings, name = task.instances[0].args[1], task.config.task
    read = normalize_gen_kwargs(settings, MAX_GEN_TOKS)
    if read["do_sample"] and not read.get("temperature"):
        raise UserError(f"{KEY}: do_sample: true needs a temperature, and {name} has none of its own; add it")
    unread = next((one for one in SAMPLING if one in given and not read["do_sample"]), None)
    if unread is not None:
        raise UserError(f"{KEY}: {unread} has no effect on {name}; write do_sample: true beside it")
    least = settings.get("min_new_tokens")
    if least is not None and least > read["max_gen_toks"]:
        raise UserError(
            f"{KEY}: min_new_tokens={least} is above the {read['max_gen_toks']} tokens (max_gen_toks) that {name} "
            "generates at most; lower it, or raise max_gen_toks"
        )


def _warnings(score: ScoreConfig) -> Iterator[str]:
    given = score.generation.given
    beams = given.get("num_beams")
    if given.get("do_sample") is True and isinstance(beams, int) and beams > 1:
        yield (
            f"{KEY}: with num_beams and do_sample the answers depend on score.batch_size and on the number of ranks, "
            "which the search then measures too"
        )
