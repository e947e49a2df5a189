"""One preparation of a study at a time, and what is left of one that did not come to its end.

A study's folder holds the lock itself: nothing lies beside the folder, whose parent may be read-only. The lock is the
first file of a new study. Whoever makes the study writes into it what may be removed again. resolved.yaml is written
last, and from then on nothing is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from hpotune.errors import HpotuneError
from hpotune.workspace.atomic_files import check_writable, unwritable_message
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import open_lock_file, read_lock, this_process, wait_for_lock, write_lock


class Hold:
    """A study's folder that no other process prepares for now."""

    def __init__(self, folder: StudyFolder, file: FileIO) -> None:
        self._folder = folder
        self._file = file

    @property
    def made(self) -> bool:
        """Whether the study is complete: others may use it, and nothing of it may be removed."""
        return self._folder.resolved_file.is_file()

    @property
    def unfinished(self) -> list[str]:
        """What a process has begun to make in the folder and neither completed nor removed; file names."""
        used = any(any(self._folder.path.glob(f"{name}/*")) for name in ("jobs", "trials"))
        return [] if self.made or used else read_lock(self._file).splitlines()[1:]

    @contextmanager
    def making(self, url: str) -> Iterator[None]:
        """Around the making of the study with a store of this URL; where that fails, what was made is removed.

        Raises: HpotuneError where the folder cannot be written.
        """
        own = ["code", "provenance.json", "study.yaml"]
        store = Path(url.partition(":///")[2])
        if store.is_relative_to(self._folder.path):
            own.append(store.relative_to(self._folder.path).parts[0])
        try:
            write_lock(self._file, "\n".join([this_process(), *own]))
        except OSError as error:
            raise HpotuneError(unwritable_message(self._folder.path, error)) from None
        try:
            yield
        except BaseException:
            if not self.made:
                self.remove(own)
            raise
        self.sign()

    def remove(self, own: Sequence[str]) -> None:
        """Removes these files and what SQLite, the journal and write_atomic put beside them."""
        for path in self._folder.path.iterdir():
            if any(_of(path.name, name) for name in own):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        self.sign()

    def sign(self) -> None:
        """Writes into the lock who holds it, and that nothing is unfinished."""
        with suppress(OSError):
            write_lock(self._file, this_process())


@contextmanager
def preparing(folder: StudyFolder) -> Iterator[Hold]:
    """Waits for the process that prepares the study, then keeps others waiting.

    A folder that is missing is made. Without a complete study, the lock and a folder that was made here go again.
    Raises: HpotuneError where the folder cannot be written.
    """
    file, new = _locked(folder)
    with file:
        hold = Hold(folder, file)
        try:
            # Of NFS, which remembers for seconds that a file was not there: writing into the folder makes it look again
            check_writable(folder.path)
            if left := hold.unfinished:  # by a process that was killed
                hold.remove(left)
            hold.sign()
            yield hold
        finally:
            if not hold.made and not hold.unfinished:
                folder.lock_file.unlink(missing_ok=True)
                with suppress(OSError):  # it holds files of others
                    if new:
                        folder.path.rmdir()


def wait_until_made(folder: StudyFolder) -> None:
    """Waits for the process that makes the study just now; nothing where there is none."""
    if folder.lock_file.exists() and not folder.resolved_file.is_file():
        with preparing(folder):
            pass


def _locked(folder: StudyFolder) -> tuple[FileIO, bool]:
    """The folder's lock, held, and whether the folder was made here."""
    while True:
        new = _make(folder)
        try:
            file = open_lock_file(folder.lock_file, parents=False)
        except FileNotFoundError:  # a preparation that failed has just removed the folder
            continue
        try:
            wait_for_lock(file, folder.lock_file, what="prepares this study")
            if _stands(file, folder.lock_file):
                return file, new
        except BaseException:
            file.close()
            raise
        file.close()  # removed while we waited: whoever comes now makes another one


def _make(folder: StudyFolder) -> bool:
    try:
        folder.path.mkdir(parents=True)
    except OSError as error:
        if not folder.path.is_dir():
            raise HpotuneError(unwritable_message(folder.path, error)) from None
        return False
    return True


def _stands(file: FileIO, lock: Path) -> bool:
    """Whether the lock that we hold is the one that others would find."""
    ours = os.fstat(file.fileno())
    try:
        return ours.st_nlink > 0 and os.path.samestat(ours, lock.lstat())
    except FileNotFoundError:
        return False


def _of(name: str, own: str) -> bool:
    """Whether a file is one of ours, or one beside it: `store.db-journal`, `store.journal.lock`, `.study.yaml.x1`."""
    return name == own or name.startswith((f"{own}-", f"{own}.lock", f".{own}.", f".{own}-"))
