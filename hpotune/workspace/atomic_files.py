"""Files written as a whole or not at all, and whether a folder has space for them; not what the files hold."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hpotune.errors import StoreError

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MIN_FREE_BYTES = 1_000_000
"""Bytes that a new study needs at least: its files and an empty store."""


def write_atomic(path: Path, text: str, mode: int = 0o666) -> None:
    """Write the whole file or nothing: to a temporary name, then moved. The umask takes its bits off the mode."""
    write_atomic_bytes(path, text.encode(), mode)


def write_atomic_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """The same of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _moved_to(path, mode=mode) as temporary, temporary:
        temporary.write(content)


def copy_atomic(source: Path, path: Path) -> None:
    """Copy a file whole or not at all, unless it is there already; its mode is the source's, less the umask's bits."""
    if path.exists():
        return
    with _moved_to(path, mode=file_mode(source)) as temporary, temporary, source.open("rb") as content:
        shutil.copyfileobj(content, temporary)


def file_mode(file: Path) -> int:
    """The mode for a copy of a file; 0666, from which the umask is taken, where there is no such file."""
    try:
        return stat.S_IMODE(file.stat().st_mode) & 0o777
    except OSError:
        return 0o666


@contextmanager
def _moved_to(path: Path, *, mode: int) -> Iterator[BinaryIO]:
    """A new file that gets its name when the body has ended, and is removed where it fails.

    The temporary name cannot be guessed, and is created only if it is free: no link that lies there is followed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.fdopen(os.open(temporary, NEW_FILE, mode), "wb")
    try:
        yield file
        os.replace(temporary, path)
    except BaseException:
        file.close()
        temporary.unlink(missing_ok=True)
        raise


def open_append(path: Path) -> BinaryIO:
    """Open a file for appending, created if missing; its folder is created too.

    Raises: OSError where the path is a symbolic link or a FIFO: what is written would go elsewhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def touch(path: Path) -> None:
    """Create an empty file, or set the time of the one that exists, without following a link."""
    open_append(path).close()
    os.utime(path, follow_symlinks=False)


def make_scratch_folder(path: Path) -> Path:
    """Create a folder beside `path` under a name that cannot be guessed; its mode is that of any new folder."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    scratch.mkdir()
    return scratch


def set_usual_mode(path: Path) -> None:
    """Give a file or folder the mode that it would have if it were created now; safetensors writes 0600 always."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~current_umask())


def current_umask() -> int:
    """The umask of this process, read without changing it, since other threads create files meanwhile."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("\nUmask:")[2].split()[0], 8)
    except (OSError, IndexError, ValueError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def check_writable(folder: Path) -> None:
    """Write a test file into the folder, or into the nearest existing folder above it, and remove the file.

    Raises: StoreError where that fails: no permission, no space, or a file in the folder's path.
    """
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        # the prefix is known to `check_same_study`: such files do not make a folder a foreign one
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".hpotune-room-") as file:
            file.write(bytes(MIN_FREE_BYTES))
    except OSError as error:
        raise StoreError(unwritable_message(folder, error)) from None


def wait_for_disk_space(
    folder: Path,
    *,
    patience_s: float,
    pause_s: float,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Wait until the folder is writable, or until `stop` returns True.

    Raises: StoreError when it is not writable for `patience_s` seconds.
    """
    until = time.monotonic() + patience_s
    while not stop():
        try:
            return check_writable(folder)
        except StoreError as error:
            if time.monotonic() >= until:
                raise
            say(f"waiting: {error}")
        time.sleep(pause_s)


def unwritable_message(folder: Path, error: OSError) -> str:
    """The error message about a study folder that cannot be written."""
    if error.filename2:  # of a file that was to replace what lies there, such as a folder of its name
        return f"{error.filename2}: cannot be written ({error.strerror}); move away what lies there"
    return f"{folder}: cannot be written ({error.strerror}); free space, or choose another with --folder"
