"""The lock that lets one process at a time prepare a study, and the clean-up after an unfinished preparation.

The lock is in the study's folder, since the parent may be read-only. It is the first file of a new study. The process
that makes the study writes into it which files may be removed again. resolved.yaml is written last; from then on
nothing is removed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hpotune.errors import StoreError
from hpotune.workspace.atomic_files import check_writable, unwritable_message
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import (
    LockFile,
    open_lock_file,
    read_lock,
    this_process,
    wait_for_lock,
    write_lock,
)
from hpotune.workspace.trust import close_to_others


class PreparationLock:
    """The held lock of a study's folder: no other process prepares the study now."""

    def __init__(self, folder: StudyFolder, file: LockFile) -> None:
        self._folder = folder
        self._file = file

    @property
    def made(self) -> bool:
        """Whether the study is complete: others may use it, and nothing of it may be removed."""
        return self._folder.resolved_file.is_file()

    @property
    def removable(self) -> bool:
        """Whether no other process can use the folder's files: the study is incomplete, and this is still its lock."""
        return not self.made and _is_current(self._file, self._folder.lock_file)

    @property
    def unfinished(self) -> list[str]:
        """Names of the files that an earlier process started to make and neither completed nor removed."""
        used = any(any(self._folder.path.glob(f"{name}/*")) for name in ("jobs", "trials"))
        return [] if self.made or used else read_lock(self._file).splitlines()[1:]

    @contextmanager
    def making(self, url: str) -> Iterator[None]:
        """A context in which the study is made with a store of this URL; on failure its files are removed.

        Raises: StoreError where the folder cannot be written.
        """
        own = ["code", "provenance.json", "git.diff", "study.yaml"]
        store = Path(url.partition(":///")[2])
        if store.is_relative_to(self._folder.path):
            own.append(store.relative_to(self._folder.path).parts[0])
        try:
            self._announce(own)
            yield
        except BaseException:
            if self.removable:
                self.remove(own)
            raise
        self.sign()

    def _announce(self, own: Sequence[str]) -> None:
        try:
            write_lock(self._file, "\n".join([this_process(), *own]))
        except OSError as error:
            raise StoreError(unwritable_message(self._folder.path, error)) from None

    def remove(self, own: Sequence[str]) -> None:
        """Remove these files and those that SQLite, the journal and write_atomic create beside them.

        Files that cannot be removed now stay listed in the lock, and the next process tries again.
        """
        for path in self._of(own):
            with suppress(OSError):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        if not self._of(own):
            self.sign()

    def _of(self, own: Sequence[str]) -> list[Path]:
        try:
            return [path for path in self._folder.path.iterdir() if any(_of(path.name, name) for name in own)]
        except FileNotFoundError:  # a user has removed the folder
            return []

    def sign(self) -> None:
        """Write into the lock which process holds it, and that nothing is unfinished."""
        with suppress(OSError):
            write_lock(self._file, this_process())


@contextmanager
def preparing(folder: StudyFolder) -> Iterator[PreparationLock]:
    """Wait for the process that prepares the study, then hold the lock.

    A missing folder is created. If the study is not completed, the lock and a folder created here are removed again.
    Raises: StoreError where the folder cannot be written.
    """
    file, new = _locked(folder)
    with file:
        hold = PreparationLock(folder, file)
        try:
            # NFS caches for seconds that a file did not exist: writing into the folder refreshes that
            check_writable(folder.path)
            if left := hold.unfinished:  # by a process that was killed
                hold.remove(left)
            if not hold.unfinished:
                hold.sign()
            yield hold
        finally:
            if hold.removable and not hold.unfinished:
                folder.lock_file.unlink(missing_ok=True)
                file.close()
                _unmake(folder, new=new)


def wait_until_made(folder: StudyFolder) -> None:
    """Wait for a process that is making the study; returns at once where there is none."""
    if folder.lock_file.exists() and not folder.resolved_file.is_file():
        with preparing(folder):
            pass


def _locked(folder: StudyFolder) -> tuple[LockFile, bool]:
    """The folder's lock, held, and whether the folder was created here."""
    while True:
        new = _make(folder)
        try:
            file = open_lock_file(folder.lock_file, parents=False)
        except FileNotFoundError:  # a preparation that failed has just removed the folder
            continue
        except BaseException:
            _unmake(folder, new=new)
            raise
        try:
            wait_for_lock(file, folder.lock_file, what="prepares this study")
            if _is_current(file, folder.lock_file):
                return file, new
        except BaseException:
            file.close()
            raise
        file.close()  # removed while we waited: try with the new one


def _make(folder: StudyFolder) -> bool:
    try:
        folder.path.mkdir(parents=True)
    except OSError as error:
        if not folder.path.is_dir():
            raise StoreError(unwritable_message(folder.path, error)) from None
        return False
    if not folder.shared:
        close_to_others(folder.path)
    return True


def _unmake(folder: StudyFolder, *, new: bool) -> None:
    with suppress(OSError):  # it holds other files
        if new:
            folder.path.rmdir()


def _is_current(file: LockFile, lock: Path) -> bool:
    """Whether the held lock file is still the one at its path."""
    try:
        ours = os.fstat(file.fileno())  # fails on a network file system where another node has removed it
        return ours.st_nlink > 0 and os.path.samestat(ours, lock.lstat())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise


def _of(name: str, own: str) -> bool:
    """Whether a file is `own` or belongs to it: `store.db-journal`, `store.journal.lock`, `.study.yaml.x1`."""
    return name == own or name.startswith((f"{own}-", f"{own}.lock", f".{own}.", f".{own}-"))
