"""A row as a conversation: messages in the form that chat templates expect, each with `role` and `content`.

Sources: the chat formats of OpenAI and of transformers (role, content, tool_calls), of ShareGPT (from, value), and of
LLaMA-Factory (the roles function_call and observation).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from hpotune.config.rows.prompt_columns import CONVERSATIONS
from hpotune.config.rows.row_template import NotText, kind_of, value_text
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.prompt import answer_text, column_text
from hpotune.finetune.trial_errors import DataError, RowLeftOut

Message = dict[str, Value]

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
"""Other names of the roles that chat templates know."""
CALLS = ("function_call", "tool_call")
"""Roles whose text is a call of a function as JSON, with name and arguments."""
TEMPLATE_ROLES = ("system", "developer", "user", "assistant", "tool")
SYSTEM_ROLES = ("system", "developer")
TEXT_PARTS = ("text", "input_text", "output_text")
MESSAGE_KEYS = {"content", "value", "tool_calls", "function_call"}
FORM = "needs a list of messages with role and content, or from and value"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """The messages of a row."""

    messages: list[Message]
    """A message without `content` has tool_calls. Keys that are null in the data are absent: loaders fill them in."""
    tools: list[Value] | None
    """The JSON schemas of the functions that may be called: the column `tools`."""

    @property
    def answers(self) -> list[int]:
        """The positions of the assistant's messages that are trained: those without `weight: 0` (OpenAI's key)."""
        return [
            index
            for index, message in enumerate(self.messages)
            if message["role"] == "assistant" and message.get("weight") != 0
        ]


def read_conversation(row: Mapping[str, Value]) -> Conversation:
    """The conversation of a row: its column `messages`, or the alpaca columns as one question and answer.

    A column `system` with a text is the system message of a conversation that has none, as in LLaMA-Factory.

    Raises: RowLeftOut for a row that is no conversation with an answer, DataError for missing columns.
    """
    column = next((name for name in CONVERSATIONS if name in row), None)
    messages = _question_and_answer(row) if column is None else _messages(row[column], column)
    conversation = Conversation(messages=_with_system(messages, row), tools=_tools(row.get("tools")))
    if not conversation.answers:
        is_answered = any(message["role"] == "assistant" for message in messages)
        lacks = (
            "an answer of the assistant with another weight than 0"
            if is_answered
            else "an answer of the assistant"
        )
        raise RowLeftOut(f"column {column!r} holds a conversation without {lacks}")
    return conversation


def _with_system(messages: list[Message], row: Mapping[str, Value]) -> list[Message]:
    """The messages, with the column `system` as the first one if none of them is a system message."""
    text = column_text(row, "system") if "system" in row else ""
    if not text or any(message["role"] in SYSTEM_ROLES for message in messages):
        return messages
    return [{"role": "system", "content": text}, *messages]


def _question_and_answer(row: Mapping[str, Value]) -> list[Message]:
    if "instruction" not in row or "output" not in row:
        raise DataError(
            "data.prompt: chat needs the column messages (or conversations), or instruction and output; the data has "
            f"{', '.join(sorted(row))}; name yours under data.columns"
        )
    extra = column_text(row, "input") if "input" in row else ""
    question = column_text(row, "instruction") + (f"\n\n{extra}" if extra else "")
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer_text(row, "output")},
    ]


def _messages(value: Value, column: str) -> list[Message]:
    """The messages of a column: a list, an object of lists (as datasets stores a list of structs), or JSON of these."""
    if value is None:
        raise RowLeftOut(f"column {column!r} is missing (null)")
    given = _parsed(value, f"column {column!r}", needs=FORM)
    if isinstance(given, dict):
        given = _rows_of(given, column)
    if not isinstance(given, list):
        raise RowLeftOut(f"column {column!r} holds {kind_of(given)}; {FORM}")
    if not given:
        raise RowLeftOut(f"column {column!r} is empty")
    return [_message(_parsed(item, f"a message of column {column!r}", needs=FORM), column) for item in given]


def _rows_of(lists: Mapping[str, Value], column: str) -> Value:
    """An object of lists as a list of objects."""
    lengths = {len(values) if isinstance(values, list) else -1 for values in lists.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise RowLeftOut(f"column {column!r} holds {kind_of(dict(lists))}; {FORM}")
    return [
        {key: values[index] for key, values in lists.items() if isinstance(values, list)}
        for index in range(lengths.pop())
    ]


def _message(item: Value, column: str) -> Message:
    if not isinstance(item, dict):
        raise RowLeftOut(f"a message of column {column!r} is {kind_of(item)}; {FORM}")
    given = {key: value for key, value in item.items() if value is not None}
    speaker = given.pop("role" if "role" in given else "from", None)
    if not isinstance(speaker, str) or not MESSAGE_KEYS & item.keys():
        raise RowLeftOut(f"a message of column {column!r} has the keys {', '.join(sorted(item))}; {FORM}")
    text = _text(given.pop("content" if "content" in given else "value", None), speaker)
    calls = _tool_calls(given.pop("tool_calls", None))
    calls += [_called(call) for call in _as_list(given.pop("function_call", None))]
    if speaker.lower() in CALLS and text is not None:
        written = _parsed(
            text, f"a message of the role {speaker}", needs="needs a call with name and arguments"
        )
        calls, text = [*calls, *(_called(call) for call in _as_list(written))], None
    if text is None and not calls:
        missing = "neither content nor tool_calls" if speaker in ("assistant", *CALLS) else "no content"
        raise RowLeftOut(f"a message of the role {speaker} has {missing}")
    message: Message = {"role": _role(speaker, is_known="role" in item)}
    if text is not None:
        message["content"] = text
    if calls:
        message["tool_calls"] = calls
    return message | given


def _role(speaker: str, *, is_known: bool) -> str:
    """The role in a chat template; a `role` with a name of its own stays, for a template may know it."""
    name = speaker.lower()
    if name in TEMPLATE_ROLES or name in ROLES:
        return ROLES.get(name, name)
    if is_known:
        return speaker
    raise RowLeftOut(
        f"a message is from {speaker!r}; known are {', '.join(sorted({*ROLES, *TEMPLATE_ROLES}))}"
    )


def _text(content: Value, speaker: str) -> str | None:
    """The content of a message: text, the joined texts of its parts, or JSON of another value; None if missing."""
    if content is None or content == []:
        return None
    if isinstance(content, list) and any(isinstance(part, dict) and "type" in part for part in content):
        return "".join(_part_text(part) for part in content)
    try:
        return value_text(content)
    except NotText as error:
        raise RowLeftOut(f"the content of a message of the role {speaker} {error}") from error


def _part_text(part: Value) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else kind_of(part)
    text = part.get("text") if isinstance(part, dict) else None
    if kind not in TEXT_PARTS or not isinstance(text, str):
        raise RowLeftOut(f"a message has a part of the type {kind}; only parts with a text can be trained")
    return text


def _tool_calls(value: Value) -> list[Value]:
    calls = _without_nulls(_parsed(value, "tool_calls of a message", needs="needs a list of calls"))
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise RowLeftOut(f"tool_calls of a message holds {kind_of(calls)}; needs a list of calls")
    return [_with_arguments(call) for call in calls]


def _called(call: Value) -> Value:
    """The call of a function, as in OpenAI's older key function_call, as one of tool_calls."""
    if not isinstance(call, dict) or "name" not in call:
        raise RowLeftOut(f"a call of a function is {kind_of(call)} without a name; needs name and arguments")
    return _with_arguments({"type": "function", "function": _without_nulls(call)})


