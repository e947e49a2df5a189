"""The licence of a base model, where its card says it: in its folder, or in the hub's cache. Never asks the network."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from hpotune.config.memory.model_shape import hub_snapshot
from hpotune.config.text_files import read_file
from hpotune.config.yaml_source import Value

LARGEST = 2**20
"""Bytes of a card that is read."""
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LICENCE = re.compile(r"[\w.+-]{1,60}")
"""An identifier of a licence, such as apache-2.0."""


def base_licence(path: str, *, revision: str | None) -> str | None:
    """The identifier of the licence in the card of a model's folder or hub id; None where it is not stated."""
    folder = Path(path).expanduser()
    card = folder / "README.md" if folder.is_dir() else _cached_card(path, revision or "main")
    if card is None or not card.is_file():
        return None
    try:
        text = read_file(card, largest=LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return _stated(text)


def _stated(card: str) -> str | None:
    found = _FRONT.match(card)
    if found is None:
        return None
    try:
        values: Value = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return None
    if not isinstance(values, dict):
        return None
    name = values.get("license_name") if values.get("license") == "other" else None
    licence = name or values.get("license")
    return licence if isinstance(licence, str) and _LICENCE.fullmatch(licence) else None


def _cached_card(repo: str, revision: str) -> Path | None:
    """The card of a model in the hub's cache."""
    snapshot = hub_snapshot(repo, revision)
    return snapshot / "README.md" if snapshot is not None else None
