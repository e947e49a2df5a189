"""Rows as conversations: every form of messages that data comes in, and what is no conversation."""

from __future__ import annotations

import json

import pytest

from hpotune.finetune.data.conversation import FORM, read_conversation
from hpotune.finetune.trial_errors import DataError, RowLeftOut

ASKED = {"role": "user", "content": "The tide?"}
ANSWERED = {"role": "assistant", "content": "ocean"}
PLAIN = [ASKED, ANSWERED]
CALL = {"type": "function", "function": {"name": "find", "arguments": {"word": "tide"}}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def asked_and(**message: object) -> list[object]:
    """A question and this message."""
    return [ASKED, message]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": PLAIN},
        {"conversations": PLAIN},
        {"messages": PLAIN, "conversations": "x", "instruction": "x"},
        {"messages": json.dumps(PLAIN)},
        {"messages": [json.dumps(message) for message in PLAIN]},
        {"messages": {"role": ["user", "assistant"], "content": ["The tide?", "ocean"]}},
        {"messages": json.dumps({"from": ["human", "gpt"], "value": ["The tide?", "ocean"]})},
        {"messages": [{"from": "human", "value": "The tide?"}, {"from": "gpt", "value": "ocean"}]},
        {"messages": [{"from": "User", "value": "The tide?"}, {"from": "chatgpt", "value": "ocean"}]},
        {"messages": [{"role": "human", "content": "The tide?"}, {"role": "model", "content": "ocean"}]},
        {"messages": [message | {"tool_calls": None, "name": None, "from": None} for message in PLAIN]},
        {"messages": [message | {"tool_calls": []} for message in PLAIN]},
        {
            "messages": asked_and(
                role="assistant", content=[{"type": "text", "text": "ocean", "image_url": None}]
            )
        },
        {
            "messages": asked_and(
                role="assistant",
                content=[{"type": "text", "text": "oc"}, {"type": "output_text", "text": "ean"}],
            )
        },
        {"instruction": "The tide?", "output": "ocean"},
        {"instruction": "The tide?", "input": "", "output": "ocean"},
    ],
)
def test_every_form_gives_the_same(row: dict[str, object]) -> None:
    assert read_conversation(row).messages == PLAIN


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        (
            {"queue": "green", "urgent": True, "note": None},
            '{"queue": "green", "urgent": true, "note": null}',
        ),
        (["red", "blue"], '["red", "blue"]'),
        (True, "true"),
        (7, "7"),
        (" 007\n", " 007\n"),
    ],
)
def test_content_is_trained_as_written(content: object, text: str) -> None:
    messages = read_conversation({"messages": asked_and(role="assistant", content=content)}).messages
    assert messages[1]["content"] == text


def test_alpaca_columns_are_a_conversation() -> None:
    row = {"instruction": "Name it.", "input": "The tide.", "output": "ocean"}
    assert read_conversation(row).messages[0]["content"] == "Name it.\n\nThe tide."


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": json.dumps([CALL])},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "find", "arguments": '{"word": "tide"}'},
                    "id": None,
                }
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [
                CALL | {"function": CALL["function"] | {"arguments": {"word": "tide", "x": None}}}
            ],
        },
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "function_call", "value": json.dumps([CALL["function"]])},
    ],
)
def test_every_call_gives_the_same(message: dict[str, object]) -> None:
    found = read_conversation(
        {"messages": [ASKED, message, {"from": "observation", "value": "water"}, ANSWERED]}
    )
    assert found.messages == [
        ASKED,
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "water"},
        ANSWERED,
    ]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([TOOL], [TOOL]),
        (json.dumps([TOOL]), [TOOL]),
        ([TOOL | {"strict": None}], [TOOL]),
        (None, None),
        ("", None),
        ([], None),
    ],
)
def test_tools_are_schemas(tools: object, expected: object) -> None:
    assert read_conversation({"messages": PLAIN, "tools": tools}).tools == expected


def test_other_keys_and_roles_stay() -> None:
    messages = [
        {"role": "critic", "content": "x"},
        ASKED,
        ANSWERED | {"reasoning_content": "water"},
    ]
    assert read_conversation({"messages": messages}).messages == messages