def _with_arguments(call: Value) -> Value:
    """The call with its arguments as an object: OpenAI writes them as JSON text, chat templates write JSON of them."""
    if not isinstance(call, dict):
        raise RowLeftOut(f"tool_calls of a message holds {kind_of(call)}; needs a list of calls")
    if "function" in call:
        return {**call, "function": _with_arguments(call["function"])}
    try:
        arguments = json.loads(str(call["arguments"])) if isinstance(call.get("arguments"), str) else None
    except ValueError:
        return call
    return {**call, "arguments": arguments} if isinstance(arguments, dict) else call


def _tools(value: Value) -> list[Value] | None:
    tools = _without_nulls(_parsed(value or None, "column 'tools'", needs="needs a list of JSON schemas"))
    if tools is None:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowLeftOut(f"column 'tools' holds {kind_of(tools)}; needs a list of JSON schemas")
    return tools or None


def _parsed(value: Value, what: str, *, needs: str) -> Value:
    """The value, read from JSON if it is text."""
    if not isinstance(value, str):
        return value
    try:
        return cast("Value", json.loads(value))
    except (ValueError, RecursionError) as error:
        raise RowLeftOut(f"{what} is text, but not JSON ({error}); {needs}") from error


def _without_nulls(value: Value) -> Value:
    """The value without the null keys of its objects, which loaders fill in from other rows."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _as_list(value: Value) -> list[Value]:
    return [] if value is None else value if isinstance(value, list) else [value]
