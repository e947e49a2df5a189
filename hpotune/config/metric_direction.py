"""Whether a metric is better high or low, as far as its name tells. Whole words only: `answer_rate` is not an `ter`."""

from __future__ import annotations

from typing import Literal

Sense = Literal["maximize", "minimize"]
_NAMES: dict[Sense, str] = {
    "maximize": "exact_match pass@1 pass_at_1",
    "minimize": "bits_per_byte brier_score",
}
_WORDS: dict[Sense, str] = {
    "maximize": "acc accuracy f1 em mcc bleu chrf rouge rouge1 rouge2 rougel rougelsum auc",
    "minimize": "loss perplexity ppl wer cer ter mse rmse mae",
}
_SPLITS = ("train", "eval", "val", "valid", "validation", "test")


def known_sense(metric: str) -> Sense | None:
    """The direction of a metric of a task or of training; None where no word of it tells, or two disagree."""
    name = metric.partition(",")[0].lower()  # behind the comma stands a filter
    words = set(name.split("_"))
    found: list[Sense] = [
        sense for sense in _NAMES if name in _NAMES[sense].split() or words & set(_WORDS[sense].split())
    ]
    return found[0] if len(found) == 1 else None


def plain_sense(metric: str) -> Sense | None:
    """The same for a number of your own: only `loss`, `accuracy`, `f1` and the like, with a split's name before."""
    split, _, rest = metric.partition("_")
    name = rest if split in _SPLITS else metric
    return known_sense(name) if name in " ".join(_WORDS.values()).split() else None