def test_weight_zero_is_not_trained() -> None:
    messages = [ASKED, ANSWERED | {"weight": 0}, ASKED, ANSWERED | {"weight": 1}]
    assert read_conversation({"messages": messages}).answers == [3]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "column 'messages' is missing (null)"),
        ([], "column 'messages' is empty"),
        ("[{'role'", "column 'messages' is text, but not JSON (Expecting property name"),
        ("hello", "column 'messages' is text, but not JSON (Expecting value"),
        ("7", f"column 'messages' holds a number; {FORM}"),
        (["hello"], "a message of column 'messages' is text, but not JSON"),
        ([7], f"a message of column 'messages' is a number; {FORM}"),
        ({"role": "user", "content": "x"}, f"column 'messages' holds an object; {FORM}"),
        ({"role": ["user"], "content": ["x", "y"]}, f"column 'messages' holds an object; {FORM}"),
        (
            [{"speaker": "a", "text": "b"}],
            f"a message of column 'messages' has the keys speaker, text; {FORM}",
        ),
        ([{"role": "user", "text": "b"}], f"a message of column 'messages' has the keys role, text; {FORM}"),
        ([ASKED], "column 'messages' holds a conversation without an answer of the assistant"),
        (
            [ASKED, ANSWERED | {"weight": 0}],
            "column 'messages' holds a conversation without an answer of the assistant with another weight than 0",
        ),
        (
            asked_and(role="assistant", content=None),
            "a message of the role assistant has neither content nor tool_calls",
        ),
        (
            asked_and(role="assistant", content=[]),
            "a message of the role assistant has neither content nor tool_calls",
        ),
        ([{"role": "user", "content": None}, ANSWERED], "a message of the role user has no content"),
        (
            [{"from": "narrator", "value": "x"}, ANSWERED],
            "a message is from 'narrator'; known are assistant, bot",
        ),
        (
            asked_and(role="assistant", content=[{"type": "image_url", "image_url": {}}]),
            "a message has a part of the type image_url; only parts with a text can be trained",
        ),
        (
            asked_and(role="assistant", content=[{"type": "text", "text": None}]),
            "a message has a part of the type text; only parts with a text can be trained",
        ),
        (
            asked_and(role="assistant", content=b"x"),
            "the content of a message of the role assistant holds bytes",
        ),
        (asked_and(role="assistant", tool_calls="find"), "tool_calls of a message is text, but not JSON"),
        (asked_and(role="assistant", tool_calls={"name": "find"}), "tool_calls of a message holds an object"),
        (asked_and(role="assistant", tool_calls=["find"]), "tool_calls of a message holds text"),
        (
            asked_and(**{"from": "function_call", "value": "find()"}),
            "a message of the role function_call is text, but",
        ),
        (
            asked_and(**{"from": "function_call", "value": "7"}),
            "a call of a function is a number without a name",
        ),
    ],
)
def test_other_forms_are_left_out(messages: object, reason: str) -> None:
    with pytest.raises(RowLeftOut) as caught:
        read_conversation({"messages": messages})
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("tools", ["find", 7, [7], {"name": "find"}])
def test_tools_of_another_form_are_refused(tools: object) -> None:
    with pytest.raises(RowLeftOut, match="column 'tools' .*needs a list of JSON schemas"):
        read_conversation({"messages": PLAIN, "tools": tools})


def test_missing_columns_are_named() -> None:
    with pytest.raises(
        DataError, match=r"data\.prompt: chat needs the column messages .* the data has text; name"
    ):
        read_conversation({"text": "x"})


@pytest.mark.parametrize(
    ("row", "system"),
    [
        ({"messages": PLAIN, "system": "Be brief."}, "Be brief."),
        ({"instruction": "The tide?", "output": "ocean", "system": "Be brief."}, "Be brief."),
        ({"messages": PLAIN, "system": None}, None),
        ({"messages": PLAIN, "system": ""}, None),
        ({"messages": [{"role": "system", "content": "Own."}, *PLAIN], "system": "Be brief."}, "Own."),
    ],
)
def test_system_column_is_system_message(row: dict[str, object], system: str | None) -> None:
    before = [] if system is None else [{"role": "system", "content": system}]
    assert read_conversation(row).messages == [*before, *PLAIN]
