"""Files that a study names: made absolute, found to exist, their columns looked at. Reads the first row of a file, never more."""

from __future__ import annotations

import ast
import csv
import json
import os
import string
from collections.abc import Iterable
from pathlib import Path

from hpotune.errors import StudyFileError, nearest
from hpotune.study.config import DataConfig, PointConfig
from hpotune.study.load import Study
from hpotune.study.source import Value, Where

DATA_FILES = (".json", ".jsonl", ".csv", ".parquet")
PROMPT_COLUMNS = {"alpaca": ("instruction", "output"), "text": ("text",)}
_PLACES: tuple[Where, ...] = (
    ("data_root",), ("model", "path"), ("model", "tokenizer"), ("data", "path"), ("score", "include_path"), ("python",),
)  # fmt: skip


def absolute(study: Study, *, home: Path) -> dict[str, Value]:
    """The study's values with every local path made absolute, as the jobs will read them.

    Raises: StudyFileError for each path that must exist and does not.
    """
    values: dict[str, Value] = json.loads(json.dumps(study.template))
    mistakes: list[str] = []
    for where in _PLACES:
        parent = values if len(where) == 1 else values.get(str(where[0]))
        text = parent.get(str(where[-1])) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and isinstance(text, str):
            try:
                parent[str(where[-1])] = _absolute(where, text, home=home)
            except ValueError as error:
                mistakes.append(f"{study.source.place(where)}: {'.'.join(map(str, where))}={text!r} {error}")
    if mistakes:
        raise StudyFileError(*mistakes)
    return values


def _absolute(where: Where, text: str, *, home: Path) -> str:
    path, _, function = text.partition(":") if where == ("python",) else (text, "", "")
    full = Path(os.path.normpath(home / Path(path).expanduser()))
    if where == ("python",):
        return f"{_python_file(full, function)}:{function}"
    if full.exists():
        if not os.access(full, os.R_OK):
            raise ValueError("may not be read by you; change its mode or the path")
        return str(full)
    if where in (("data_root",), ("score", "include_path")) or _looks_local(text):
        raise ValueError(f"does not exist ({full}); paths are relative to the study file")
    if text.count("/") > 1 and not text.startswith(("package:", "s3://")):
        raise ValueError("is neither a file here nor a Hugging Face id (NAMESPACE/NAME)")
    return text


def _looks_local(text: str) -> bool:
    return (
        text.startswith((".", "/", "~"))
        or text.endswith((*DATA_FILES, ".gguf"))
        and not text.startswith("package:")
    )


def _python_file(file: Path, function: str) -> Path:
    if not function.isidentifier():
        raise ValueError("needs FILE.py:FUNCTION")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); paths are relative to the study file") from None
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"is not Python ({error})") from None
    names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    if function not in names and not any(
        isinstance(node, (ast.ImportFrom, ast.Assign)) for node in tree.body
    ):
        raise ValueError(f"holds no function {function!r}; {nearest(function, names)}")
    return file


def column_mistakes(point: PointConfig, *, data_root: str | None) -> Iterable[str]:
    """Columns that the prompt needs and a local data file does not have. Says nothing of data it cannot see from here."""
    data = point.data
    file = _first_file(data, data_root) if data else None
    have = _columns(file) if file else None
    if data is None or have is None:
        return
    if data.prompt == "chat" and not (
        {"messages"} & have or {"instruction", "output"} <= have | set(data.columns)
    ):
        yield f"data.prompt=chat needs the column messages, or instruction and output; {file} has {', '.join(sorted(have))}"
    needed = {data.columns.get(name, name) for name in _needed(point)}
    for name in sorted(needed - have):
        yield f"data: column {name!r} is not in {file}; {nearest(name, have)}; name others with data.columns: {{ours: theirs}}"


def _needed(point: PointConfig) -> set[str]:
    data = point.data
    assert data is not None, "called with data only"
    label = {"label"} if point.model and point.model.task == "sequence_classification" else set()
    if data.prompt == "chat":
        return label
    if data.prompt in PROMPT_COLUMNS:
        return {*PROMPT_COLUMNS[data.prompt], *label}
    try:
        return {name for text in (data.prompt, data.response or "") for name in template_names(text)} | label
    except ValueError:
        return label


def template_names(text: str) -> set[str]:
    """The {columns} of a template.

    Raises: ValueError for an unbalanced brace.
    """
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def _first_file(data: DataConfig, data_root: str | None) -> Path | None:
    """The file that holds the split, as far as names tell; None where the hub or a folder's card decides."""
    path = (
        Path(data_root or "", data.path)
        if data_root and Path(data_root, data.path).is_dir()
        else Path(data.path)
    )
    if path.is_file():
        return path
    split = data.split.partition("[")[0]
    inner = [p for p in sorted(path.rglob("*")) if p.suffix in DATA_FILES] if path.is_dir() else []
    inner = [p for p in inner if data.name is None or data.name in p.parts]
    return next((p for p in inner if p.name.startswith(split)), None)


def _columns(file: Path) -> set[str] | None:
    if file.suffix == ".parquet":
        return _parquet_columns(file)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            if file.suffix == ".csv":
                return set(next(csv.reader(lines), []))
            first = lines.readline() if file.suffix == ".jsonl" else lines.read()
        row = json.loads(first)
        row = row[0] if isinstance(row, list) else row
        return set(row)
    except (OSError, ValueError, IndexError, TypeError):
        raise StudyFileError(
            f"data.path={str(file)!r} is not {file.suffix[1:]} with one record a row; look at its first line"
        ) from None


def _parquet_columns(file: Path) -> set[str] | None:
    try:
        from pyarrow.parquet import read_schema
    except ImportError:  # a login node without the trial's libraries: the trial itself will tell
        return None
    return set(read_schema(file).names)
