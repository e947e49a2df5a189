"""The forms in which chat templates expect the same messages: templates agree on role and content, not on the rest."""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.config.rows.row_template import value_text
from hpotune.config.yaml_source import Value
from hpotune.finetune.data.conversation import Message


def in_parts(message: Message) -> Message:
    """The message with its text as a list of one part."""
    text = message.get("content")
    return {**message, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else message


def message_forms(messages: list[Message]) -> Iterator[list[Message]]:
    """The messages as templates expect them: content may be absent beside calls, or not; arguments are an object, or
    JSON text."""
    yield messages
    if any("content" not in message for message in messages):
        messages = [{"content": "", **message} for message in messages]
        yield messages
    if any(argument_objects(messages)):
        yield [_with_text_arguments(message) for message in messages]


def argument_objects(messages: list[Message]) -> list[dict[str, Value]]:
    """The arguments of all calls that are objects."""
    calls = [call for message in messages for call in _calls(message)]
    functions = [call.get("function", call) for call in calls]
    arguments = [function.get("arguments") for function in functions if isinstance(function, dict)]
    return [given for given in arguments if isinstance(given, dict) and given]


def _calls(message: Message) -> list[dict[str, Value]]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _with_text_arguments(message: Message) -> Message:
    """The message with the arguments of its calls as JSON text."""

    def as_text(call: dict[str, Value]) -> dict[str, Value]:
        function = call.get("function")
        if isinstance(function, dict):
            return {**call, "function": as_text(function)}
        arguments = call.get("arguments")
        return {**call, "arguments": value_text(arguments)} if isinstance(arguments, dict) else call

    calls: list[Value] = [as_text(call) for call in _calls(message)]
    return {**message, "tool_calls": calls} if calls else message
