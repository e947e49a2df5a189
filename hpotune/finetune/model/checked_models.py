"""Model checks that a rehearsal has passed, kept on disk: a trial with the same model, rows and adapter repeats none.

The name of a file is a hash of all that a check depends on: the rows (by the key of prepared_rows.py, which holds the
tokenizer too), the files of the base model, the sections `model` and `lora`, the versions of the libraries.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.finetune.model import hub
from hpotune.finetune.model.model_checks import TokenExtent
from hpotune.workspace.atomic_files import write_atomic

LIBRARIES = ("hpotune", "transformers", "peft", "torch")


def checked_key(
    rows_key: str | None,
    config: ModelConfig,
    lora_sections: Sequence[Mapping[str, Value]],
    *,
    extent: TokenExtent,
    labels: Sequence[str] | None,
) -> str | None:
    """The hash of a call of `check_model` with rows of this `prepared_key`.

    None if the rows have none, if the model is on a hub, where it may change, or if it has code of its own.
    """
    folder = Path(hub.model_folder(config.path)).expanduser()
    if rows_key is None or not folder.is_dir() or config.trust_remote_code:
        return None
    facts = [
        rows_key,
        config.model_dump(mode="json"),
        hub.folder_fingerprint(folder),
        list(lora_sections),
        asdict(extent),
        labels,
        [importlib.metadata.version(name) for name in LIBRARIES],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def find_checked(folder: Path, key: str) -> list[str] | None:
    """The warnings of the check of a key; None if it is not there, or its file is damaged."""
    try:
        found = json.loads(_file(folder, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_list = isinstance(found, list) and all(isinstance(one, str) for one in found)
    return found if is_list else None


def write_checked(folder: Path, key: str, warnings: Sequence[str]) -> None:
    """Write the warnings of a check that raised nothing.

    Raises: OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(_file(folder, key), json.dumps([*warnings]))


def _file(folder: Path, key: str) -> Path:
    return folder / f"model-{key}.json"
