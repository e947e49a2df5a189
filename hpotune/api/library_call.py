"""What surrounds each call of the Python interface, so that a user's own process is left as it was.

A verb ends its process; a library does not. So the umask, which hpotune restricts while it writes a study's files, is
restored after the call, and errors of the store and of the file system are raised as the verbs print them.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from hpotune.errors import HpotuneError

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(kw_only=True)
class _Umask:
    """The process's umask before the first of the calls that run now; they may run in several threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: int = 0
    before: int = 0

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The last of the calls restores it: what runs still needs it restricted."""
        with self.lock:
            if self.calls == 0:
                self.before = os.umask(0o077)
                os.umask(self.before)
            self.calls += 1
        try:
            yield
        finally:
            with self.lock:
                self.calls -= 1
                if self.calls == 0:
                    os.umask(self.before)


_umask = _Umask()


def library_call(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A public function of the interface: it raises HpotuneError, and leaves the process's umask as it was.

    While a trial imports the program that calls it, it ends that import (records/program_import.py).
    """

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        from hpotune.records.program_import import end_import

        end_import()
        with _umask.restored():
            try:
                return function(*args, **kwargs)
            except HpotuneError:
                raise
            except Exception as error:
                known = known_error(error)
                if known is None:
                    raise
                raise known from error

    return called


def known_error(error: Exception) -> HpotuneError | None:
    """The error as users meet it, for one of the store or of the file system; None for any other."""
    from sqlalchemy.exc import SQLAlchemyError

    from hpotune.errors import of_disk

    if isinstance(error, SQLAlchemyError):
        from hpotune.storage.backends.connect import store_failure

        return store_failure(error)
    return of_disk(error) if isinstance(error, OSError) else None
