"""Copies of a model's files on the node's own disk, each made once and shared by the processes of the node.

    ROOT/hpotune-stage-UID/KEY/          a whole copy, with staged.json: of what it is, and the stamps of its files
                           KEY.lock      held while the copy is looked at, made or removed
                           KEY.used      read-locked by each process that uses it; its lines: the studies that will
                           .KEY.RANDOM/  an unfinished copy
                           folder.lock   held for an instant, to register a use or to remove what nobody uses

The kernel releases the locks of a process that is killed, and the next one removes the unfinished copy. What a site
does with the folder at the end of a job is its own matter: a copy that is gone is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import BinaryIO

from hpotune.config.json_file import optional_object
from hpotune.workspace.atomic_files import open_append, write_atomic
from hpotune.workspace.mounts import NETWORK, mount_type

RECORD = "staged.json"
MARGIN_BYTES = 64 * 2**20
"""Left free on the disk beside the copy."""
KEEP_S = 7 * 24 * 3600.0
"""A copy that no process has used for so long is removed, whatever study named it."""
BLOCK = 8 * 2**20
AT_ONCE = 4
"""Files that are copied at the same time."""
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)


class NotStaged(Exception):
    """There is no copy; the text says why. The original is to be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """What is copied."""

    name: str
    """As the study names it, with its commit."""
    files: Mapping[str, Path]
    """Name inside the copy -> file."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Name inside the copy -> hash, where one is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedCopy:
    """A whole copy, which is not removed while `use` is open."""

    folder: Path
    use: BinaryIO
    size: int
    """Bytes."""
    seconds: float | None
    """How long this process copied; None: it was there."""


def stage_folder(text: str, env: Mapping[str, str]) -> Path:
    """The folder that `env.stage` means on this node.

    Raises: NotStaged where a variable is not set, or the folder is missing or shared by several nodes.
    """
    unset = [a or b for a, b in _VARIABLE.findall(text) if not env.get(a or b)]
    if unset:
        raise NotStaged(f"{unset[0]} is not set on this node")
    folder = Path(_VARIABLE.sub(lambda found: env[found[1] or found[2]], text))
    if not folder.is_absolute() or not folder.is_dir():
        raise NotStaged(f"{folder} is not a folder on this node")
    kind = mount_type(folder)
    if kind.removeprefix("fuse.") in NETWORK:
        raise NotStaged(f"{folder} is on {kind}, which is no disk of the node's own")
    return folder


def staged_copy(original: Original, root: Path, *, study: Path) -> StagedCopy:
    """The copy of a model below `root`, made if there is none; other processes wait for the one that copies.

    `study`: the folder of the study that uses it.
    Raises: NotStaged where it cannot be made; then nothing of it is left.
    """
    try:
        shared = _own_folder(root)
        stamps = {name: _stamp(file) for name, file in sorted(original.files.items())}
        key = hashlib.sha256(json.dumps([original.name, stamps]).encode()).hexdigest()[:24]
        use = _registered_use(shared, key, study)
    except OSError as error:
        raise NotStaged(_reason(error, root)) from None
    try:
        started = time.monotonic()
        with _locked(shared / f"{key}.lock"):
            made = not _is_whole(shared / key, stamps)
            if made:
                _copy(original, stamps, shared / key)
        os.utime(use.fileno())
        seconds = time.monotonic() - started if made else None
        size = sum(one[0] for one in stamps.values())
        return StagedCopy(folder=shared / key, use=use, size=size, seconds=seconds)
    except BaseException as error:
        use.close()
        if isinstance(error, OSError):
            raise NotStaged(_reason(error, root)) from None
        raise


def release_copies(
    stage: str | None, env: Mapping[str, str], *, study: Path, say: Callable[[str], None]
) -> None:
    """Note that a study has ended, and remove the copies of this node that no process uses and no other study names.

    `stage`: `env.stage` of the study; None: it has no copies. What cannot be removed is left.
    """
    if stage is None:
        return
    with suppress(NotStaged, OSError):
        root = stage_folder(stage, env)
        if (root / f"hpotune-stage-{os.geteuid()}").is_dir():
            for copy in _remove_unused(_own_folder(root), without=study):
                say(f"removed {copy}, a base model's copy on this node")


def _own_folder(root: Path) -> Path:
    """This user's folder below `root`, closed to others: what lies there is trained on.

    Raises: NotStaged where another user made it; OSError.
    """
    shared = root / f"hpotune-stage-{os.geteuid()}"
    with suppress(FileExistsError):
        shared.mkdir(mode=0o700)
    found = os.lstat(shared)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise NotStaged(f"{shared} is not this user's own folder; remove it, or name another one")
    return shared


def _registered_use(shared: Path, key: str, study: Path) -> BinaryIO:
    """The open file that shows that this process uses the copy."""
    with _locked(shared / "folder.lock"):
        use = open_append(shared / f"{key}.used")
        fcntl.flock(use, fcntl.LOCK_SH)
        if str(study) not in _lines(shared / f"{key}.used"):
            use.write(f"{study}\n".encode())
            use.flush()
    return use


def _remove_unused(shared: Path, *, without: Path | None = None, all_unused: bool = False) -> list[Path]:
    """Remove the copies that no process uses, and that no study but `without` names, or that are old.

    `all_unused`: whichever study names them, since their room is needed.
    """
    removed = []
    with _locked(shared / "folder.lock"):
        for file in sorted(shared.glob("*.used")):
            left = [one for one in _lines(file) if one != str(without) and Path(one).is_dir()]
            old = time.time() - file.stat().st_mtime > KEEP_S
            with open_append(file) as use:
                try:
                    fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if left and not old and not all_unused:
                    os.ftruncate(use.fileno(), 0)
                    use.write("".join(f"{one}\n" for one in left).encode())
                    continue
                copy = file.with_suffix("")
                removed += [copy] if copy.exists() else []
                for path in (copy, *shared.glob(f".{copy.name}.*")):
                    shutil.rmtree(path, ignore_errors=True)
                copy.with_suffix(".lock").unlink(missing_ok=True)
                file.unlink(missing_ok=True)
    return removed


def _copy(original: Original, stamps: Mapping[str, list[int]], folder: Path) -> None:
    """Make the copy whole or not at all; the caller holds its lock.

    Raises: NotStaged, OSError.
    """
    for path in (folder, *folder.parent.glob(f".{folder.name}.*")):  # of a killed process, or damaged
        shutil.rmtree(path, ignore_errors=True)
    size = sum(one[0] for one in stamps.values())
    if _free(folder.parent) < size:
        _remove_unused(folder.parent, all_unused=True)
        if (free := _free(folder.parent)) < size:
            raise NotStaged(
                f"{folder.parent.parent} has room for {_megabytes(free)}, and {_megabytes(size)} are needed"
            )
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    try:
        unfinished.mkdir()
        hashes = _copy_files(original.files, unfinished)
        for name, file in original.files.items():
            _check(name, file, stamps[name], hashes[name], original.sha256.get(name), unfinished / name)
        entries = {name: [*_stamp(unfinished / name), digest] for name, digest in hashes.items()}
        record = {"of": original.name, "stamps": dict(stamps), "files": entries}
        write_atomic(unfinished / RECORD, json.dumps(record, indent=1) + "\n")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _copy_files(files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Copy files, a few at a time; returns the SHA-256 of each. The first error stops all."""
    stop = Event()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        copied = {name: pool.submit(_copy_file, file, folder / name, stop) for name, file in files.items()}
        try:
            return {name: one.result() for name, one in copied.items()}
        finally:
            stop.set()


