"""Which content a model or a dataset has: the commit of a hub's repository, or a hash of the files of a folder.

Every file is read once a study: its SHA-256 is kept in hashes/ with the file's size and time of change, and read again
only after one of these has changed. A file of 1 GB takes about a second; hashes of files that are done are kept where a
trial ends in between.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpotune.config.json_file import optional_object
from hpotune.workspace.atomic_files import write_atomic

BLOCK = 8 * 2**20
SAVE_EVERY_S = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """The content of a model or a dataset, as far as it is known."""

    path: str
    """As the study names it, or the folder of that name under `data_root`."""
    commit: str | None = None
    """Of the repository on the Hugging Face hub; None: a folder, or it is not known."""
    sha256: str | None = None
    """Over the names and the content of the files; None: a repository on the hub, or it cannot be read."""
    size: int | None = None
    """Bytes of the files."""

    @property
    def identity(self) -> str:
        """The hash, else the commit; empty if neither is known."""
        return self.sha256 or self.commit or ""


def content_of(
    path: str,
    *,
    kind: Literal["models", "datasets"],
    revision: str | None,
    data_root: str | None,
    study: Path,
    env: Mapping[str, str] = os.environ,
) -> Content:
    """The content behind a path of the study file; `study`: the folder that keeps the hashes."""
    local = local_files(path, data_root=data_root if kind == "datasets" else None)
    if local is None:
        return Content(path=path, commit=hub_commit(path, kind=kind, revision=revision, env=env))
    try:
        digest, size = hash_files(local, cache=study / "hashes")
    except OSError:
        return Content(path=str(local))
    return Content(path=str(local), sha256=digest, size=size)


def local_files(path: str, *, data_root: str | None) -> Path | None:
    """The file or folder that a path means; None for a repository on the hub."""
    if path.startswith("package:"):
        name, _, inner = path.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        folders = list(spec.submodule_search_locations or []) if spec else []
        return Path(folders[0]) / inner if folders else None
    if data_root is not None and not path.startswith((".", "~")) and (Path(data_root) / path).exists():
        return Path(data_root) / path
    file = Path(path).expanduser()
    return file if file.exists() else None


def hash_files(path: Path, *, cache: Path) -> tuple[str, int]:
    """SHA-256 over names and contents of a file, or of the visible files below a folder, and their size in bytes.

    Raises: OSError.
    """
    stored = cache / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:24]}.json"
    known, whole, total = optional_object(stored) or {}, hashlib.sha256(), 0
    saved, changed, found = time.monotonic(), False, dict[str, list[object]]()
    for name, file in _files(path):
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        before = known.get(name)
        if not (isinstance(before, list) and before[:2] == stamp and len(before) == 3):
            before, changed = [*stamp, _sha256(file)], True
        found[name] = before
        total += stat.st_size
        whole.update(f"{name}\0{before[2]}\n".encode())
        if changed and time.monotonic() - saved > SAVE_EVERY_S:
            _save(stored, {**known, **found})
            saved = time.monotonic()
    if changed:
        _save(stored, found)
    return whole.hexdigest(), total


def hub_commit(repository: str, *, kind: str, revision: str | None, env: Mapping[str, str]) -> str | None:
    """The commit of a repository in the hub's cache on this machine; None if it is not there."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    root = Path(env.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
    with suppress(OSError, ValueError):
        name = f"{kind}--{repository.replace('/', '--')}"
        commit = (root / name / "refs" / (revision or "main")).read_text(encoding="ascii").strip()
        return commit if _COMMIT.fullmatch(commit) else None
    return None


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each regular file, sorted; files and folders whose names start with a dot are left out."""
    if not path.is_dir():
        yield path.name, path
        return
    found = []
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    for file in sorted(found):
        if file.is_file():
            yield str(file.relative_to(path)), file


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _save(file: Path, entries: Mapping[str, object]) -> None:
    with suppress(OSError):  # a full disk: the files are read again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(entries))
