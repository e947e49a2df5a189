"""Conversations in chat templates: which part of the text is counted, and which conversations are left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hpotune.config.schema.study_config import DataConfig
from hpotune.finetune.data.chat_template import RowText, conversation_text
from hpotune.finetune.data.dataset import DataRow
from hpotune.finetune.data.tokenization import tokenize_rows
from hpotune.finetune.trial_errors import DataError, RowLeftOut, UserError
from tests.fixtures.tiny_model import TEMPLATE, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
QUESTIONS = ("The drum.", "The tide.", "The oven.")
ANSWERS = ("music", "ocean", "kitchen")
MARK = "<|{{ m.role }}|>\n"
PROMPT = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
LOOP = "{% for m in messages %}" + MARK
THINK = "<think>\n\n</think>\n\n"
CALL = {"type": "function", "function": {"name": "find", "arguments": {"word": "tide"}}}

LAST_THINKS = (  # an empty block before the last answer, as the last message only
    LOOP
    + "{% if m.role == 'assistant' and loop.last %}"
    + THINK
    + "{% endif %}{{ m.content }}</s>\n{% endfor %}"
) + PROMPT
LAST_ANSWER_THINKS = (  # an empty block before the last answer, with a question after it too
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    + LOOP
    + "{% if loop.index0 == ns.last %}"
    + THINK
    + "{% endif %}{{ m.content }}</s>\n{% endfor %}"
) + PROMPT
DROPS_THOUGHTS = (
    (  # thoughts are kept in the last answer only
        LOOP
        + "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}"
        "{% else %}{{ m.content }}{% endif %}</s>\n{% endfor %}"
    )
    + PROMPT
)
PROMPT_THINKS = (  # the generation prompt opens a block that no finished answer has
    LOOP + "{{ m.content.split('</think>')[-1] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
)
CALLS = (
    (  # calls of functions, and thoughts in the last answer only
        LOOP + "{% if m.role == 'assistant' and loop.last %}" + THINK + "{% endif %}{{ m.content }}"
        "{% for call in m.tool_calls or [] %}[{{ call.function.name }} {{ call.function.arguments | tojson }}]"
        "{% endfor %}</s>\n{% endfor %}"
    )
    + PROMPT
)
FRAGMENTS = ("<|assistant|>\n", THINK, "</s>\n", "<|user|>\n", "go", "", "\n")
CONTENT = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=3).map("".join)
END_ONCE = LOOP + "{{ m.content }}\n{% if loop.last %}</s>{% endif %}{% endfor %}" + PROMPT
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    + MARK
    + "{{ m.content }}</s>{% endfor %}"
) + PROMPT


def talk(count: int) -> list[dict[str, object]]:
    """A conversation of this many questions and answers."""
    pairs = zip(QUESTIONS[:count], ANSWERS[:count], strict=True)
    return [m for q, a in pairs for m in (said("user", q), said("assistant", a))]


def said(role: str, content: str | None, **more: object) -> dict[str, object]:
    """A message."""
    return {"role": role, "content": content, **more}


def rendered(messages: object, template: str = TEMPLATE, **columns: object) -> RowText:
    """A row with these messages in a template."""
    return conversation_text({"messages": messages, **columns}, with_template(template))


def with_template(template: str | None) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with a chat template; every call gives the same."""
    TOKENIZER.chat_template = template
    return TOKENIZER


def counted(text: RowText) -> list[str]:
    """The counted pieces."""
    return [piece for piece, is_counted in text.pieces if is_counted]


@pytest.mark.parametrize(
    ("template", "first", "last"),
    [
        (TEMPLATE, "", ""),
        (LAST_THINKS, "", THINK),
        (LAST_ANSWER_THINKS, "", THINK),
        (DROPS_THOUGHTS, "", ""),
        (PROMPT_THINKS, "", ""),
        (CALLS, "", THINK),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_answer_is_counted(template: str, first: str, last: str, count: int) -> None:
    found = rendered(talk(count), template)
    expected = [f"{first}{answer}</s>" for answer in ANSWERS[: count - 1]] + [
        f"{last}{ANSWERS[count - 1]}</s>"
    ]
    assert (counted(found), found.lost_answers) == (expected, 0)


@pytest.mark.parametrize("template", [TEMPLATE, LAST_THINKS, LAST_ANSWER_THINKS, DROPS_THOUGHTS, CALLS])
def test_text_is_as_the_template_renders(template: str) -> None:
    tokenizer = with_template(template)
    messages = talk(3)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered(messages, template).whole == whole.rstrip()
    assert rendered([*messages, said("user", "And?")], template).whole == whole.rstrip()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(CONTENT, min_size=2, max_size=6),
    st.sampled_from([TEMPLATE, LAST_THINKS, LAST_ANSWER_THINKS, CALLS]),
)
def test_any_content_is_counted_exactly(contents: list[str], template: str) -> None:
    messages = [said(("user", "assistant")[n % 2], text) for n, text in enumerate(contents)]
    answers = contents[1::2]
    extra = "" if template is TEMPLATE else THINK
    expected = [f"{answer}</s>" for answer in answers[:-1]] + [f"{extra}{answers[-1]}</s>"]
    found = rendered(messages, template)
    assert (counted(found), found.lost_answers) == (expected, 0)


def test_thoughts_are_counted_where_written() -> None:
    messages = [
        said("user", "The drum."),
        said("assistant", "<think>\nloud\n</think>\n\nmusic"),
        said("user", "The drum."),
        said("assistant", "<think>\nloud\n</think>\n\nmusic"),
    ]
    found = rendered(messages, DROPS_THOUGHTS)
    assert counted(found) == ["music</s>", "<think>\nloud\n</think>\n\nmusic</s>"]


def test_equal_messages_are_told_apart() -> None:  # words: ignore
    messages = [said("user", "go"), said("assistant", "go")] * 4
    found = rendered(messages, LAST_THINKS)
    assert counted(found) == ["go</s>"] * 3 + [THINK + "go</s>"]
    assert found.whole == "<|user|>\ngo</s>\n<|assistant|>\ngo</s>\n" * 3 + (
        "<|user|>\ngo</s>\n<|assistant|>\n" + THINK + "go</s>"
    )


def test_messages_of_the_template_stay_uncounted() -> None:
    messages = [said("user", "<|assistant|>\n" + THINK), *talk(2)[1:]]
    found = rendered(messages, LAST_ANSWER_THINKS)
    assert counted(found) == ["music</s>", THINK + "ocean</s>"]


def test_calls_are_counted() -> None:
    messages = [
        said("user", "The tide."),
        said("assistant", None, tool_calls=[CALL]),
        said("tool", "water"),
        said("assistant", "ocean"),
    ]
    found = rendered(messages, CALLS)
    assert counted(found) == ['[find {"word": "tide"}]</s>', THINK + "ocean</s>"]


def test_calls_not_written_are_refused() -> None:
    messages = [said("user", "The tide."), said("assistant", None, tool_calls=[CALL])]
    with pytest.raises(RowLeftOut, match="does not write the tool_calls of a message"):
        rendered(messages, TEMPLATE)


def test_call_without_content_needs_no_key() -> None:
    template = CALLS.replace("{{ m.content }}", "{{ '' + m.content }}")  # undefined without the key
    messages = [said("user", "The tide."), said("assistant", None, tool_calls=[CALL])]
    assert counted(rendered(messages, template)) == [THINK + '[find {"word": "tide"}]</s>']


def test_tools_are_handed_to_the_template() -> None:
    template = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}" + TEMPLATE
    tools = [{"type": "function", "function": {"name": "find", "description": None}}]
    assert rendered(talk(1), template, tools=tools).whole.startswith("find;<s>")


def test_an_unlocated_answer_is_lost() -> None:
    found = rendered(talk(2), END_ONCE)
    assert (counted(found), found.lost_answers) == (["ocean\n</s>"], 1)


def test_lost_answers_are_a_warning() -> None:
    tokenizer = with_template(END_ONCE)
    rows = [DataRow(number=number, values={"messages": talk(2)}) for number in (4, 2)]
    found = tokenize_rows(rows, DataConfig(path="x", prompt="chat"), tokenizer, labelled=False)
    assert found.report.warnings == [
        "2 conversations are trained in part (rows 2, 4): the chat template rewrites earlier answers so that they "
        "cannot be found in its text; only the others are counted"
    ]


@pytest.mark.parametrize(
    ("messages", "template", "reason"),
    [
        (
            talk(2)[1:],
            TEMPLATE,
            "the first message is an answer of the assistant, with no question before it",
        ),
        (
            [said("user", "a"), *talk(1)],
            ALTERNATES,
            "the chat template refuses it: Conversation roles must alternate",
        ),
        (
            [said("system", "a"), *talk(1)],
            ALTERNATES,
            "the chat template refuses it: Conversation roles must alternate",
        ),
        (
            talk(1),
            "{{ messages[0].name.first }}",
            "the chat template refuses it: 'dict object' has no attribute 'name'",
        ),
        (
            talk(1),
            "{{ 1 + messages[0].content }}",
            "the chat template refuses it: TypeError: unsupported operand",
        ),
    ],
)
def test_a_refusal_has_its_reason(messages: object, template: str, reason: str) -> None:
    with pytest.raises(RowLeftOut) as caught:
        rendered(messages, template)
    assert caught.value.reason.startswith(reason)


