"""What is wrong with the store of a study that is about to be made: its file system, its file, trials it holds already.

The storage is imported only where the study file names a store by its URL: `check --static` takes half a second.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from hpotune.checks.finding import Finding
from hpotune.config.load import Study
from hpotune.errors import StoreError
from hpotune.storage.backends.filesystem_probe import sqlite_refusal
from hpotune.workspace.folder import StudyFolder

_KEY = ("store",)


def network_findings(study: Study, folder: StudyFolder) -> Iterator[Finding]:
    """An error where the study file names an SQLite store that would be on a network file system."""
    store = study.config.store
    if store.startswith("sqlite") and not study.config.sqlite_on_network:
        named = store.partition(":///")[2] or "store.db"
        if refusal := sqlite_refusal(folder.path / named):  # an absolute path stays as it is
            yield Finding(kind="network file system", level="bad", key=_KEY, text=refusal)


def content_findings(study: Study, folder: StudyFolder) -> Iterator[Finding]:
    """A warning where the store that the study file names holds trials of this study, whose folder does not exist.

    Raises: StoreError where the file is no store.
    """
    if "://" not in study.config.store or folder.resolved_file.is_file():
        return
    from hpotune.storage.backends.connect import choose
    from hpotune.storage.backends.store_file import damage_message, examine_file

    url, _ = choose(study.config.store, folder.path)
    if not url.startswith("postgresql"):
        try:
            examine_file(url)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(damage_message(url, str(error))) from error
    try:
        text = earlier_trials_message(url, study.config.name, folder)
    except StoreError as error:  # jobs may reach it from elsewhere; `run` and `submit` stop at it
        yield Finding(kind="store", level="note", key=_KEY, text=f"earlier trials are not known: {error}")
        return
    if text:
        yield Finding(kind="earlier trials", level="note", key=_KEY, text=text)


def earlier_trials_message(url: str, name: str, folder: StudyFolder) -> str:
    """What the store holds of a study whose folder does not exist, and the two ways on; empty where it holds nothing.

    Trials of another folder that exists are left out: creating the study names that folder and refuses.
    Raises: StoreError where the store cannot be reached or read.
    """
    from hpotune.storage.readers.read_only import earlier_trials

    found = earlier_trials(url, name)
    if found is None or (found.folder not in (None, str(folder.path)) and Path(str(found.folder)).exists()):
        return ""
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.first))
    count = f"{found.finished} finished trials" if found.finished else f"{found.started} started trials"
    optuna_url = url.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver that is installed
    origin = f"whose folder ({found.folder}) is gone" if found.folder else "which no study folder is known of"
    return (
        f"{url}: holds {count} of a study {name!r} from {day}, {origin}; "
        "to go on with them: `hpotune run --adopt` or `submit --adopt`; to drop them: `optuna delete-study "
        f"--study-name {name} --storage {optuna_url}`; or rename this study (name:)"
    )
