"""Every error a user can meet, and the exit code of each.

    HpotuneError            1   the study failed
    ├── StudyFileError      2   the study file, the arguments or a file of the study's folder are wrong
    ├── ClusterError        3   Slurm refused, or is not there
    ├── StoreError          4   the store or the study's folder cannot be reached, read or written
    └── WaitTimeout         124 `wait` ended before the study; TimeoutError too

A message names the value, the rule, the location and the next step. The CLI prints it as one line;
`--debug` adds the trace. Nothing here imports anything of hpotune.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence


class HpotuneError(Exception):
    """The root of all errors that the CLI prints as one line, with an exit code."""

    exit_code = 1


class StudyFileError(HpotuneError, ValueError):
    """One or more mistakes in a study file or in the arguments; each is one line."""

    exit_code = 2

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes: Sequence[str] = mistakes


class ClusterError(HpotuneError):
    """The cluster refused, or its commands are not there."""

    exit_code = 3


class StoreError(HpotuneError):
    """The store, or the study's folder beside it, cannot be reached, read or written."""

    exit_code = 4


class WaitTimeout(HpotuneError, TimeoutError):
    """The study has not ended within the time that the caller wanted to wait."""

    exit_code = 124
    """As coreutils' timeout."""


class HpotuneWarning(UserWarning):
    """What the verbs print as `note:` or `warning:`; the Python interface warns."""


_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ETIMEDOUT})
"""Errors of a disk that no other path on it would avoid: full, over quota, read-only, failing, gone."""


def of_disk(error: OSError) -> HpotuneError:
    """The error for a file that fails unexpectedly: StoreError for a full or failing disk, else StudyFileError."""
    text = f"{error.filename or 'a file'}: {error.strerror or error}"
    if error.errno in _OF_THE_DISK:
        return StoreError(f"{text}; free space, or use a disk that can be written")
    return StudyFileError(f"{text}; check the path and its permissions")


def nearest(word: str, valid: Iterable[str]) -> str:
    """The tail of an 'unknown name' message: the nearest valid name, then all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid: {', '.join(names)}"


REASON_LENGTH = 300
"""Characters of another library's message."""


def inner_reason(error: BaseException) -> str:
    """What caused an error, and what caused that: the innermost message that says something, in one line."""
    reasons = list[str]()
    while True:
        text = " ".join(str(error).split())
        reasons += [text if len(text) <= REASON_LENGTH else f"{text[:REASON_LENGTH]} ..."] if text else []
        cause = error.__cause__
        if cause is None and not reasons and not error.__suppress_context__:
            cause = error.__context__
        if cause is None:
            return reasons[-1] if reasons else type(error).__name__
        error = cause
