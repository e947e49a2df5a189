"""Token ids of requests, compared with those that lm-eval's own class finds one by one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, PreTrainedTokenizerFast

from hpotune.finetune.scoring import request_tokens
from hpotune.finetune.scoring.request_tokens import token_requests
from tests.fixtures.tiny_model import tiny_tokenizer

PAIRS = [
    ("a b", " c"),
    ("a b", " drum violin"),
    ("ends with spaces  ", "music"),
    ("\n\tline\n", "ocean"),
    ("", "space comet"),
    ("</s>begins with a special token", " x"),
    ("ü ß 日本 🙂", " é"),
    ("a b ", "c"),
    ("long " * 90, " word" * 9),
]


class Recorder(HFLM):
    """lm-eval's class, which returns the ids instead of scoring them."""

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        return requests


def lm_eval_class(tokenizer: PreTrainedTokenizerFast, *, add_bos: bool | None) -> Recorder:
    config = AutoConfig.for_model("llama", vocab_size=512, max_position_embeddings=64)
    facts = SimpleNamespace(config=config, device=torch.device("cpu"))
    return Recorder(pretrained=facts, tokenizer=tokenizer, add_bos_token=add_bos)


@pytest.mark.parametrize("add_bos", [None, True, False])
@pytest.mark.parametrize("at_once", [1, 4, 512])
def test_ids_are_those_of_lm_eval(add_bos, at_once, monkeypatch) -> None:
    monkeypatch.setattr(request_tokens, "AT_ONCE", at_once)
    lm = lm_eval_class(tiny_tokenizer(), add_bos=add_bos)
    requests = [
        Instance("loglikelihood", {}, pair, 0, metadata=("toy", doc, 1)) for doc, pair in enumerate(PAIRS)
    ]
    assert token_requests(lm, requests) == lm.loglikelihood(requests, disable_tqdm=True)


def test_each_text_is_tokenized_once(monkeypatch) -> None:
    lm = lm_eval_class(tiny_tokenizer(), add_bos=None)
    texts: list[str] = []
    call = PreTrainedTokenizerFast.__call__

    def counted(self, text, *args, **kwargs):
        texts.extend([text] if isinstance(text, str) else text)
        return call(self, text, *args, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", counted)
    requests = [
        Instance("loglikelihood", {}, ("one context", f" {n}"), 0, metadata=("toy", 0, 1)) for n in range(4)
    ]
    token_requests(lm, requests)
    assert sorted(texts) == sorted(["one context", *[f"one context {n}" for n in range(4)]])
