"""A study given as a Python mapping: the study file that it stands for, written where a user can read and edit it.

A file is written anew only if nobody has edited it since and its study is still the same; otherwise it is refused.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from os.path import relpath
from pathlib import Path

from hpotune.config.paths import resolve
from hpotune.config.schema.study_config import NAME
from hpotune.config.yaml_source import Value, parse_source, read_source, write_yaml
from hpotune.errors import StudyFileError
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder, first_difference
from hpotune.workspace.stored_preset import with_stored_preset

_HEADER = "# Written by hpotune.Study.from_dict ({hash}); once edited by hand, from_dict leaves it alone.\n"
_OWN = re.compile(r"# Written by hpotune\.Study\.from_dict \(([0-9a-f]{16})\).*\n")


def write_study_file(values: Mapping[str, object], folder: Path) -> Path:
    """Write NAME.yaml into the folder, or find the same one there; returns its path.

    Raises: StudyFileError for values that a study file cannot hold, and where another study file is there.
    """
    plain = plain_values(values, folder)
    name = plain.get("name")
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise StudyFileError(f"name={name!r}: needs a text of letters, digits, dots, - and _, at most 64")
    file = folder / f"{name}.yaml"
    text = write_yaml(plain)
    read = parse_source(text, path=file)  # what a file cannot hold is an error here
    if file.exists():
        if read_source(file).values == read.values:
            return file
        _check_replaceable(file, read.values)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, _HEADER.format(hash=_hash(text)) + text)
    return file


def plain_values(values: Mapping[str, object], folder: Path) -> dict[str, Value]:
    """The mapping with the types of a study file. `folder`: relative to which functions and paths are written.

    Raises: StudyFileError naming the first value that a study file cannot hold.
    """
    found = _plain(values, key="", folder=folder)
    assert isinstance(found, dict), "a mapping gives a dict"
    return found


def budget_words(**limits: object) -> dict[str, str]:
    """What `extend` gets, as the verb's words: numbers and times are added, texts stay, None is left out.

    Raises: StudyFileError where nothing is left.
    """
    words = {key: _budget_word(value) for key, value in limits.items() if value is not None}
    if not words:
        raise StudyFileError("extend needs a limit to raise, e.g. trials=20")
    return words


def _budget_word(value: object) -> str:
    if isinstance(value, timedelta):
        return f"+{_clock(value)}"
    if isinstance(value, date):  # a datetime too
        return str(value)
    return f"{value:+}" if isinstance(value, (int, float)) else str(value)


def _plain(value: object, *, key: str, folder: Path) -> Value:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {
            str(name): _plain(inner, key=f"{key}.{name}".lstrip("."), folder=folder)
            for name, inner in value.items()
        }
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (date, datetime)):
        return value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, timedelta):
        return _clock(value)
    if inspect.isfunction(value):
        return _function(value, key=key, folder=folder)
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (bytes, bytearray)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [_plain(one, key=f"{key}.{index}", folder=folder) for index, one in enumerate(items)]
    item = getattr(value, "item", None)  # a number of numpy or torch
    if callable(item) and getattr(value, "ndim", 0) == 0:
        return _plain(item(), key=key, folder=folder)
    raise StudyFileError(
        f"{key}: {type(value).__name__} cannot be written into a study file; needs a mapping, list, text, number, "
        "path, function or None"
    )


def _clock(value: timedelta) -> str:
    """`D-HH:MM:SS`, as Slurm writes it."""
    minutes, seconds = divmod(int(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}" if days else f"{hours:02}:{minutes:02}:{seconds:02}"


def _function(function: object, *, key: str, folder: Path) -> str:
    """`FILE.py:NAME` of a function, relative to the folder where it is inside.

    Raises: StudyFileError for a function that no other process can import.
    """
    assert inspect.isfunction(function), "the caller looked"
    try:
        found = inspect.getsourcefile(function)
    except TypeError:
        found = None
    if found is None or not Path(found).is_file():
        raise StudyFileError(
            f"{key}: the function {function.__name__} is defined in no file (a notebook's cell, or an interpreter); "
            "write it into a .py file, as `%%writefile own.py` does, and give 'own.py:NAME'"
        )
    if "." in function.__qualname__ or not function.__name__.isidentifier():
        raise StudyFileError(
            f"{key}: {function.__qualname__} is defined inside another function or class, so no trial can import it; "
            "define it at the top level of its file"
        )
    file, here = Path(found).resolve(), folder.resolve()
    inside = file.is_relative_to(here)
    return f"{relpath(file, here) if inside else file}:{function.__name__}"


def _check_replaceable(file: Path, values: Mapping[str, Value]) -> None:
    """Raises: StudyFileError where the file was edited by hand, or its study would become another one."""
    text = file.read_text(encoding="utf-8", errors="replace")
    header = _OWN.match(text)
    before = read_source(file).values
    if header is None or header[1] != _hash(text[header.end() :]):
        differs = next(key for key in (*before, *values) if before.get(key) != values.get(key))
        raise StudyFileError(
            f"{file}: holds another study file (its `{differs}` differs), which is not overwritten; load it with "
            "Study.load, rename the study (name:), or give another folder="
        )
    study = StudyFolder(path=file.with_suffix(""))
    if not study.resolved_file.is_file():
        return
    written = parse_source(write_yaml(values), path=file)
    found = resolve(written, home=file.parent.resolve())[0]
    now = with_stored_preset(found, study, written=written.values).values
    now.setdefault("data_root", study.read_resolved().values.get("data_root"))
    key = first_difference(study, {name: one for name, one in now.items() if one is not None})
    if key:
        raise StudyFileError(
            f"{file}: is the study of {study.path}, whose `{key}` differs; trials of two studies cannot be compared: "
            "rename the study (name:), give another folder=, or remove both"
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
