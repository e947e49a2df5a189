"""The section `score.generation`: how the answers of lm-eval's generate_until tasks are generated.

The names are those of transformers.GenerationConfig, and lm-eval's own `max_gen_toks` and `until`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from hpotune.config.schema import Section

_SAMPLING = "temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff"
SAMPLING = tuple(_SAMPLING.split())
"""Keys that have no effect where the most probable token is taken."""
OF_BEAMS = ("length_penalty", "early_stopping")
"""Keys that have no effect with a single beam."""
_MODERN = "transformers has moved it out of generate(), to code on a hub"
_IDS = "it takes ids of tokens; write it under generation_kwargs of a task file of your own"
_ONE_CODE = "trials of one study must run the same code"
_REASONS: dict[str, str] = {
    "write max_gen_toks": "max_new_tokens max_tokens max_completion_tokens max_length",
    "write min_new_tokens": "min_length",
    "write until": "stop_strings stop",
    "a time limit would make the answers depend on the machine; write max_gen_toks": "max_time",
    "one answer of each question is scored; write repeats in a task file of your own": "num_return_sequences",
    "write search.seed: the seed of an answer is made of it, the task and the item": "seed",
    "hpotune or lm-eval sets it": (
        "use_cache pad_token_id bos_token_id eos_token_id decoder_start_token_id return_dict_in_generate "
        "output_attentions output_hidden_states output_scores output_logits is_assistant input_ids "
        "attention_mask stopping_criteria synced_gpus"
    ),
    _IDS: (
        "bad_words_ids suppress_tokens begin_suppress_tokens sequence_bias forced_bos_token_id "
        "forced_eos_token_id force_words_ids"
    ),
    _MODERN: "penalty_alpha dola_layers diversity_penalty num_beam_groups constraints low_memory",
    "it answers one question at a time only": (
        "prompt_lookup_num_tokens max_matching_ngram_size assistant_early_exit num_assistant_tokens "
        "num_assistant_tokens_schedule assistant_confidence_threshold assistant_lookbehind target_lookbehind "
        "assistant_ensemble_weight speculation_type use_mtp token_healing"
    ),
    "it needs a second forward pass of each token, which is not distributed": "guidance_scale",
    "it is for models with an encoder": "encoder_repetition_penalty encoder_no_repeat_ngram_size",
    _ONE_CODE: (
        "cache_implementation cache_config max_cache_len compile_config disable_compile prefill_chunk_size "
        "continuous_batching_config"
    ),
    "it marks the answers": "watermarking_config",
}
REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Names that people may write -> what to write instead, or why it cannot be."""


class GenerationSettings(Section):
    """How the answers of generate_until tasks are generated. Each key overrides the task's own generation_kwargs,
    may be a range, and is left to the task where it is null. Where one is a range, the baseline has the tasks' own
    settings of all of them."""

    do_sample: bool | None = None
    """true: tokens are drawn at random. false: the most probable token is taken."""
    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Divides the logits before a token is drawn; needs do_sample: true, as the next seven do."""
    top_k: int | None = Field(default=None, ge=0)
    """Only the k most probable tokens are drawn from; 0: all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Only the smallest set of tokens with this probability is drawn from; 1: all."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Tokens less probable than this share of the most probable one are left out."""
    top_h: float | None = Field(default=None, gt=0, le=1)
    """Share of the entropy of the tokens that are drawn from."""
    typical_p: float | None = Field(default=None, gt=0, le=1)
    """Probability of the most typical tokens that are drawn from; 1: all."""
    epsilon_cutoff: float | None = Field(default=None, ge=0, lt=1)
    """Tokens less probable than this are left out."""
    eta_cutoff: float | None = Field(default=None, ge=0, lt=1)
    """The same with a limit that depends on the entropy."""
    repetition_penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Divides the logits of tokens that are in the text already; 1: none."""
    no_repeat_ngram_size: int | None = Field(default=None, ge=0)
    """No n tokens in a row appear twice; 0: they may."""
    num_beams: int | None = Field(default=None, ge=1)
    """Beams of beam search; 1: none. With do_sample: true the answers depend on score.batch_size and on the number of
    ranks."""
    length_penalty: float | None = Field(default=None, allow_inf_nan=False)
    """Above 0 beam search prefers longer answers; needs num_beams above 1."""
    early_stopping: bool | Literal["never"] | None = None
    """When beam search ends; needs num_beams above 1."""
    min_new_tokens: int | None = Field(default=None, ge=0)
    """Tokens of an answer, at least."""
    max_gen_toks: int | None = Field(default=None, ge=1)
    """Tokens of an answer, at most (lm-eval's name of max_new_tokens)."""
    exponential_decay_length_penalty: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """[start, factor]: after `start` tokens the end becomes more probable by `factor` with each token."""
    renormalize_logits: bool | None = None
    """Whether the logits are normalized after all that changes them."""
    remove_invalid_values: bool | None = None
    """Whether NaN and infinite logits are replaced."""
    until: str | list[str] | None = None
    """Texts that end an answer (lm-eval's name of stop_strings)."""

    @property
    def given(self) -> dict[str, JsonValue]:
        """The settings of the file by name."""
        return {name: value for name, value in self if value is not None}

    @model_validator(mode="after")
    def _has_effect(self) -> GenerationSettings:
        for text in unread(self.given):
            raise ValueError(text)
        return self


def unread(given: Mapping[str, JsonValue]) -> Iterator[str]:
    """An error for each setting that would have no effect beside the others, or contradicts them."""
    sampled = given.get("do_sample")
    for name in SAMPLING if sampled is not True else ():
        if name in given:
            rule = "has no effect with do_sample: false" if sampled is False else "needs do_sample: true"
            step = _step("do_sample", [True]) if sampled is False else "add it, or remove this key"
            yield f"{name}: {rule}; {step}"
    beams = given.get("num_beams", 1)
    for name in OF_BEAMS if beams == 1 else ():
        if name in given:
            yield f"{name}: has no effect with one beam; {_step('num_beams', [2, 4])}"
    least, most = given.get("min_new_tokens"), given.get("max_gen_toks")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        yield f"min_new_tokens: {least} is above max_gen_toks: {most}; needs min_new_tokens <= max_gen_toks"


def _step(name: str, values: Iterable[JsonValue]) -> str:
    shown = ", ".join(str(value).lower() for value in values)
    return f"remove it, or make it a range with when: {{score.generation.{name}: [{shown}]}}"


def _known(value: object) -> object:
    """Raises: ValueError for a key that is known and not supported, with what to write instead."""
    if isinstance(value, Mapping):
        for name in value:
            if (reason := REFUSED.get(str(name))) is not None:
                raise ValueError(f"{name}: is not supported here: {reason}")
    return value


Generation = Annotated[GenerationSettings, BeforeValidator(_known)]
