"""Text that users write: regular files of a limited size, and the characters that no text of a study may have.

A study file can name anything: a FIFO waits for ever, /dev/zero has no end, and a control character reaches job
scripts, stores and terminals. What reads a file that a user names goes through `read_file` or `check_regular`.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

LARGEST = 64 * 2**20
"""Bytes of a file that is read whole."""
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NO_CHARACTER = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")
_LINE = re.compile(r"[\t\n\r\u2028\u2029]")


class NotRegularError(OSError):
    """A file that is not a regular one, or is too large; `strerror` says what it is."""


def check_regular(path: Path) -> None:
    """Check that a path is a regular file: others may wait for ever or have no end.

    Raises: OSError, with a `strerror` that says what is wrong.
    """
    _check_kind(path, path.stat().st_mode)


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise NotRegularError(None, f"it is {kind}", str(path))


def read_file(path: Path, *, largest: int = LARGEST) -> bytes:
    """The content of a regular file.

    Raises: OSError, with a `strerror`, for a file that cannot be read, is no regular file, or has more than `largest`
    bytes.
    """
    if "\0" in str(path):
        raise NotRegularError(None, "its name has a NUL character", str(path))
    # without O_NONBLOCK, opening a FIFO waits for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_kind(path, os.fstat(descriptor).st_mode)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(largest + 1)
    finally:
        os.close(descriptor)
    if len(content) > largest:
        raise NotRegularError(None, f"it has more than {_size(largest)}", str(path))
    return content


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count // 2**10} KiB"


def wrong_character(text: str, *, one_line: bool = False, any_direction: bool = False) -> str | None:
    """The first character that no text of a study may have, with its name; None if there is none.

    Control characters but tab and line breaks, halves of surrogate pairs, and code points that are no characters.
    `one_line`: tabs and line breaks neither. `any_direction`: characters that change the direction of writing are
    allowed; elsewhere they make a line look like another one (https://trojansource.codes).
    """
    rules = [
        (_CONTROL, "the control character"),
        (_SURROGATE, "half of a character (a surrogate),"),
        (_NO_CHARACTER, "what is no character,"),
    ]
    if not any_direction:
        rules.append((_DIRECTION, "a character that reverses the writing,"))
    if one_line:
        rules.append((_LINE, "a line break or tab,"))
    for pattern, name in rules:
        found = pattern.search(text)
        if found is not None:
            return f"{name} {code_point(found[0])}"
    return None


def code_point(character: str) -> str:
    """`U+000A` of a line break."""
    return f"U+{ord(character):04X}"


def expanded(path: str, home: Path) -> Path:
    """The absolute path of a text, with the home folder of `~` or `~NAME`.

    Raises: ValueError for a user that does not exist, or a path that cannot be one line.
    """
    wrong = wrong_character(path, one_line=True)
    if wrong is not None:
        raise ValueError(f"contains {wrong}, which a path cannot have here")
    try:
        return Path(os.path.normpath(home / Path(path).expanduser()))
    except RuntimeError:
        raise ValueError(f"has no home folder for {path.partition('/')[0]!r}; write the whole path") from None
