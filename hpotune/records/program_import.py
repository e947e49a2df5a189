"""A trial imports the file of its function, and that file may start the study itself: the import ends there.

So a script needs no `if __name__ == "__main__":` around `Study.run()`: what stands above the call is all that a trial
needs. Without this, each trial would start the study again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_importing: ContextVar[bool] = ContextVar("_importing", default=False)


class ImportEnd(BaseException):
    """Ends the import of a user's program. No Exception: the program may catch those."""


@contextmanager
def importing_program() -> Iterator[list[ImportEnd]]:
    """Around the import of a program whose function is a trial's objective; yields what ended it early, if anything."""
    token = _importing.set(True)
    ended: list[ImportEnd] = []
    try:
        yield ended
    except ImportEnd as end:
        ended.append(end)
    finally:
        _importing.reset(token)


def imports_program() -> bool:
    """Whether a trial imports a program now."""
    return _importing.get()


def end_import() -> None:
    """End the import of the program that calls this; does nothing anywhere else.

    Raises: ImportEnd.
    """
    if imports_program():
        raise ImportEnd
