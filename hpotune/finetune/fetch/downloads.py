"""Downloads of files into the hub's cache: continued where they were cut, and their hashes compared with the hub's."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from hpotune.finetune.fetch.hub_files import explained, patient
from hpotune.finetune.trial_errors import UserError
from hpotune.records.fetch_record import FetchFile, FetchItem
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.fetched_lock import path_of
from hpotune.workspace.lock import exclusive_lock

DOWNLOADS = 2
"""Of a file whose content is not the hub's, before it is an error."""
CHUNK = 2**20
"""Bytes that are written at once: what a kill leaves can be continued."""
AT_ONCE = 4
"""Files that are downloaded at the same time."""
BLOCK = 8 * 2**20
Count = Callable[[int], None]


def fetch_hub_item(item: FetchItem, *, done: Count = lambda size: None) -> FetchItem:
    """Download the files of an item that are missing, verify all of them, and return it with their hashes.

    `done` is called with the size of each file. A file that is in the cache is read and compared too.
    Raises: UserError for a file that cannot be downloaded, or whose content is not the hub's twice.
    """
    lock = threading.Lock()

    def fetch(file: FetchFile) -> FetchFile:
        verified = _fetch_file(file, item)
        with lock:
            done(file.size)
        return verified

    _folder(item).mkdir(parents=True, exist_ok=True)
    with exclusive_lock(_folder(item) / ".hpotune-lock"):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            files = [*pool.map(fetch, item.files)]
        _name_commit(item)
    return item.model_copy(update={"files": files})


def _fetch_file(file: FetchFile, item: FetchItem) -> FetchFile:
    found = cached_path(file, item)
    if found is not None:
        sha256, wrong = verify(found, file)
        if not wrong:
            return file.model_copy(update={"sha256": sha256})
        _forget(found)
    for _ in range(DOWNLOADS):
        unfinished = _download(file, item)
        sha256, wrong = verify(unfinished, file)
        if not wrong:
            _put_into_cache(unfinished, file, item)
            return file.model_copy(update={"sha256": sha256})
        unfinished.unlink()
    raise UserError(
        f"{item.keys[0]}: {item.id}: {file.path} {wrong} after {DOWNLOADS} downloads; the hub, the connection or the "
        f"disk of {constants.HF_HUB_CACHE} changes it"
    )


def _download(file: FetchFile, item: FetchItem) -> Path:
    """The whole file under its temporary name; what an earlier download has left is continued.

    huggingface_hub itself starts over after a kill, as its temporary names are random: where the locks of a file system
    do not hold, two processes would write into one file. Here the lock is hpotune's, which holds there too.
    """
    url = hf_hub_url(item.id, file.path, repo_type=item.kind, revision=item.commit)
    unfinished = unfinished_path(file, item)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK

    def get() -> None:
        with unfinished.open("ab") as target:
            if target.tell() > file.size:
                target.truncate(0)
            http_get(
                url, target, resume_size=target.tell(), headers=build_hf_headers(), expected_size=file.size
            )

    with explained(item.id, kind=item.kind, revision=item.revision, key=item.keys[0]):
        patient(get)
    return unfinished


def _put_into_cache(unfinished: Path, file: FetchFile, item: FetchItem) -> None:
    """Give a verified file its name among the blobs, and link it into the snapshot of the commit."""
    blob, link = blob_path(file, item), path_of(file, item, hub=Path(constants.HF_HUB_CACHE))
    os.replace(unfinished, blob)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(os.path.relpath(blob, link.parent))
    except FileExistsError:
        return
    except OSError:  # a file system without symbolic links
        os.replace(blob, link)


def blob_path(file: FetchFile, item: FetchItem) -> Path:
    """Where huggingface_hub keeps the content: by the hash that the hub gives as its etag."""
    tag = file.git_sha1 or file.sha256
    assert tag is not None, "the hub gives one of them"
    return _folder(item) / "blobs" / tag


def unfinished_path(file: FetchFile, item: FetchItem) -> Path:
    """The file while it is downloaded."""
    return blob_path(file, item).with_suffix(".hpotune-incomplete")


def _folder(item: FetchItem) -> Path:
    return Path(constants.HF_HUB_CACHE, f"{item.kind}s--{item.id.replace('/', '--')}")


def cached_path(file: FetchFile, item: FetchItem) -> Path | None:
    """The file in the hub's cache; None: it is not there."""
    found = try_to_load_from_cache(item.id, file.path, repo_type=item.kind, revision=item.commit)
    return Path(found) if isinstance(found, str) else None


def verify(path: Path, file: FetchFile) -> tuple[str, str]:
    """The SHA-256 of a file, and what is wrong with its content as a predicate; empty if nothing is."""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    for block in _blocks(path):
        sha256.update(block)
        if file.git_sha1 is not None:
            git.update(block)
    found = sha256.hexdigest()
    if size != file.size:
        return found, f"has {size} bytes and not {file.size}"
    if file.sha256 is not None and found != file.sha256:
        return found, f"has the SHA-256 {found[:12]} and not {file.sha256[:12]}"
    if file.git_sha1 is not None and git.hexdigest() != file.git_sha1:
        return found, f"has the git hash {git.hexdigest()[:12]} and not {file.git_sha1[:12]}"
    return found, ""


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def _forget(path: Path) -> None:
    """Remove a damaged file from the cache: the link of the snapshot, and the file that it leads to."""
    real = Path(os.path.realpath(path))
    for one in (path, real):
        one.unlink(missing_ok=True)


def _name_commit(item: FetchItem) -> None:
    """Let the revision mean the fetched commit in the hub's cache, as a download with `hf download` does."""
    revision = item.revision or "main"
    if revision == item.commit:
        return
    write_atomic(_folder(item) / "refs" / revision, item.commit)
