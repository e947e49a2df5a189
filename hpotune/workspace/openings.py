"""STUDY/test/openings.json: each opening of the sealed test, with who opened it, when, and for which trials.

An opening is recorded before anything of it is scored, and never removed: every later output says how many there were.
"""

from __future__ import annotations

import getpass
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from hpotune.config.json_file import decoding, read_object
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock
from hpotune.workspace.origin.git_state import git_commit

_NEXT = "restore it: it says when the sealed test was opened, which every output shows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """One opening of the sealed test."""

    number: int
    """From 1; its results are in STUDY/test/NUMBER."""
    opened: float
    """Unix seconds."""
    user: str
    host: str
    trials: tuple[int, ...]
    """The finalists that it scores, beside the base model."""
    version: str
    """Of hpotune."""
    commit: str | None
    """Of the git repository of the study file; None: there was none."""


def openings_file(folder: StudyFolder) -> Path:
    """The file of a study's openings."""
    return folder.path / "test" / "openings.json"


def opening_folder(folder: StudyFolder, number: int) -> Path:
    """The folder of an opening's results, a study of its own."""
    return folder.path / "test" / str(number)


def read_openings(folder: StudyFolder) -> tuple[Opening, ...]:
    """The openings of a study's sealed test, first one first; empty where it was never opened.

    Raises: StudyFileError where the file is damaged.
    """
    file = openings_file(folder)
    if not file.exists():
        return ()
    with decoding(file, next_step=_NEXT):
        found = read_object(file, next_step=_NEXT)["openings"]
        if not isinstance(found, list):
            raise ValueError("openings must be a list")
        return tuple(_opening(one, number) for number, one in enumerate(found, start=1))


def _opening(stored: Value, number: int) -> Opening:
    if not isinstance(stored, dict):
        raise ValueError("an opening must be an object")
    trials, opened, commit = stored["trials"], stored["opened"], stored.get("commit")
    if not isinstance(trials, list) or not isinstance(opened, (int, float)):
        raise ValueError("an opening needs trials and opened")
    return Opening(
        number=number,
        opened=float(opened),
        user=str(stored.get("user", "")),
        host=str(stored.get("host", "")),
        trials=tuple(int(str(one)) for one in trials),
        version=str(stored.get("version", "")),
        commit=commit if isinstance(commit, str) else None,
    )


def record_opening(folder: StudyFolder, trials: Sequence[int], *, after: int, home: Path) -> Opening:
    """Record that the sealed test is opened now; returns the opening.

    `after`: how many openings the caller knows. `home`: the folder of the study file.
    Raises: StudyFileError where another process has opened it meanwhile.
    """
    openings_file(folder).parent.mkdir(exist_ok=True)
    with exclusive_lock(openings_file(folder).with_name(".lock")):
        before = read_openings(folder)
        if len(before) != after:
            raise StudyFileError(
                f"{folder.path}: another `hpotune test` has just opened the sealed test; run it again to see its state"
            )
        opening = Opening(
            number=after + 1,
            opened=time.time(),
            user=_user(),
            host=platform.node(),
            trials=tuple(trials),
            version=metadata.version("hpotune"),
            commit=git_commit(home),
        )
        stored = {"openings": [asdict(one) for one in (*before, opening)]}
        write_atomic(openings_file(folder), json.dumps(stored, indent=1) + "\n")
    return opening


def openings_text(openings: Sequence[Opening]) -> str:
    """`sealed test opened 2 times (2026-11-29 by ann, 2026-12-01 by ben)`; empty where it was never opened."""
    if not openings:
        return ""
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    days = ", ".join(
        f"{time.strftime('%Y-%m-%d', time.localtime(one.opened))} by {one.user or 'unknown'}"
        for one in openings
    )
    return f"sealed test opened {times} ({days})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container
        return "unknown"
