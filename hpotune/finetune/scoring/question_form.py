"""The form in which lm-eval tasks ask: plain text, or a conversation in the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import transformers
from jinja2.exceptions import TemplateError

from hpotune.config.metrics import other_form_warning
from hpotune.config.schema.study_config import ScoreConfig
from hpotune.finetune.trial_errors import UserError


def uses_chat_template(score: ScoreConfig, prompt: str | None) -> bool:
    """Whether questions are asked through the chat template; `prompt`: data.prompt, None without data."""
    return prompt == "chat" if score.chat_template == "auto" else score.chat_template


def check_chat_template(
    tokenizer: transformers.PreTrainedTokenizerBase, score: ScoreConfig, *, chat: bool
) -> None:
    if chat and tokenizer.chat_template is None:
        raise UserError(
            f"score.chat_template: {str(score.chat_template).lower()}, but the tokenizer has no chat template; set "
            "model.tokenizer to one that has, or score.chat_template: false"
        )


def form_warning(chat: bool, prompt: str | None) -> list[str]:
    """A warning where training and scoring ask in different forms."""
    return [] if prompt is None or chat == (prompt == "chat") else [other_form_warning(chat)]


class ChatTemplate:
    """The tokenizer's chat template as lm-eval's Hugging Face model applies it."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase, *, system: str | None) -> None:
        self.tokenizer = tokenizer
        self.system = system
        self.left_out_system = False

    def __call__(
        self, chat_history: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text, open for the next answer or for the rest of the last message.

        Raises: UserError for a template that refuses it.
        """
        try:
            return self._text(chat_history, add_generation_prompt)
        except TemplateError as error:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise UserError(
                    f"score.chat_template: the chat template refuses a question ({error}); write false"
                ) from error
            if self.system is not None:
                raise UserError(
                    f"score.system: the chat template takes no system message ({error}); remove it"
                ) from error
        self.left_out_system = True
        return self._text(others, add_generation_prompt)

    def _text(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )
