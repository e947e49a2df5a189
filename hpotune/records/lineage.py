"""Lineages: trials that go on from other trials' checkpoints (algorithm: pbt), and what may change on the way.

A run is cut into as many parts as there are generations; its learning-rate schedule is that of the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpotune.config.schema.rungs import Rung

_TRAIN = (
    "learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon sgd_momentum max_grad_norm "
    "label_smoothing_factor neftune_noise_alpha warmup_steps lr_scheduler_type lr_scheduler_kwargs"
)
FREE: Mapping[str, frozenset[str]] = {
    "lora": frozenset({"lora_dropout"}),
    "train": frozenset(_TRAIN.split()),
}
"""Section -> keys that another part of a run may have otherwise: they shape no weights, no data, and not its length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Where a trial stands among its forebears."""

    generation: int
    """From 0: which part of the run it trains."""
    of: int
    """Generations there are."""
    parent: int | None = None
    """The trial whose checkpoint it goes on from; None: it begins at the first step."""
    place: int | None = None
    """The trial of an earlier generation that it follows; another than `parent` where that one was among the worst."""
    keeps: bool = False
    """Whether it keeps the parent's values."""

    @property
    def rung(self) -> Rung:
        """How far its process is told to go."""
        return Rung(
            index=self.generation,
            unit="share",
            budget=(self.generation + 1) / self.of,
            last=self.generation + 1 == self.of,
        )
