"""Files written as a whole or not at all, and whether a folder has space for them; not what the files hold."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hpotune.errors import StoreError

MIN_FREE_BYTES = 1_000_000
"""Bytes that a new study needs at least: its files and an empty store."""


def write_atomic(path: Path, text: str) -> None:
    """Write the whole file or nothing: to a temporary name, then moved. Its mode is 0644, whatever the umask is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes 0600; colleagues read a shared project folder
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def copy_atomic(source: Path, path: Path) -> None:
    """Copy a file whole or not at all, unless it is there already. Its mode is 0644."""
    if path.exists():
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        shutil.copyfile(source, temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    return f"{folder}: cannot be written ({error.strerror}); free space, or choose another with --folder"
