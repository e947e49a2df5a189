"""Keys that a study file writes and nothing would read: they are refused, not ignored."""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import KeyPath, Value

_FINETUNE: tuple[KeyPath, ...] = (
    ("data_root",),
    ("keep",),
    ("checks",),
    ("env", "offline"),
    ("score", "batch_size"),
    ("score", "include_path"),
)
"""What only the built-in fine-tuning reads."""


def unread(config: StudyConfig, values: dict[str, Value]) -> Iterator[tuple[KeyPath, str]]:
    """Place and text of each key without a reader."""
    own = next((key for key in ("python", "command") if getattr(config, key) is not None), None)
    for where in _FINETUNE if own else ():
        if _written(values, where):
            yield (
                where,
                f"{'.'.join(map(str, where))}: serves fine-tuning only; a {own} reads it not; remove it",
            )
    labelled = config.model is not None and config.model.task == "sequence_classification"
    if labelled and config.data is not None and config.data.response is not None:
        yield ("data", "response"), "data.response: a classification has labels for answers; remove it"


def _written(value: Value, where: KeyPath) -> bool:
    for key in where:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[str(key)]
    return True