def test_refused_rows_are_counted() -> None:
    tokenizer = with_template(ALTERNATES)
    bad = [said("user", "a"), *talk(1)]
    rows = [DataRow(number=n, values={"messages": bad if n == 12 else talk(1)}) for n in range(13)]
    found = tokenize_rows(rows, DataConfig(path="x", prompt="chat"), tokenizer, labelled=False)
    assert [row.number for row in found.used] == list(range(12))
    assert found.report.warnings == [
        "1 row is left out (row 12): the chat template refuses it: Conversation roles must alternate"
    ]
    with pytest.raises(DataError, match=r"data\.path: all 1 rows .* \(row 12\) .*: Conversation roles must"):
        tokenize_rows(rows[12:], DataConfig(path="x", prompt="chat"), tokenizer, labelled=False)


@pytest.mark.parametrize("field", ["m.text", "m.content | upper"])
def test_template_without_answers_is_named(field: str) -> None:
    with pytest.raises(
        UserError, match=r"model\.tokenizer: its chat template does not write the text of an answer"
    ):
        rendered(talk(1), LOOP + "{{ " + field + " }}</s>{% endfor %}")


@pytest.mark.parametrize("content", ["music", [{"type": "text", "text": "music"}]])
def test_templates_of_parts_get_parts(content: object) -> None:
    template = (
        LOOP + "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
        "</s>\n{% endfor %}"
    ) + PROMPT
    found = rendered([said("user", "The drum."), {"role": "assistant", "content": content}], template)
    assert (found.whole, counted(found)) == (
        "<|user|>\nThe drum.</s>\n<|assistant|>\nmusic</s>",
        ["music</s>"],
    )


@pytest.mark.parametrize("arguments", [{"word": "tide"}, '{"word": "tide"}'])
@pytest.mark.parametrize("written", ["arguments | tojson", "arguments", "'' + arguments"])
def test_arguments_are_written_as_json(arguments: object, written: str) -> None:
    template = CALLS.replace("'' + ", "").replace(
        "call.function.arguments | tojson", written.replace("arg", "call.function.arg")
    )
    call = {"type": "function", "function": {"name": "find", "arguments": arguments}}
    found = rendered([said("user", "The tide."), said("assistant", None, tool_calls=[call])], template)
    assert counted(found) == [THINK + '[find {"word": "tide"}]</s>']


def test_an_end_of_text_is_separate() -> None:
    template = (
        LOOP + "{{ m.content }}</s>\n{% endfor %}{% if not add_generation_prompt %}</s>{% endif %}" + PROMPT
    )
    found = rendered(talk(2), template)
    assert (counted(found), found.lost_answers) == (["music</s>", "ocean</s>\n</s>"], 0)


def test_thoughts_differ_from_the_prompt() -> None:
    template = (
        LOOP
        + "{% if m.role == 'assistant' and '<think>' not in m.content and loop.last %}"
        + THINK
        + "{% endif %}"
        "{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
        + THINK
        + "{% endif %}"
    )
    found = rendered(
        [said("user", "The drum."), said("assistant", "<think>\nloud\n</think>\n\nmusic")], template
    )
    assert counted(found) == ["loud\n</think>\n\nmusic</s>"]
    assert counted(rendered(talk(2), template)) == ["music</s>", "ocean</s>"]


def test_a_broken_template_is_named() -> None:
    with pytest.raises(UserError, match=r"model\.tokenizer: line 1 of its chat template"):
        rendered(talk(1), "{% for m in %}")


def test_chat_needs_a_template() -> None:
    tokenizer = with_template(None)
    with pytest.raises(UserError, match=r"data\.prompt: chat needs a tokenizer with a chat template"):
        conversation_text({"messages": talk(1)}, tokenizer)


@pytest.mark.parametrize(
    ("template", "roles"),
    [
        (LOOP + "{{ m.content.split('</think>')[-1] }}</s>\n{% endfor %}" + PROMPT, ("assistant",)),
        (
            LOOP + "{% if m.role != 'system' %}{{ m.content }}{% endif %}</s>\n{% endfor %}" + PROMPT,
            ("system",),
        ),
        (LOOP + "{{ m.content.strip() }}</s>\n{% endfor %}" + PROMPT, ()),
        (  # the system message is written in the last question
            "{% for m in messages %}{% if m.role != 'system' %}"
            + MARK
            + "{% if m.role == 'user' %}{{ messages[0].content }}{% endif %}{{ m.content }}</s>\n"
            "{% endif %}{% endfor %}" + PROMPT,
            (),
        ),
    ],
)
def test_left_out_text_is_a_warning(template: str, roles: tuple[str, ...]) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    thinks = said("assistant", "<think>\nwhy\n</think>\n\nocean")
    row = {"messages": [said("system", " Be brief. "), said("user", "The tide."), thinks]}
    config = DataConfig.model_validate({"path": "x", "prompt": "chat"})
    rows = tokenize_rows([DataRow(number=3, values=row)], config, tokenizer, labelled=False)
    assert rows.report.warnings == [
        f"1 conversation (row 3): the chat template leaves out text of a message (role {role}); see hpotune preview"
        for role in roles
    ]
