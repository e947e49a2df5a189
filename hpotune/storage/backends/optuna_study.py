"""The Optuna study that holds a study's trials: made once in a storage, found again by its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from hpotune.config.load import Study
from hpotune.errors import StoreError
from hpotune.storage.backends.connect import connect
from hpotune.storage.backends.filesystem_probe import sqlite_refusal
from hpotune.storage.backends.store_file import require_file
from hpotune.workspace.folder import IDENTITY_SECTIONS


def create_study(url: str, study: Study, *, folder: str, adopt: bool = False) -> tuple[BaseStorage, int]:
    """The storage and the id of the study in it; made where there is none.

    `adopt`: take over the study of another folder, if that does not exist any more.
    Raises: StoreError when the storage cannot be reached, is not safe, or holds another study of that name.
    """
    _require_safe(url, study)
    storage, name = connect(url), study.config.name
    senses = [objective.sense for objective in study.config.score.objective]
    made = optuna.create_study(storage=storage, study_name=name, directions=senses, load_if_exists=True)
    owner = made.user_attrs.get("folder")
    if adopt and owner is not None and not Path(owner).exists():
        owner = None
    if owner not in (None, folder) or [d.name.lower() for d in made.directions] != senses:
        raise StoreError(f"{url}: holds another study named {name!r} (of {owner}); rename this one (name:)")
    own_hash = identity_hash(study)
    if made.user_attrs.get("identity", own_hash) != own_hash:
        raise StoreError(_changed_study(url, name))
    if "identity" not in made.user_attrs:
        made.set_user_attr("identity", own_hash)
    if owner is None:
        made.set_user_attr("folder", folder)
        made.set_metric_names([objective.label for objective in study.config.score.objective])
    return storage, storage.get_study_id_from_name(name)


def open_study(url: str, study: Study, *, read_only: bool, patience_s: float) -> tuple[BaseStorage, int]:
    """The storage and the id of a study that was made before. `patience_s`: as in `connect`.

    Raises: StoreError when the storage cannot be reached or has no such study.
    """
    require_file(url)
    if not read_only:
        _require_safe(url, study)
    storage = connect(url, read_only=read_only, patience_s=patience_s)
    try:
        return storage, storage.get_study_id_from_name(study.config.name)
    except KeyError:
        raise StoreError(
            f"{url}: has no study {study.config.name!r}, so the trials of this folder are not there; restore the "
            "store, or remove the study's folder to start over"
        ) from None


def _require_safe(url: str, study: Study) -> None:
    """Raises: StoreError for an SQLite file on a network file system, unless the study file allows it."""
    if not url.startswith("sqlite:") or study.config.sqlite_on_network:
        return
    if refusal := sqlite_refusal(Path(url.partition(":///")[2])):
        raise StoreError(f"store: {refusal}")


def identity_hash(study: Study) -> str:
    """A hash of the sections that a study's trials depend on; 1 and 1.0, null and a missing key are the same."""
    sections = {key: study.template[key] for key in IDENTITY_SECTIONS if study.template.get(key) is not None}
    plain = json.loads(json.dumps(sections), parse_float=lambda text: _integer(float(text)))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _integer(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _changed_study(url: str, name: str) -> str:
    """The error about a storage that holds another study of this name."""
    optuna_url = url.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver that is installed
    return (
        f"{url}: holds a study {name!r} of this folder with other sections, and results of two studies cannot be "
        f"compared; rename this one (name:), or `optuna delete-study --study-name {name} --storage {optuna_url}`"
    )
