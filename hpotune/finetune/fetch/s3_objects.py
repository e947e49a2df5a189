"""Objects of S3-compatible storage: listed, and downloaded into hpotune's cache, whole or not at all.

Endpoint, region and credentials come from the environment (AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID)
or the AWS profile; public buckets need none (UNSIGNED). A folder of the cache is named by the names, sizes and etags of
its objects, so that other content has another folder; it gets its name only once all objects are in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from hpotune.finetune.fetch.downloads import AT_ONCE, verify
from hpotune.finetune.fetch.s3_errors import explained, is_transient, s3_code
from hpotune.finetune.trial_errors import UserError
from hpotune.records.fetch_record import FetchFile, FetchItem
from hpotune.workspace.fetched_lock import S3, absent_files
from hpotune.workspace.lock import exclusive_lock

if TYPE_CHECKING:
    from s3fs import S3FileSystem

BLOCK = 8 * 2**20
"""Bytes of one request; what was read before a cut is kept."""
TRIES = 5
PAUSE_S = 0.5
"""Before the second try of a block; then twice as long each time."""
CONNECT_S, READ_S = 10, 60
UNSIGNED = "AWS_NO_SIGN_REQUEST"
"""1, yes or true: requests carry no credentials, as with the option --no-sign-request of AWS's own program."""
MD5 = r"[0-9a-f]{32}"
"""The etag of an object that was uploaded in one part and is not encrypted with a key of its own."""
Result = TypeVar("Result")


