"""The requests of a study's lm-eval tasks, built before there is a model.

A trial builds them before it loads the base model and answers them after training; the rehearsal builds them on the
login node with the same function. They are those of the `lm_eval` command line: same files, seeds and examples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.tasks.manager import TaskDict

from hpotune.config.lm_eval_tasks import TaskIndex, task_index
from hpotune.config.schema.study_config import ScoreConfig, ScoredTask
from hpotune.config.yaml_source import Value
from hpotune.finetune.model.hub import redirected_datasets
from hpotune.finetune.scoring.expected_scores import check_scores
from hpotune.finetune.scoring.library_state import preserved_random_state, quiet_libraries, seed_libraries
from hpotune.finetune.scoring.question_form import (
    ChatTemplate,
    check_chat_template,
    form_warning,
    uses_chat_template,
)
from hpotune.finetune.scoring.request_checks import (
    check_answers,
    check_tokens,
    item_error,
    set_fewshot,
)
from hpotune.finetune.scoring.task_loading import DataFolders, load_tasks, task_key, task_manager
from hpotune.finetune.trial_errors import UserError
from hpotune.records.rehearsal_record import TaskRequests


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRequest:
    """One lm-eval task, group or tag, with its settings."""

    task: str
    limit: int | None = None
    """The number of first items of each single task; None: all."""
    num_fewshot: int | None = None
    """Examples in the prompt; None: the task's own number."""
    in_parts: bool = False
    """Whether its items are scored in random order, in parts (score.race); it has a call of lm-eval of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltCall:
    """The tasks of one call of lm-eval, with their requests."""

    names: list[str]
    """As the study file names them: tasks, groups and tags."""
    settings: TaskRequest
    """With the settings that all of them have."""
    loaded: TaskDict


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltTasks:
    """All tasks that a trial scores."""

    calls: Sequence[BuiltCall]
    index: TaskIndex | None
    """None without tasks."""
    chat_template: bool
    system: str | None
    confirm_unsafe_code: bool
    warnings: Sequence[str] = ()
    own_generation: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """The generation_kwargs of each single task that generates its answers, as its file has them."""

    def set_generation(self, given: Mapping[str, Value]) -> None:
        """Let the tasks generate with these settings, and with their own where there are none."""
        for call in self.calls:
            for name, task in call.loaded["tasks"].items():
                if (own := self.own_generation.get(name)) is None:
                    continue
                for request in task.instances:
                    request.arguments = (request.args[0], {**own, **given})

    @property
    def items(self) -> int:
        """The number of items of all tasks."""
        return sum(
            len({request.doc_id for request in task.instances})
            for call in self.calls
            for task in call.loaded["tasks"].values()
        )

    def summary(self, *, sealed: Sequence[str] = ()) -> dict[str, TaskRequests]:
        """The number of requests and the first one of each named task; only the number of a sealed one."""
        return {
            name: TaskRequests(
                requests=len(requests), first={} if name in sealed else request_text(requests[0])
            )
            for name, requests in self.requests()
        }

    def requests(self) -> Iterator[tuple[str, list[Instance]]]:
        """The name of each task that is scored, and its requests in their order."""
        for call in self.calls:
            assert self.index is not None, "there are tasks"
            for name in call.names:
                leaves, tasks = self.index.leaves(name), call.loaded["tasks"]
                yield name, [one for leaf, task in tasks.items() if leaf in leaves for one in task.instances]


def requested_tasks(score: ScoreConfig) -> list[TaskRequest]:
    """The tasks that a trial scores: those of the objectives, and those of `score.record`."""
    index = task_index(score.include_path)
    tasks = [
        TaskRequest(
            task=objective.task,
            limit=objective.limit,
            num_fewshot=score.num_fewshot if objective.num_fewshot is None else objective.num_fewshot,
            in_parts=score.race is not None,
        )
        for objective in score.objective
        if objective.task is not None
    ]
    of_objectives = {one.task for one in tasks}
    recorded = [
        _task_request(one, score)
        for one in score.record
        if one.task not in of_objectives and index is not None and index.exists(one.task)
    ]
    return [*dict.fromkeys([*tasks, *recorded])]


def _task_request(one: ScoredTask, score: ScoreConfig) -> TaskRequest:
    examples = score.num_fewshot if one.num_fewshot is None else one.num_fewshot
    return TaskRequest(task=one.task, limit=one.limit, num_fewshot=examples)


def sealed_tasks(score: ScoreConfig) -> list[TaskRequest]:
    """The tasks of the sealed test: a rehearsal builds their requests to see that they can be built, `hpotune test`
    scores them."""
    return [*dict.fromkeys(_task_request(one, score) for one in score.test)]


def build_requests(
    tasks: Sequence[TaskRequest],
    *,
    score: ScoreConfig,
    prompt: str | None,
    tokenizer: transformers.PreTrainedTokenizerBase,
    config: transformers.PretrainedConfig,
    data_root: str | None,
    home: str = ".",
) -> BuiltTasks:
    """All requests of the tasks, after every check that needs no weights; generated ones with the tasks' own settings.

    `prompt`: data.prompt, which `score.chat_template: auto` follows; None without data. `config`: of the base model.
    `home`: the folder of the study file. The random state of the caller stays as it is.

    Raises: UserError for an unknown task, a metric or filter that a task does not have, a missing package, code that
    the study does not allow, few-shot examples that there are not, a chat template that there is not, tasks that share
    items but have different settings, texts that the model cannot read; DataError for a dataset that cannot be read.
    Each names its key.
    """
    chat = uses_chat_template(score, prompt)
    folders = DataFolders(home=home, data_root=data_root)
    calls: list[BuiltCall] = []
    warnings: list[str] = []
    own: dict[str, Mapping[str, Value]] = {}
    index = None
    if tasks:
        check_chat_template(tokenizer, score, chat=chat)
        allow_code(score)
        with redirected_datasets(data_root), quiet_libraries(), preserved_random_state(torch.device("cpu")):
            manager, index = task_manager([one.task for one in tasks], score=score, folders=folders)
            for names, settings in _evaluate_calls(tasks, index):
                seed_libraries()
                loaded = load_tasks(manager, names, score=score, folders=folders)
                call = BuiltCall(names=names, settings=settings, loaded=loaded)
                warnings += _build(call, score, tokenizer, config, index, chat=chat)
                own |= _own_generation(loaded)
                warnings += check_scores(loaded, names, index, score)
                calls.append(call)
        warnings += form_warning(chat, prompt)
    return BuiltTasks(
        calls=calls,
        index=index,
        chat_template=chat,
        system=score.system,
        confirm_unsafe_code=score.confirm_unsafe_code,
        warnings=tuple(dict.fromkeys(warnings)),
        own_generation=own,
    )


def _own_generation(loaded: TaskDict) -> dict[str, Mapping[str, Value]]:
    """The settings with which the requests of each generating task were built."""
    return {
        name: dict(task.instances[0].args[1])
        for name, task in loaded["tasks"].items()
        if task.instances and task.instances[0].request_type == "generate_until"
    }


def allow_code(score: ScoreConfig) -> None:
    """Give the consent that the package evaluate asks for, where the study gives it."""
    if score.confirm_unsafe_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"


def key_of_task(call: BuiltCall, leaf: str, index: TaskIndex, score: ScoreConfig) -> str:
    """The key that names the task, group or tag which a single task belongs to."""
    owner = next((name for name in call.names if leaf in index.leaves(name)), call.names[0])
    return task_key(score, owner)


def request_text(request: Instance) -> dict[str, str]:
    """A request as the model sees it: `context`, and `continuation` or the settings of the `generation`."""
    parts = request.args
    if request.request_type == "loglikelihood_rolling":
        return {"context": "", "continuation": str(parts[0])}
    if request.request_type == "generate_until":
        return {"context": str(parts[0]), "continuation": "", "generation": json.dumps(parts[1], default=str)}
    return {"context": str(parts[0]), "continuation": str(parts[1])}


def reset_answers(built: BuiltTasks) -> None:
    """Delete the answers of an earlier scoring, so that the requests can be answered again."""
    for call in built.calls:
        for task in call.loaded["tasks"].values():
            for request in task.instances:
                request.resps, request.filtered_resps = [], {}


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
            if same and not shared and settings.in_parts == one.in_parts:
                matching = names
        if matching is None:
            calls.append(([one.task], one))
        else:
            matching.append(one.task)
    return calls


def _build(
    call: BuiltCall,
    score: ScoreConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    config: transformers.PretrainedConfig,
    index: TaskIndex,
    *,
    chat: bool,
) -> list[str]:
    """Build and check the requests of all tasks of a call; return warnings."""
    template = ChatTemplate(tokenizer, system=score.system)
    for name, task in call.loaded["tasks"].items():
        key = key_of_task(call, name, index, score)
        set_fewshot(task, call.settings.num_fewshot, key=key)
        try:
            task.build_all_requests(
                limit=call.settings.limit,
                system_instruction=score.system,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                chat_template=template if chat else None,
                tokenizer_name=tokenizer.name_or_path.replace("/", "__") if chat else "",
            )
        except UserError:
            raise
        except Exception as error:
            text = item_error(task, error, call.settings.limit, sealed=key == "score.test")
            raise UserError(f"{key}: the requests of {name} cannot be built: {text}") from error
        check_answers(task, key=key)
        check_tokens(task, config, tokenizer, key=key)
    warnings = []
    if template.left_out_system:
        names = ", ".join(call.names)
        warnings.append(
            "score.chat_template: the chat template takes no system message; as lm-eval does, the description of "
            f"{names} is left out"
        )
    return warnings
