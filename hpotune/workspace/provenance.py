"""provenance.json: how a study was made (where, with which versions and commit) and which store holds its trials.

Written once, when the study is made; never changed.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hpotune.config.json_file import decoding, read_object
from hpotune.config.yaml_source import Value
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.origin.git_state import git_commit, git_state

RECORDED_PACKAGES = (
    "hpotune", "torch", "transformers", "peft", "accelerate", "datasets", "lm-eval", "optuna", "submitit", "numpy",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """How a study was made. The keys of the file are the names of these fields."""

    home: Path
    """The folder of the study file: where its functions and commands run."""
    store: str
    """The URL of the storage."""
    folder: str | None = None
    """The study's folder at that time; None: recorded by an early version."""
    python: str = ""
    host: str = ""
    versions: Mapping[str, str]
    """Package -> version, of RECORDED_PACKAGES that were installed."""
    commit: str | None = None
    """Of the git repository of `home`; None: there was none."""
    changed: bool | None = None
    """Whether `home` differed from the commit; git.diff beside this file shows how. None: not recorded."""
    untracked: tuple[str, ...] = ()
    """Files in `home` that git did not know."""
    own_commit: str | None = None
    """Of hpotune itself where it ran from a git repository; None: it was installed."""


def write_provenance(file: Path, *, home: Path, store: str) -> None:
    """Record how the study is made now, on this machine.

    Raises: OSError where the file cannot be written.
    """
    state = git_state(home.resolve(), without=file.parent.resolve())
    recorded = {
        "home": str(home),
        "store": store,
        "folder": str(file.parent),
        "python": platform.python_version(),
        "host": platform.node(),
        "versions": _installed_versions(),
        "commit": state.commit if state else None,
        "changed": bool(state.diff or state.untracked) if state else None,
        "untracked": list(state.untracked) if state else [],
        "own_commit": _own_commit(),
    }
    if state and state.diff:
        write_atomic(file.with_name("git.diff"), state.diff)
    write_atomic(file, json.dumps(recorded, indent=1) + "\n")


def read_provenance(file: Path) -> Provenance:
    """What was recorded when the study was made; in a folder that was moved or copied, the store that moved with it.

    Raises: StudyFileError where the file is missing or damaged.
    """
    unknown = (
        "the study's store is not known without it: restore the file, or start a new study with --folder"
    )
    with decoding(file, next_step=unknown):
        recorded: dict[str, Value] = read_object(file, next_step=unknown)
        home, store = recorded["home"], recorded["store"]
        if not (isinstance(home, str) and isinstance(store, str) and "://" in store):
            raise ValueError("home and store must be text")
    folder, commit, versions = (recorded.get(key) for key in ("folder", "commit", "versions"))
    return Provenance(
        home=Path(home),
        store=_moved_store(store, folder, now=file.parent),
        folder=folder if isinstance(folder, str) else None,
        python=str(recorded.get("python", "")),
        host=str(recorded.get("host", "")),
        versions={key: str(version) for key, version in versions.items()}
        if isinstance(versions, dict)
        else {},
        commit=commit if isinstance(commit, str) else None,
        changed=changed if isinstance(changed := recorded.get("changed"), bool) else None,
        untracked=tuple(map(str, others)) if isinstance(others := recorded.get("untracked"), list) else (),
        own_commit=own if isinstance(own := recorded.get("own_commit"), str) else None,
    )


def _moved_store(store: str, before: Value, *, now: Path) -> str:
    """The store's URL, with the study's folder as it is now where the store's file is inside that folder."""
    scheme, _, file = store.partition(":///")
    if not isinstance(before, str) or not Path(file).is_relative_to(before):
        return store
    return f"{scheme}:///{now.resolve() / Path(file).relative_to(before)}"


def _installed_versions() -> dict[str, str]:
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _own_commit() -> str | None:
    """The commit of hpotune where its package lies at the top of a git repository."""
    root = Path(__file__).parents[2]
    return git_commit(root) if (root / ".git").exists() else None