def _copy_file(file: Path, copy: Path, stop: Event) -> str:
    """Copy a file to the disk; returns the SHA-256 of what was read."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with file.open("rb") as source, copy.open("xb") as target:
        while not stop.is_set() and (block := source.read(BLOCK)):
            digest.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _check(name: str, file: Path, stamp: list[int], digest: str, known: str | None, copy: Path) -> None:
    """Raises: NotStaged where a copy is not what its original was when the copying began, or has another known hash."""
    if _stamp(file) != stamp or copy.stat().st_size != stamp[0]:
        raise NotStaged(f"{file} changed while it was copied")
    if known is not None and digest != known:
        raise NotStaged(f"{file} has SHA-256 {digest[:12]}… and was fetched with {known[:12]}… ({name})")


def _is_whole(folder: Path, stamps: Mapping[str, list[int]]) -> bool:
    """Whether the copy is of these files, and each is as it was written."""
    record = optional_object(folder / RECORD) or {}
    files = record.get("files")
    if record.get("stamps") != stamps or not isinstance(files, dict) or files.keys() != stamps.keys():
        return False
    with suppress(OSError):
        return all(_stamp(folder / name) == entry[:2] for name, entry in files.items())
    return False


def _stamp(file: Path) -> list[int]:
    """Size in bytes, and the time of the last change in nanoseconds."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free - MARGIN_BYTES


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with open_append(file) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _megabytes(size: int) -> str:
    return f"{max(size, 0) / 1e6:,.1f} MB"


def _reason(error: OSError, root: Path) -> str:
    return f"{error.filename or root}: {error.strerror or error}"
