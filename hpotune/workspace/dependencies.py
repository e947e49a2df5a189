"""Which files a study's program is made of: the programs it names, and the Python modules beside them that they import.

Read from the source; nothing is imported, nothing is run. Installed packages are no part of it.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hpotune.config.yaml_source import Value

PROGRAMS = (".py", ".sh")
TASK_FILES = (".yaml", ".yml", ".py", "")
"""Endings of what lm-eval reads in a folder of tasks; its templates have none."""
_WORD = re.compile(r"[^\s'\"`=;|&()<>]+")
_CALLED = re.compile(r"[\w./-]*\w\.(?:py|sh)\b")
_MODULE = re.compile(r"(?:^|\s)-m[ ]+([A-Za-z_][\w.]*)")
_MOVES = re.compile(r"(?:^|[\s;&|(])(?:cd|pushd)\s")


def words(command: str, *, home: Path) -> Iterator[tuple[int, int, Path]]:
    """Where a command names programs that lie under `home`: start, end, and the file; not what it writes to.

    Relative words of a command that changes its folder are left out: they may mean another file.
    """
    moves = _MOVES.search(command) is not None
    for found in _WORD.finditer(command):
        word = found[0]
        if not word.endswith(PROGRAMS) or set(word) & set("{}$*?~"):
            continue
        file = Path(os.path.normpath(home / word))
        written = command[: found.start()].rstrip().endswith(">")
        if (
            not written
            and (Path(word).is_absolute() or not moves)
            and file.is_relative_to(home)
            and file.is_file()
        ):
            yield found.start(), found.end(), file


def modules(command: str, *, home: Path) -> set[Path]:
    """Files of the modules under `home` that a command runs by `-m NAME`."""
    names = [] if _MOVES.search(command) else _MODULE.findall(command)
    return {file for name in names for file in _imported(name.split("."), home)}


def programs(values: Mapping[str, Value], *, home: Path) -> set[Path]:
    """The files that the study file itself names: the function's, or the command's."""
    python, command = values.get("python"), values.get("command")
    if isinstance(python, str):
        return {Path(python.rpartition(":")[0])}
    if isinstance(command, str):
        return {file for _, _, file in words(command, home=home)} | modules(command, home=home)
    return set()


def task_folders(values: Mapping[str, Value]) -> list[Path]:
    """Folders of lm-eval tasks that the study names; several where they are a choice."""
    score = values.get("score")
    path = score.get("include_path") if isinstance(score, dict) else None
    options = path.get("choice") if isinstance(path, dict) else [path]
    return (
        [Path(option) for option in options if isinstance(option, str)] if isinstance(options, list) else []
    )


def reached(entries: Iterable[Path], *, home: Path) -> Iterator[Path]:
    """The files and every module they import from their own folder or from `home`, each once, as they are found.

    Of a package all modules, so that those it looks up by name at run time are there too.
    """
    waiting = sorted(entries)
    folders = list(dict.fromkeys([*(file.parent for file in waiting), home]))
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        yield file
        waiting += sorted(set(_beside(file, folders)) - seen)


def tree(folder: Path, endings: Sequence[str]) -> Iterator[Path]:
    """Files below a folder by their endings; hidden folders and studies' folders are passed over."""
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith((".", "__pycache__")) and not Path(place, name, "resolved.yaml").exists()
        )
        yield from (Path(place, name) for name in sorted(files) if Path(name).suffix in endings)


def _beside(file: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Files that one file leads to."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".sh":
        yield from _called(text, [file.parent, *folders])
        return
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):  # Python itself will say so
        return
    for level, name in _names(nodes):
        parts = [part for part in name.split(".") if part]
        places = [file.parents[level - 1]] if 0 < level <= len(file.parents) else folders
        for place in places:
            yield from _imported(parts, place)


def _called(script: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Programs that a shell script may call: `train.py`, `$(dirname "$0")/train.py`, `$HPOTUNE_CODE/src/train.py`."""
    for word in _CALLED.findall(script):
        parts = [part for part in word.split("/") if part not in ("", ".")]
        ends = [Path(*parts[index:]) for index in range(len(parts))]
        yield from (folder / end for folder in folders for end in ends if (folder / end).is_file())


def _names(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """What a module imports: the number of dots before it, and its dotted name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
            yield from ((node.level, f"{node.module or ''}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield 0, node.args[0].value


def _imported(parts: Sequence[str], folder: Path) -> Iterator[Path]:
    """Files under a folder that the import of a dotted name reads."""
    for part in parts:
        if (folder / part / "__init__.py").is_file():
            yield from tree(folder / part, (".py",))
            return
        if (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
            return
        folder = folder / part
        if not folder.is_dir():
            return
    if parts and (folder / "__main__.py").is_file():
        yield folder / "__main__.py"
