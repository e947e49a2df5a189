"""A row as a conversation in the chat template of the tokenizer, with the answers of the assistant as counted pieces.

The text is the rendered conversation, letter by letter, up to the end of the last answer: blanks and messages after it
are left out, so that the row ends with the end token. An answer is what follows the template's generation prompt, with
the token that ends it. Templates of reasoning models rewrite earlier answers, so that the conversation up to an answer,
rendered alone, is no beginning of the text; such an answer is found by rendering the conversation with another word
instead: what stays the same around that word is around the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import transformers
from jinja2.exceptions import TemplateError, TemplateSyntaxError

from hpotune.config.yaml_source import Value
from hpotune.finetune.data.conversation import SYSTEM_ROLES, Conversation, Message, read_conversation
from hpotune.finetune.data.message_forms import argument_objects, in_parts, message_forms
from hpotune.finetune.data.prompt import Piece
from hpotune.finetune.trial_errors import RowLeftOut, UserError

RENDER_ERRORS = (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What a template raises for messages that it does not expect."""
ANSWER_WORD, QUESTION_WORD = "qxzanswerzxq", "qxzquestionzxq"  # in no conversation: else they are found twice
ANSWER: Message = {"role": "assistant", "content": ANSWER_WORD}
REASON_LENGTH = 200  # characters of a template's own message


@dataclass(frozen=True, kw_only=True, slots=True)
class RowText:
    """The text of a row."""

    pieces: list[Piece]
    lost_answers: int = 0
    """Answers that cannot be found in the text of the chat template, so that they are not counted."""
    lost_roles: tuple[str, ...] = ()
    """Roles of the messages of whose text the chat template leaves out a part."""

    @property
    def whole(self) -> str:
        """All pieces."""
        return "".join(piece for piece, _ in self.pieces)


def conversation_text(row: Mapping[str, Value], tokenizer: transformers.PreTrainedTokenizerBase) -> RowText:
    """The conversation of a row as text.

    Raises: RowLeftOut for a row that is no conversation with an answer, or that the template refuses; DataError for
    missing columns; UserError for a tokenizer without a usable chat template.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            "data.prompt: chat needs a tokenizer with a chat template; set model.tokenizer or another prompt"
        )
    return _RenderedConversation(read_conversation(row), tokenizer).text()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Around:
    """The template's text around the content of an answer."""

    opening: str
    """From the content of the message before to the end of the generation prompt."""
    extra: str
    """From there to the content: such as an empty block of thoughts."""
    closing: str
    """From the content to the end of the answer."""


