"""Where a command's placeholders stand for bash: as words, or inside quotes. Parses a part of bash's grammar.

A value is filled in with quotes, which is right for a bare word only: inside quotes its own quotes end the others, and
in backquotes, here-documents, remarks and arithmetic bash would run or expand what stands in the value.
Source: https://www.gnu.org/software/bash/manual/bash.html, sections 3.1.2, 3.5 and 3.6.6.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field

_HERE = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]*)'|\"([^\"\n]*)\"|\\?([^\s;&|<>()'\"]+))")
_NAMES = {
    "'": "single quotes",
    '"': "double quotes",
    "$'": "$'...' quotes",
    "`": "backquotes",
    "$(": "$(...)",
    "${": "${...}",
    "((": "arithmetic",
    "$[": "arithmetic",
    "#": "a remark",
    "<<": "a here-document",
}
"""What is open around a character -> its name."""


@dataclass
class _Reader:
    """Follows a command character by character; `open` is what is open around the next one, innermost last."""

    open: list[str] = field(default_factory=list)
    text: str = ""
    """What was read, with a letter for each placeholder."""
    here: list[tuple[str, bool]] = field(default_factory=list)
    """Here-documents that begin at the next line: end word, and whether tabs before it are dropped."""
    line: str = ""
    """The current line of a here-document."""

    def read(self, literal: str) -> None:
        """Follow a piece of the command."""
        at = 0
        while at < len(literal):
            step = self._step(literal, at)
            self.text += literal[at : at + step]
            at += step

    def _step(self, text: str, at: int) -> int:
        """Follow one sign and return its length."""
        inner, sign = self.open[-1] if self.open else "", text[at]
        if inner == "<<":
            return self._here_document(sign)
        if inner == "'":
            return self._close(sign == "'")
        if inner == "#":
            if sign == "\n":
                self.open.pop()
                return self._new_line()
            return 1
        if sign == "\\":
            return min(2, len(text) - at)
        if inner == "$'":
            return self._close(sign == "'")
        if inner == '"' and sign not in '"$`':
            return 1
        if inner == "`" and sign == "`":
            return self._close(closes=True)
        return self._opened_or_closed(text, at, inner)

    def _opened_or_closed(self, text: str, at: int, inner: str) -> int:
        sign = text[at]
        if sign == inner == '"' or (sign, inner) in (("}", "${"), ("]", "$[")):
            return self._close(closes=True)
        if sign == ")" and inner in ("$(", "(", "(("):
            return self._close(closes=True, length=2 if inner == "((" and text[at : at + 2] == "))" else 1)
        for opening, kind in (
            ("$((", "(("),
            ("$(", "$("),
            ("${", "${"),
            ("$[", "$["),
            ("$'", "$'"),
            ("<(", "$("),
            (">(", "$("),
        ):
            if (
                text.startswith(opening, at)
                and not (inner == '"' and opening[0] != "$")
                and (inner, kind) != ('"', "$'")
            ):
                self.open.append(kind)
                return len(opening)
        if inner == '"':
            if sign == "`":
                self.open.append("`")
            return 1
        if text.startswith("((", at):
            self.open.append("((")
            return 2
        if sign in "'\"`(":
            self.open.append(sign)
        elif sign == "#" and (not self.text or self.text[-1] in " \t\n;&|()"):
            self.open.append("#")
        elif sign == "\n":
            return self._new_line()
        elif (
            sign == "<"
            and not text.startswith("<<<", at)
            and self._is_code()
            and (found := _HERE.match(text, at))
        ):
            self.here.append((found[2] or found[3] or found[4] or "", bool(found[1])))
            return len(found[0])
        elif text.startswith("<<<", at):
            return 3
        return 1

    def _is_code(self) -> bool:
        """Whether bash reads commands here, where `<<` begins a here-document; in arithmetic it shifts bits."""
        inner = next((kind for kind in reversed(self.open) if kind != "("), "")
        return inner not in ("((", "$[", "${")

    def _close(self, closes: bool, length: int = 1) -> int:
        if closes:
            self.open.pop()
        return length

    def _new_line(self) -> int:
        if self.here:
            self.open.append("<<")
            self.line = ""
        return 1

    def _here_document(self, sign: str) -> int:
        end, without_tabs = self.here[0]
        if sign != "\n":
            self.line += sign
        elif (self.line.lstrip("\t") if without_tabs else self.line) == end:
            self.here.pop(0)
            self.open.pop()
            return self._new_line()
        else:
            self.line = ""
        return 1


def quote_mistakes(command: str) -> Iterator[tuple[str, str]]:
    """The name of each placeholder that is no bare word, and where it stands; an empty name for quotes left open.

    Raises: ValueError for a template that string.Formatter cannot read.
    """
    reader, found = _Reader(), False
    for literal, name, _, _ in string.Formatter().parse(command):
        reader.read(literal)
        if not name:  # none, or an empty one, which is refused elsewhere
            continue
        where = _location(reader)
        if where:
            yield name, where
        found = found or bool(where)
        reader.text += "x"
    left = next((kind for kind in reader.open if kind in ("'", '"', "$'", "`")), None)
    if left is not None and not found:
        yield "", f"opens {_NAMES[left]} that nothing closes"


def _location(reader: _Reader) -> str:
    """Where the next placeholder would stand; empty for a bare word."""
    around = [kind for kind in reader.open if kind != "("]
    if around:
        return f"inside {_NAMES[around[0]]}"
    if _odd_backslashes(reader.text):
        return "behind a backslash"
    if reader.text.endswith("$"):
        return "behind a $"
    if re.search(r"\w\[$", reader.text):
        return "inside an index"
    return "as the end of a here-document" if re.search(r"(^|[^<])<<-?$", reader.text) else ""


def _odd_backslashes(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def standing_alone(command: str) -> set[str]:
    """The placeholders that are a whole word of the command: an empty value is then an empty argument.

    Raises: ValueError for a template that string.Formatter cannot read.
    """
    text = list[str]()
    names = list[str]()
    for literal, name, _, _ in string.Formatter().parse(command):
        text.append(literal)
        if name is not None:
            names.append(name)
            text.append("\0")
    words = "".join(text).split()
    alone = iter(names)
    found = set()
    for word in words:
        within = [next(alone) for _ in range(word.count("\0"))]
        found |= set(within) if word == "\0" else set()
    return found
