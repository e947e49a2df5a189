"""Where an exception comes from: its reason through the exceptions that it hides, and whose code raised it.

Whose code: of this package, of Python's standard library, of an installed library, or of the user. The class of an
exception says nothing about that: a KeyError is raised by everyone.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import hpotune

Owner = Literal["hpotune", "standard", "library", "user"]
PACKAGE = Path(hpotune.__file__).resolve().parent
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
LENGTH = 300
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeLine:
    """A line of code that an exception passed through."""

    file: str
    number: int
    owner: Owner
    library: str = ""
    """The name of the installed library; empty for other code."""

    @property
    def text(self) -> str:
        """`hpotune/finetune/pipeline.py:40`, or `own.py:12` of the user's code."""
        path = Path(self.file)
        shown = path.relative_to(PACKAGE.parent) if self.owner == "hpotune" else path.name
        return f"{shown}:{self.number}"


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, its cause, the cause of that, …; where an exception has no text, what it was raised beside."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        beside = found.__context__ if not found.__suppress_context__ and not str(found).strip() else None
        found = found.__cause__ or _first_of_group(found) or beside


def _first_of_group(error: BaseException) -> BaseException | None:
    """The first exception of an ExceptionGroup (Python 3.11)."""
    inner = getattr(error, "exceptions", ())
    return inner[0] if isinstance(inner, tuple) and inner and isinstance(inner[0], BaseException) else None


def reason(error: BaseException) -> str:
    """`Type: text` of the exception, and of the innermost one that it hides where that says something else."""
    shown = _type_and_text(error)
    inner = next((one for one in reversed([*error_chain(error)]) if _text(one)), error)
    return shown if _text(inner) in shown else f"{shown} ({_type_and_text(inner)})"


def _text(error: BaseException) -> str:
    """The exception's text in one line of at most LENGTH characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}…"


def _type_and_text(error: BaseException) -> str:
    return ": ".join(filter(None, [type(error).__name__, _text(error)]))


def code_lines(error: BaseException) -> list[CodeLine]:
    """The lines of code that led to the innermost exception, outermost first, without the standard library's."""
    chain = [*error_chain(error)]
    frames = [frame for one in chain for frame in traceback.extract_tb(one.__traceback__)]
    found = [_code_line(frame.filename, frame.lineno or 0) for frame in frames]
    return [line for line in found if line.owner != "standard"]


def after_own_code(lines: Sequence[CodeLine]) -> tuple[CodeLine | None, list[CodeLine]]:
    """The last line of hpotune's code, and the lines that it called."""
    own = [index for index, line in enumerate(lines) if line.owner == "hpotune"]
    return (lines[own[-1]], [*lines[own[-1] + 1 :]]) if own else (None, [*lines])


def _code_line(file: str, number: int) -> CodeLine:
    path = Path(file)
    if path.is_relative_to(PACKAGE):
        return CodeLine(file=file, number=number, owner="hpotune")
    installed = [index for index, part in enumerate(path.parts) if part in _INSTALLED]
    if installed and len(path.parts) > installed[-1] + 1:
        library = path.parts[installed[-1] + 1].removesuffix(".py")
        return CodeLine(file=file, number=number, owner="library", library=library)
    if file.startswith("<") or path.is_relative_to(_STANDARD):
        return CodeLine(file=file, number=number, owner="standard")
    return CodeLine(file=file, number=number, owner="user")
