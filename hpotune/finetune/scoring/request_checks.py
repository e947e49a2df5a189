"""Checks of the requests of one lm-eval task: few-shot examples, items that fail, texts that the model cannot read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import transformers
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.models.utils import normalize_gen_kwargs, resolve_max_length

from hpotune.finetune.scoring.task_loading import reason
from hpotune.finetune.trial_errors import UserError

MAX_GEN_TOKS = 256
"""Generated tokens of a task that gives no number: the default of lm-eval's Hugging Face model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LongQuestion:
    """A task's longest question, of which the model reads the end only."""

    task: str
    tokens: int
    room: int
    """Tokens that the model reads, without those that it generates."""


def check_tokens(
    task: Task,
    config: transformers.PretrainedConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    key: str,
) -> None:
    """Check that the model has every token of the task's texts. `config`: of the model.

    Raises: UserError.
    """
    vocabulary = config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        _check_ids(task, vocabulary, tokenizer, key=key)


def check_length(
    task: Task,
    config: transformers.PretrainedConfig,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    key: str,
) -> LongQuestion | None:
    """Check that the model can read and generate what the task asks for. `config`: of the model.

    Returns the longest question if its beginning is left out.
    Raises: UserError for a task that generates as many tokens as the model can read, or has so long an answer.
    """
    return _check_length(task, resolve_max_length(config, tokenizer), tokenizer, key=key)


def long_warnings(key: str, found: Sequence[LongQuestion]) -> Iterator[str]:
    """One warning for all tasks with questions of which the model reads the end only."""
    if found:
        worst = max(found, key=lambda question: question.tokens)
        others = f" (and of {len(found) - 1} other tasks)" if len(found) > 1 else ""
        yield (
            f"{key}: the longest question of {worst.task}{others} has {worst.tokens} tokens, and the model reads "
            f"{worst.room}; lm-eval leaves out its beginning"
        )


def _check_ids(
    task: Task, vocabulary: int, tokenizer: transformers.PreTrainedTokenizerBase, *, key: str
) -> None:
    for one in task.instances:
        for text in filter(None, (part for part in one.args if isinstance(part, str))):
            largest = max(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], default=0)
            if largest >= vocabulary:
                raise UserError(
                    f"{key}: item {one.doc_id} of {task.config.task} has a token with the id {largest}, but the model "
                    f"has {vocabulary}; choose the tokenizer that belongs to the model"
                )


def _check_length(
    task: Task, longest: int, tokenizer: transformers.PreTrainedTokenizerBase, *, key: str
) -> LongQuestion | None:
    """`longest`: tokens that the model reads, as lm-eval finds them."""
    name = task.config.task
    parts = [one.args for one in task.instances]
    generated = 0
    if task.instances[0].request_type == "generate_until":
        generated = int(normalize_gen_kwargs(parts[0][1], MAX_GEN_TOKS)["max_gen_toks"])
        if generated >= longest:
            raise UserError(
                f"{key}: {name} generates up to {generated} tokens (max_gen_toks), but the model reads at most "
                f"{longest} with its own; choose another task, or lower score.generation.max_gen_toks"
            )
    elif task.instances[0].request_type == "loglikelihood":
        answer = _tokens(max((str(part[1]) for part in parts), key=len), tokenizer)
        if answer > longest:
            raise UserError(
                f"{key}: {name} has an answer of {answer} tokens, but the model reads at most {longest}"
            )
    else:
        return None  # lm-eval divides long texts into windows
    question = _tokens(max((str(part[0]) for part in parts), key=len), tokenizer)
    room = longest - generated
    return LongQuestion(task=name, tokens=question, room=room) if question > room else None


def _tokens(text: str, tokenizer: transformers.PreTrainedTokenizerBase) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def item_error(task: Task, error: Exception, limit: int | None, *, sealed: bool) -> str:
    """The first item that the task's own templates or functions refuse, and why; of a sealed one no text."""
    steps: list[Callable[[Mapping[str, object]], object]] = [task.doc_to_text, task.doc_to_target]
    if task.config.doc_to_choice is not None:
        steps.append(task.doc_to_choice)
    for number, doc in task.doc_iterator(limit=limit):
        for step in steps:
            try:
                step(doc)
            except Exception as inner:
                return f"item {number}: {type(inner).__name__ if sealed else reason(inner)}"
    return type(error).__name__ if sealed else reason(error)


def check_answers(task: Task, *, key: str) -> None:
    """Check that each item has answers, and a right one among its choices: lm-eval counts it as wrong otherwise.

    Raises: UserError for an item with an empty answer (it has no token of which there is a likelihood), or with a
    doc_to_target that is neither one of its choices nor the index of one.
    """
    for one in task.instances:
        if one.request_type == "loglikelihood" and not one.args[1] and one.args[0].rstrip() == one.args[0]:
            raise UserError(
                f"{key}: item {one.doc_id} of {task.config.task} has an empty answer, which cannot be scored"
            )
    is_own = callable(getattr(task.config, "process_results", None)) or not isinstance(task, ConfigurableTask)
    if is_own or task.OUTPUT_TYPE != "multiple_choice":
        return
    for number, doc in {one.doc_id: one.doc for one in task.instances}.items():
        mistake = _choice_mistake(task, doc, sealed=key == "score.test")
        if mistake is not None:
            raise UserError(f"{key}: item {number} of {task.config.task}: {mistake}; correct the task file")


def _choice_mistake(task: ConfigurableTask, doc: Mapping[str, object], *, sealed: bool) -> str | None:
    """What is wrong with the choices of an item, or with the right one; of a sealed one no text."""
    choices = task.doc_to_choice(doc)
    if not isinstance(choices, (list, tuple)) or not all(isinstance(choice, str) for choice in choices):
        return f"doc_to_choice gives {type(choices).__name__}, not a list of texts"
    if "" in choices:
        return f"choice {choices.index('')} of doc_to_choice is empty"
    source, right = (
        ("text", task.doc_to_text(doc)) if task.multiple_input else ("target", task.doc_to_target(doc))
    )
    if right != [] and isinstance(right, list) != bool(task.multiple_target):
        return f"doc_to_{source} gives a list for some items and not for others"
    of_list = isinstance(right, list)
    for one in (right or [None]) if of_list else [right]:
        if not (_is_index(one, len(choices)) or (not of_list and isinstance(one, str) and one in choices)):
            shown = "a value" if sealed else repr(one)
            form = f"an index from 0 to {len(choices) - 1}" + ("" if of_list else ", or the text of a choice")
            return f"doc_to_{source} gives {shown}, which is none of its {len(choices)} choices; needs {form}"
    return None


def _is_index(value: object, length: int) -> bool:
    return isinstance(value, (int, float)) and value in range(length)


def set_fewshot(task: Task, number: int | None, *, key: str) -> None:
    """Set the number of examples and the seed with which they are drawn.

    Raises: UserError for a task without few-shot examples, or with too few.
    """
    own = task.get_config("num_fewshot")
    if number is not None and own == 0 and number > 0:
        raise UserError(
            f"{key}: num_fewshot={number}, but {task.config.task} is defined with num_fewshot 0; remove num_fewshot"
        )
    examples = number if number is not None else own or 0
    task.set_config(key="num_fewshot", value=examples)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    if examples and hasattr(task, "sampler"):
        # One more is drawn where the item itself may be among them.
        have, spare = len(task.sampler.df), task.fewshot_cfg.split == task.config.test_split
        if examples + spare > have:
            raise UserError(
                f"{key}: num_fewshot={examples}, but the few-shot examples of {task.config.task} are {have}; "
                f"lower it to {max(0, have - spare)} or less"
            )