def open_s3(*, key: str, env: Mapping[str, str] = os.environ) -> S3FileSystem:
    """S3 as the environment or the AWS profile says.

    Raises: UserError that starts with `key`, the key of the study file, if s3fs is not installed.
    """
    try:
        import s3fs
    except ImportError as error:
        raise UserError(f"{key}: s3:// needs the package s3fs ({error}); pip install 'hpotune[s3]'") from None
    region = env.get("AWS_DEFAULT_REGION") or env.get("AWS_REGION")
    timeouts = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"max_attempts": 0}}
    fs = s3fs.S3FileSystem(
        anon=env.get(UNSIGNED, "").lower() in ("1", "yes", "true"),
        endpoint_url=env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL"),
        client_kwargs={"region_name": region} if region else {},
        config_kwargs=timeouts,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    fs.retries = 1  # `_retried` has tries and pauses of its own
    return fs


def list_objects(url: str, *, key: str) -> FetchItem:
    """The object of an address, or all objects below it, without commit and folder (`in_cache` gives them).

    Raises: UserError that starts with `key`, the key of the study file.
    """
    fs = open_s3(key=key)
    bucket, _, name = url.removeprefix(S3).rstrip("/").partition("/")
    with explained(url, key=key):
        found = _retried(lambda: _objects(fs, bucket, name))
    is_file = list(found) == [""]
    files = [
        FetchFile(path=inner or PurePosixPath(name).name, size=size, etag=etag)
        for inner, (size, etag) in sorted(found.items())
    ]
    return FetchItem(kind="s3", id=url, commit="", files=files, keys=[key], is_file=is_file)


def in_cache(item: FetchItem, cache: Path) -> FetchItem:
    """The item with its commit, a hash of its files, and the folder of the cache that they have."""
    facts = [(one.path, one.size, one.etag) for one in item.files]
    commit = hashlib.sha256(repr((item.id, facts)).encode()).hexdigest()
    stem = re.sub(r"[^\w.-]", "-", PurePosixPath(item.id).stem).strip(".")
    folder = cache / "s3" / f"{stem}-{commit[:16]}"
    return item.model_copy(update={"commit": commit, "folder": str(folder)})


def _objects(fs: S3FileSystem, bucket: str, name: str) -> dict[str, tuple[int, str | None]]:
    """Name below the key -> size and etag; the name is empty for the object of this very key.

    A listing, not HEAD: its errors have a text. Where only objects may be read, HEAD is asked after all.
    Raises: FileNotFoundError for nothing; UserError for a name that is no file's.
    """
    try:
        pages = _pages(fs, bucket, name)
    except Exception as error:
        if s3_code(error) not in ("AccessDenied", "403"):
            raise
        about = fs.call_s3("head_object", Bucket=bucket, Key=name)
        return {"": (int(about["ContentLength"]), _etag(about))}
    found = {str(one["Key"]): (int(one["Size"]), _etag(one)) for one in pages}
    if name in found:
        return {"": found[name]}
    inner = {key.removeprefix(f"{name}/"): fact for key, fact in found.items() if key.startswith(f"{name}/")}
    inner = {key: fact for key, fact in inner.items() if key and not key.endswith("/")}
    for key in inner:
        if {".", ".."} & set(key.split("/")) or "" in key.split("/") or "\0" in key:
            raise UserError(f"{bucket}/{name}/{key}: is not a name of a file in a folder; rename the object")
    if not inner:
        raise FileNotFoundError(f"{bucket}/{name}")
    return inner


def _pages(fs: S3FileSystem, bucket: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=name, **more)
        found += page.get("Contents", [])
        if not page.get("IsTruncated"):
            return found
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _etag(about: Mapping[str, Any]) -> str | None:
    return str(about.get("ETag", "")).strip('"') or None


def missing_bytes(item: FetchItem) -> int:
    """Bytes of an item that are not in the cache yet."""
    assert item.folder is not None, "objects of S3 have a folder"
    there = Path(item.folder) if Path(item.folder).is_dir() else _unfinished(Path(item.folder))
    return sum(max(0, file.size - _size(there / file.path)) for file in item.files)


def fetch_s3_item(item: FetchItem) -> FetchItem:
    """Download the objects of an item, verify all of them, and return it with their hashes.

    Blocks that an earlier try has read are kept in a folder beside, which gets its name once all is there and verified.
    Raises: UserError.
    """
    assert item.folder is not None, "objects of S3 have a folder"
    folder, key = Path(item.folder), item.keys[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir() and any(absent_files(item, hub=folder)):
            os.rename(folder, _unfinished(folder))  # a file was deleted or cut: it is fetched again
        if not folder.is_dir():
            fs = open_s3(key=key)
            with explained(item.id, key=key), ThreadPoolExecutor(AT_ONCE) as pool:
                for _ in pool.map(partial(_download, fs, item, _unfinished(folder)), item.files):
                    pass
        where = folder if folder.is_dir() else _unfinished(folder)
        files = [_verified(file, item, where) for file in item.files]
        if where != folder:
            os.rename(where, folder)
    return item.model_copy(update={"files": files})


def _verified(file: FetchFile, item: FetchItem, where: Path) -> FetchFile:
    """The file with its hash. Raises: UserError, with the file removed, where its content is not the object's."""
    path = where / file.path
    sha256, wrong = verify(path, file)
    wrong = wrong or _wrong_etag(path, file)
    if wrong:
        path.unlink(missing_ok=True)
        raise UserError(f"{item.keys[0]}: {item.id}: {file.path} {wrong}; run hpotune fetch again")
    return file.model_copy(update={"sha256": sha256})


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unfinished")


def _download(fs: S3FileSystem, item: FetchItem, folder: Path, file: FetchFile) -> None:
    """The file in the folder, whole; the blocks that are there are kept."""
    bucket, _, name = item.id.removeprefix(S3).rstrip("/").partition("/")
    name += "" if item.is_file else f"/{file.path}"
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if _size(path) > file.size:
        path.unlink()
    with path.open("ab") as target:
        while (start := target.tell()) < file.size:
            end = min(start + BLOCK, file.size)
            target.write(_retried(partial(_block, fs, bucket, name, start, end, etag=file.etag)))
            target.flush()


def _block(fs: S3FileSystem, bucket: str, name: str, start: int, end: int, *, etag: str | None) -> bytes:
    """Bytes of an object, which must still have the etag."""
    from fsspec.asyn import sync

    options = {"IfMatch": f'"{etag}"'} if etag else {}
    answer = fs.call_s3("get_object", Bucket=bucket, Key=name, Range=f"bytes={start}-{end - 1}", **options)
    content = bytes(sync(fs.loop, answer["Body"].read))
    if len(content) != end - start:
        raise ConnectionError(f"{len(content)} bytes came instead of {end - start}")
    return content


def _wrong_etag(path: Path, file: FetchFile) -> str:
    """What is wrong by the etag, where it is the MD5 of the content and the SHA-256 is not known."""
    if file.sha256 is not None or file.etag is None or not re.fullmatch(MD5, file.etag):
        return ""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    found = digest.hexdigest()
    return "" if found == file.etag else f"has the MD5 {found[:12]} and not {file.etag[:12]}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _retried(action: Callable[[], Result]) -> Result:
    """The result of the action, tried again where the connection or the server fails."""
    for attempt in range(TRIES):
        try:
            return action()
        except Exception as error:
            if attempt == TRIES - 1 or isinstance(error, UserError) or not is_transient(error):
                raise
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("the last try returns or raises")
