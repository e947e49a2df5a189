"""Lineages: which trial's checkpoint a trial continues from (algorithm: pbt), and which keys may change there.

A run is divided into one part per generation; its learning-rate schedule is that of the whole run. Population based
training: Jaderberg et al. 2017, arXiv:1711.09846.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hpotune.config.schema.rungs import Rung

_TRAIN = (
    "learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon sgd_momentum max_grad_norm "
    "label_smoothing_factor neftune_noise_alpha warmup_steps lr_scheduler_type lr_scheduler_kwargs"
)
FREE: Mapping[str, frozenset[str]] = {
    "lora": frozenset({"lora_dropout"}),
    "train": frozenset(_TRAIN.split()),
}
"""Section -> keys that may change between parts of a run: neither weights, data nor length depend on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """The generation, parent and predecessor of a trial."""

    generation: int
    """Which part of the run it trains, from 0."""
    generations: int
    """Parts that a run has."""
    parent: int | None = None
    """The trial whose checkpoint it continues from; None: it starts at the first step."""
    predecessor: int | None = None
    """The trial of an earlier generation that it replaces in the population; its parent, unless that was too bad."""
    keeps_values: bool = False
    """Whether it keeps the parent's values."""

    @property
    def rung(self) -> Rung:
        """Where its part of the run ends."""
        return Rung(
            index=self.generation,
            unit="share",
            budget=(self.generation + 1) / self.generations,
            last=self.generation + 1 == self.generations,
        )

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Lineage:
        """The lineage that a trial's user attribute holds."""
        return cls(**{_FIELDS.get(key, key): value for key, value in stored.items()})

    def as_stored(self) -> dict[str, int | bool | None]:
        """The same as the user attribute holds it."""
        keys = {field: key for key, field in _FIELDS.items()}
        return {keys.get(field, field): value for field, value in asdict(self).items()}


_FIELDS = {"of": "generations", "place": "predecessor", "keeps": "keeps_values"}  # words: ignore
"""Stored key -> field, where they differ: stored keys never change."""
