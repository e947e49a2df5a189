"""A call of the interface leaves the process as it was, and raises what the verbs print."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import OperationalError

from hpotune.api.library_call import known_error, library_call
from hpotune.errors import HpotuneError, StoreError, StudyFileError
from hpotune.records.program_import import importing_program


@pytest.fixture(autouse=True)
def umask() -> Iterator[int]:
    before = os.umask(0o022)
    yield 0o022
    os.umask(before)


def mask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


@library_call
def restricting(error: Exception | None = None) -> int:
    """What opening a study does."""
    os.umask(0o077)
    if error is not None:
        raise error
    return mask()


def test_umask_is_restored() -> None:
    assert (restricting(), mask()) == (0o077, 0o022)
    with pytest.raises(HpotuneError):
        restricting(HpotuneError("no"))
    assert mask() == 0o022


def test_last_of_two_threads_restores_it() -> None:
    inside, leave, seen = threading.Event(), threading.Event(), list[int]()

    @library_call
    def long() -> None:
        os.umask(0o077)
        inside.set()
        leave.wait(60)
        seen.append(mask())

    thread = threading.Thread(target=long)
    thread.start()
    inside.wait(60)
    restricting()
    assert mask() == 0o077  # the other call still writes files
    leave.set()
    thread.join()
    assert (seen, mask()) == ([0o077], 0o022)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "f"), StoreError),
        (PermissionError(errno.EACCES, "Permission denied", "f"), StudyFileError),
        (OperationalError("select", {}, Exception("database is locked")), StoreError),
    ],
)
def test_errors_are_those_of_the_verbs(error: Exception, kind: type[HpotuneError]) -> None:
    with pytest.raises(kind) as raised:
        restricting(error)
    assert str(raised.value) == str(known_error(error))
    assert raised.value.__cause__ is error


def test_bugs_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError):
        restricting(ZeroDivisionError())


def test_import_by_a_trial_ends_there() -> None:
    done = []
    with importing_program() as ended:
        done.append("above")
        restricting()
        done.append("below")
    assert (done, len(ended)) == (["above"], 1)
    assert restricting() == 0o077
