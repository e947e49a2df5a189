"""The lock file of `hpotune fetch` in a study's folder: commits of what the study's jobs read.

A study without the file reads what its caches hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from hpotune.config.json_file import decoding, read_regular
from hpotune.config.schema.data_config import DataConfig, MixtureSource
from hpotune.config.schema.study_config import PointConfig
from hpotune.records.fetch_record import FetchedLock, FetchFile, FetchItem, Kind
from hpotune.workspace.atomic_files import write_atomic

FILE = "fetched.lock.json"
S3 = "s3://"
"""How an address in S3-compatible storage starts."""
VARIABLE = "HPOTUNE_FETCHED_LOCK"
"""Variable of a trial's process: the lock file of its study."""


def lock_file(folder: Path) -> Path | None:
    """The lock file of a study's folder, or of the study that it is derived from; None: nothing was fetched."""
    above = [one for one in folder.parents[:2] if (one / "resolved.yaml").is_file()]
    return next((one / FILE for one in (folder, *above) if (one / FILE).is_file()), None)


def read_lock(file: Path | None) -> FetchedLock | None:
    """What a lock file holds; None without one.

    Raises: DamagedFileError, with the next step.
    """
    if file is None:
        return None
    with decoding(file, next_step=f"remove it, then run `hpotune fetch {file.parent}`"):
        stat = file.stat()
        return _parsed(file, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


@lru_cache(maxsize=8)
def _parsed(file: Path, stamp: object) -> FetchedLock:
    return FetchedLock.model_validate_json(read_regular(file))


def write_lock(folder: Path, lock: FetchedLock) -> Path:
    """Write the lock file of a study's folder, which is made if it is missing."""
    write_atomic(folder / FILE, lock.model_dump_json(indent=1) + "\n")
    return folder / FILE


def pinned_commit(
    kind: Kind, id_: str, revision: str | None, env: Mapping[str, str] = os.environ
) -> str | None:
    """The fetched commit of a repository, in the process of a trial; the revision itself where nothing was fetched."""
    named = env.get(VARIABLE)
    lock = read_lock(Path(named)) if named else None
    item = lock.find(kind, id_, revision) if lock is not None else None
    return item.commit if item is not None else revision


def located(point: PointConfig, lock: FetchedLock | None) -> PointConfig:
    """The point with the commits of the lock file as its revisions, and files for addresses in S3."""
    if lock is None or point.model is None:
        return point
    model = {
        "path": _local(point.model.path, lock),
        "tokenizer": _local(point.model.tokenizer, lock) if point.model.tokenizer is not None else None,
        "revision": _commit("model", point.model.path, point.model.revision, lock),
    }
    found = point.model_copy(update={"model": point.model.model_copy(update=model)})
    if point.data is None:
        return found
    data = _located_rows(point.data, lock) | {
        "mixture": {
            name: one.model_copy(update=_located_rows(one, lock)) for name, one in point.data.mixture.items()
        }
    }
    return found.model_copy(update={"data": point.data.model_copy(update=data)})


def _located_rows(one: DataConfig | MixtureSource, lock: FetchedLock) -> dict[str, object]:
    return {
        "path": _local(one.path, lock),
        "revision": _commit("dataset", one.path, one.revision, lock) if one.path else None,
    }


def _local(path: str, lock: FetchedLock) -> str:
    """The file or folder of an address in S3 that was fetched; any other path as it is."""
    item = lock.find("s3", path, None) if path.startswith(S3) else None
    if item is None or item.folder is None:
        return path
    return str(Path(item.folder, item.files[0].path)) if item.is_file else item.folder


def _commit(kind: Kind, path: str, revision: str | None, lock: FetchedLock) -> str | None:
    item = lock.find(kind, path, revision)
    return item.commit if item is not None else revision


def hub_cache(env: Mapping[str, str]) -> Path:
    """The hub's cache of an environment. Source: huggingface_hub, constants.py."""
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(env.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def path_of(file: FetchFile, item: FetchItem, *, hub: Path) -> Path:
    """Where a fetched file lies. `hub`: the hub's cache."""
    if item.kind == "s3":
        assert item.folder is not None, "objects of S3 have a folder"
        return Path(item.folder, file.path)
    return hub / f"{item.kind}s--{item.id.replace('/', '--')}" / "snapshots" / item.commit / file.path


def absent_files(item: FetchItem, *, hub: Path) -> Iterator[tuple[Path, str]]:
    """The files of an item that are missing or have another size, each with what is wrong; contents are not read."""
    for file in item.files:
        path = path_of(file, item, hub=hub)
        try:
            size = path.stat().st_size
        except OSError:
            yield path, "is missing"
            continue
        if size != file.size:
            yield path, f"has {size} bytes and not {file.size}"
