"""Text from outside in the forms of what shows it: console, Markdown, HTML, CSV.

A user's function, a library, Slurm, a file's name or another person's study can hold what a reader would act on: a
terminal obeys ESC, a browser and Markdown obey markup, a spreadsheet computes a cell that begins with `=`, and
characters that reverse the writing or have no width make a line look like another one. In the first three forms
such a character is shown as `<U+001B>`; a cell of CSV holds it as a JSON string, so that it can be read back.
Sources: Unicode Standard, chapter 4.5 (general categories); https://owasp.org/www-community/attacks/CSV_Injection;
https://trojansource.codes.
"""

from __future__ import annotations

import html
import json
import re

_LINES = "\n\t"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e007f]"
)
"""Characters of the general categories Cc (without tab and line break), Cf, Cs, Zl, Zp, and some that are no
characters. A test compares it with unicodedata."""
_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")
_MARKUP = re.compile(r"([\\`*\[\]<>|!#~&$]|(?<![^\W_])_|_(?![^\W_]))")
"""What Markdown reads; an underscore only where it is not inside a word."""
_FORMULA = re.compile("(?:^|;)[\\s\"']*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
"""The start of a cell that a spreadsheet computes, also where it takes `;` for the end of a cell."""


def console_text(text: str, *, one_line: bool = False) -> str:
    """Text for a terminal or a log: hidden characters as `<U+001B>`, with `one_line` tabs and line breaks too."""
    text = _HIDDEN.sub(_shown, text.replace("\r\n", "\n"))
    return re.sub(f"[{_LINES}]", _shown, text) if one_line else text


def _shown(found: re.Match[str]) -> str:
    return f"<U+{ord(found[0]):04X}>"


def has_hidden(text: str) -> bool:
    """Whether the text has a character that is not shown, or acts on what shows it."""
    return _HIDDEN.search(text) is not None


def without_colours(text: str) -> str:
    """Output of a program without the sequences that colour it or move the cursor."""
    return _COLOUR.sub("", text)


def markdown_text(text: str) -> str:
    """Text in one line that no Markdown reader takes for markup; fit for a cell of a table."""
    return _MARKUP.sub(r"\\\1", console_text(" ".join(text.split())))


def html_text(text: str) -> str:
    """Text for the content or an attribute of an HTML element."""
    return html.escape(console_text(text))


def csv_text(text: str) -> str:
    """A cell of a CSV file: the text, or a JSON string if a reader would act on it; `read_csv_text` is the inverse.

    Numbers do not come here: -1.5 stays a number.
    """
    plain = not (
        _HIDDEN.search(text) or _FORMULA.search(text) or text.startswith('"') or set(text) & set(_LINES)
    )
    return text if plain else csv_json(text)


def csv_json(value: object) -> str:
    """A value as JSON for a cell of a CSV file. JSON begins with none of `=+@`, and with `-` only in numbers."""
    return json.dumps(value).replace(";", "\\u003b")


def read_csv_text(cell: str) -> str:
    """The text of a cell that `csv_text` wrote; another cell as it is."""
    if not cell.startswith('"'):
        return cell
    try:
        found = json.loads(cell)
    except ValueError:
        return cell
    return found if isinstance(found, str) else cell
