"""The token ids of lm-eval's requests: each text is tokenized once, many in one call of the tokenizer.

lm-eval tokenizes context and answer of every request one by one, so the context of four answers eight times. The ids
are the same: those of the answer are what follows the context's in the ids of both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix

TokenRequest = tuple[tuple[str, str] | None, list[int], list[int]]
"""The texts of a request (None for a window of a long text), and the token ids of its context and continuation."""
KeptTokens = dict[tuple[tuple[str, str], ...], list[TokenRequest]]
"""Texts of requests -> what `token_requests` found for them, with one tokenizer."""
AT_ONCE = 512
"""Texts in one call; of what it returns only the ids of the answers are kept."""


def token_requests(
    lm: HFLM, requests: Sequence[Instance], *, kept: KeptTokens | None = None
) -> list[TokenRequest]:
    """The requests with their token ids, as `HFLM.loglikelihood` finds them. Equal contexts are one list.

    `kept`: of earlier calls with the same tokenizer; what is found is kept there.
    """
    pairs = tuple((str(one.args[0]), str(one.args[1])) for one in requests)
    if kept is None:
        return _tokenized(lm, pairs)
    if pairs not in kept:
        kept[pairs] = _tokenized(lm, pairs)
    return kept[pairs]


def _tokenized(lm: HFLM, pairs: Sequence[tuple[str, str]]) -> list[TokenRequest]:
    contexts = list(dict.fromkeys(context.rstrip() for context, _ in pairs if context))
    ids = dict(zip(contexts, _encoded(lm, contexts), strict=True))
    found: list[TokenRequest] = []
    remaining = iter(pairs)
    while chunk := list(islice(remaining, AT_ONCE)):
        whole = iter(_encoded(lm, [context + answer for context, answer in chunk if context]))
        for context, answer in chunk:
            if not context:
                found.append(((context, answer), *_without_context(lm, answer)))
                continue
            of_context = ids[context.rstrip()]
            found.append(((context, answer), of_context, next(whole)[len(of_context) :]))
    return found


def _encoded(lm: HFLM, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts, as `HFLM.tok_encode` finds them: a text that begins with the BOS token gets none."""
    usual = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    bos = lm.tokenizer.decode(lm.prefix_token_id)
    found: dict[int, list[int]] = {}
    for has_bos, options in ((False, usual), (True, {"add_special_tokens": False})):
        some = [at for at, text in enumerate(texts) if has_bos_prefix(text, bos) == has_bos]
        for start in range(0, len(some), AT_ONCE):
            part = some[start : start + AT_ONCE]
            encoded = lm.tokenizer([texts[at] for at in part], verbose=False, **options)["input_ids"]
            found.update(zip(part, encoded, strict=True))
    return [found[at] for at in range(len(texts))]


def _without_context(lm: HFLM, answer: str) -> tuple[list[int], list[int]]:
    """The ids of an answer after nothing: the BOS (or EOS) token stands for the context."""
    ids = lm.tok_encode(answer, add_special_tokens=False)
    first = lm.prefix_token_id
    return ([first], ids) if first != ids[0] else (ids[:1], ids[1:])