class _RenderedConversation:
    """A conversation up to its last answer, and its text in the template of the tokenizer."""

    def __init__(self, conversation: Conversation, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
        """Render it.

        Raises: RowLeftOut if the template refuses it, UserError if it is no template.
        """
        self._tokenizer = tokenizer
        self._tools = conversation.tools
        self._answers = conversation.answers
        self._around_after: dict[Value, _Around] = {}
        self._takes_parts = _takes_parts(tokenizer, str(tokenizer.chat_template))
        messages = conversation.messages[: self._answers[-1] + 1]
        if messages[0]["role"] == "assistant":
            raise RowLeftOut("the first message is an answer of the assistant, with no question before it")
        self._messages, self._whole = self._first_form(messages)

    def text(self) -> RowText:
        """The whole text, with the answers that can be found in it counted.

        Raises: RowLeftOut if no answer can be, or a call of a function is not in the text.
        """
        self._check_calls()
        pieces, done, lost = list[Piece](), 0, 0
        for index in self._answers:
            span = self._span_of_prefix(index) or self._span_of_word(index)
            if span is None or span[0] < done:
                lost += 1
                continue
            pieces += [(self._whole[done : span[0]], False), (self._whole[span[0] : span[1]], True)]
            done = span[1]
        if not pieces:
            raise RowLeftOut(
                "the chat template rewrites the answers so that they cannot be found in the text"
            )
        return RowText(pieces=pieces, lost_answers=lost, lost_roles=self._lost_roles())

    def _lost_roles(self) -> tuple[str, ...]:
        """The roles of the messages whose text, blanks aside, is not in the whole text.

        Each message is after the one before it, but for the system message, which templates write anywhere.
        """
        whole, done, lost = _without_blanks(self._whole), 0, dict[str, None]()
        for message in self._messages:
            role, text = str(message["role"]), _without_blanks(str(message.get("content", "")))
            found = whole.find(text, 0 if role in SYSTEM_ROLES else done)
            if found < 0:
                lost[role] = None
            elif role not in SYSTEM_ROLES:
                done = found + len(text)
        return tuple(lost)

    def _first_form(self, messages: list[Message]) -> tuple[list[Message], str]:
        """The first form of the messages that the template writes, and its text.

        Raises: RowLeftOut if there is none.
        """
        refused: list[RowLeftOut] = []
        for form in message_forms(messages):
            try:
                whole = self._render(form)
            except RowLeftOut as odd:
                refused.append(odd)
                continue
            if not any(str(arguments) in whole for arguments in argument_objects(form)):
                return form, whole
            refused.append(
                RowLeftOut("the chat template writes the arguments of a call as Python, not as JSON")
            )
        raise refused[0]

    def _check_calls(self) -> None:
        """Check that the template writes each call of a function: without it, half an answer would be trained.

        Raises: RowLeftOut.
        """
        for index, message in enumerate(self._messages):
            if "tool_calls" not in message:
                continue
            bare = {"content": "", **{key: value for key, value in message.items() if key != "tool_calls"}}
            if self._rendered_or_none(self._with(index, bare)) == self._whole:
                raise RowLeftOut("the chat template does not write the tool_calls of a message")

    def _span_of_prefix(self, index: int) -> tuple[int, int] | None:
        """Where the answer is, if the text begins with the conversation before it and with the one that it ends."""
        before = self._render(self._messages[:index], generation_prompt=True)
        if not self._whole.startswith(before):
            return None
        is_last = index == len(self._messages) - 1
        after = (self._whole if is_last else self._render(self._messages[: index + 1])).rstrip()
        is_prefix = after.startswith(before) and self._whole.startswith(after)
        return (len(before), len(after)) if is_prefix else None

    def _span_of_word(self, index: int) -> tuple[int, int] | None:
        """Where the answer is, by the conversation with a word instead of it: the text around the word stays."""
        around = self._around(index)
        halves = _split(self._rendered_or_none(self._with(index, ANSWER)), ANSWER_WORD)
        if around is None or halves is None:
            return None
        head, tail = halves
        start, end = self._start(head, around), len(self._whole) - len(tail)
        closing = self._closing(tail, around)
        if start is None or closing is None or not self._whole.endswith(tail) or start > end:
            return None
        return start, end + len(closing)

    def _start(self, head: str, around: _Around) -> int | None:
        """Where the answer begins in the text: after the generation prompt, as far as the text has it."""
        length = len(head)
        for extra in (around.extra, ""):
            if head.endswith(around.opening + extra):
                length -= len(extra)
                break
        if self._whole.startswith(head[:length]):
            return length
        same = _same_start(head, self._whole)
        return same if same > len(head) - len(around.opening + around.extra) else None

    def _closing(self, tail: str, around: _Around) -> str | None:
        """The end of the answer: as of a last message, or as much of it as ends with a special token."""
        if tail.startswith(around.closing):
            return around.closing
        same = tail[: _same_start(tail, around.closing)]
        ends = [
            same.rfind(token) + len(token) for token in self._tokenizer.get_added_vocab() if token in same
        ]
        return same[: max(ends)] if ends else None

    def _around(self, index: int) -> _Around | None:
        """The text around an answer as the last message; it depends on the role of the message before, at most."""
        role = self._messages[index - 1]["role"]
        if role not in self._around_after:
            before: Message = {**self._messages[index - 1], "content": QUESTION_WORD}
            context = [*self._messages[: index - 1], before]
            prompt = _split(self._rendered_or_none(context, generation_prompt=True), QUESTION_WORD)
            answered = _split(self._rendered_or_none([*context, ANSWER]), QUESTION_WORD)
            halves = _split(answered[1], ANSWER_WORD) if answered else None
            if prompt is None or halves is None:
                return None
            opening, closing = prompt[1], halves[1].rstrip()
            if not halves[0].startswith(opening):  # the generation prompt has what a finished answer has not
                opening = halves[0]
            self._around_after[role] = _Around(
                opening=opening, extra=halves[0][len(opening) :], closing=closing
            )
        return self._around_after[role]

    def _with(self, index: int, message: Message) -> list[Message]:
        return [*self._messages[:index], message, *self._messages[index + 1 :]]

    def _rendered_or_none(self, messages: list[Message], *, generation_prompt: bool = False) -> str | None:
        try:
            return self._render(messages, generation_prompt=generation_prompt)
        except RowLeftOut:
            return None

    def _render(self, messages: list[Message], *, generation_prompt: bool = False) -> str:
        """The messages in the template.

        Raises: RowLeftOut if the template refuses them, UserError if it is no template.
        """
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [in_parts(message) for message in messages] if self._takes_parts else messages,
                    tools=self._tools,
                    tokenize=False,
                    add_generation_prompt=generation_prompt,
                )
            )
        except TemplateSyntaxError as error:
            raise UserError(f"model.tokenizer: line {error.lineno} of its chat template: {error}") from error
        except RENDER_ERRORS as error:
            name = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:REASON_LENGTH]
            raise RowLeftOut(f"the chat template refuses it: {name}{reason}") from error


@lru_cache(maxsize=4)
def _takes_parts(tokenizer: transformers.PreTrainedTokenizerBase, template: str) -> bool:
    """Whether the template writes contents as lists of parts only, such as that of a model for images.

    `template`: of the tokenizer, for the cache. Raises: UserError for a template that writes no answer at all.
    """
    question: Message = {"role": "user", "content": QUESTION_WORD}
    texts = []
    for takes_parts in (False, True):
        messages = [in_parts(message) if takes_parts else message for message in (question, ANSWER)]
        try:
            texts.append(str(tokenizer.apply_chat_template(messages, tokenize=False)))
        except RENDER_ERRORS:
            texts.append("")
        if ANSWER_WORD in texts[-1]:
            return takes_parts
    if any(texts):
        raise UserError(
            "model.tokenizer: its chat template does not write the text of an answer; set another one"
        )
    return False


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _same_start(first: str, second: str) -> int:
    """The number of characters at the start that are the same."""
    pairs = zip(first, second, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _split(text: str | None, word: str) -> tuple[str, str] | None:
    """The text before and after the word; None unless the word is in it once."""
    if text is None or text.count(word) != 1:
        return None
    before, _, after = text.partition(word)
    return before, after
