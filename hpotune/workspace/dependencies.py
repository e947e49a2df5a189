"""The files that a study's program consists of: the programs that it names, and modules beside them that they import.

Found by reading the source: nothing is imported or run. Installed packages are left out. Folders that are closed to
this user hold nothing (os.path; pathlib raises an error for them before Python 3.12).
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
"""Suffixes of the files that lm-eval reads in a folder of tasks; its templates have none."""
_WORD = re.compile(r"[^\s'\"`=;|&()<>]+")
_CALLED = re.compile(r"[\w./-]*\w\.(?:py|sh)\b")
_MODULE = re.compile(r"(?:^|\s)-m[ ]+([A-Za-z_][\w.]*)")
_CHANGES_FOLDER = re.compile(r"(?:^|[\s;&|(])(?:cd|pushd)\s")


def program_words(command: str, *, home: Path) -> Iterator[tuple[int, int, Path]]:
    """Where a command names programs under `home`: start and end in the text, and the file.

    Targets of `>` are left out, and so are relative words of a command that changes its folder: they may mean other
    files.
    """
    changes_folder = _CHANGES_FOLDER.search(command) is not None
    for found in _WORD.finditer(command):
        word = found[0]
        if not word.endswith(PROGRAMS) or set(word) & set("{}$*?~"):
            continue
        file = Path(os.path.normpath(home / word))
        is_output = command[: found.start()].rstrip().endswith(">")
        if (
            not is_output
            and (Path(word).is_absolute() or not changes_folder)
            and file.is_relative_to(home)
            and file.is_file()
        ):
            yield found.start(), found.end(), file


def command_modules(command: str, *, home: Path) -> set[Path]:
    """The files of the modules under `home` that a command runs by `-m NAME`."""
    names = [] if _CHANGES_FOLDER.search(command) else _MODULE.findall(command)
    return {file for name in names for file in _imported_files(name.split("."), home)}


def study_programs(values: Mapping[str, Value], *, home: Path) -> set[Path]:
    """The files that the study file names: that of the function, or those in the command."""
    python, command = values.get("python"), values.get("command")
    if isinstance(python, str):
        return {Path(python.rpartition(":")[0])}
    if isinstance(command, str):
        return {file for _, _, file in program_words(command, home=home)} | command_modules(
            command, home=home
        )
    return set()


def task_folders(values: Mapping[str, Value]) -> list[Path]:
    """The folders of lm-eval tasks that the study names; several where `include_path` is a choice."""
    score = values.get("score")
    path = score.get("include_path") if isinstance(score, dict) else None
    options = path.get("choice") if isinstance(path, dict) else [path]
    return (
        [Path(option) for option in options if isinstance(option, str)] if isinstance(options, list) else []
    )


def with_imports(entries: Iterable[Path], *, home: Path) -> Iterator[Path]:
    """The files and every module that they import from their own folder or from `home`, each once.

    Of a package all modules, so that those that it imports by name at run time are included.
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
        waiting += sorted(set(_files_used_by(file, folders)) - seen)


def files_below(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files below a folder with these suffixes, without hidden folders and study folders."""
    for path, inner, files in os.walk(folder):
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith((".", "__pycache__"))
            and not os.path.exists(Path(path, name, "resolved.yaml"))
        )
        yield from (Path(path, name) for name in sorted(files) if Path(name).suffix in suffixes)


def _files_used_by(file: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """The files that one file imports or calls."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".sh":
        yield from _called_programs(text, [file.parent, *folders])
        return
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):  # Python reports it when the trial runs
        return
    for level, name in _import_names(nodes):
        parts = [part for part in name.split(".") if part]
        roots = [file.parents[level - 1]] if 0 < level <= len(file.parents) else folders
        for root in roots:
            yield from _imported_files(parts, root)


def _called_programs(script: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Programs that a shell script may call: `train.py`, `$(dirname "$0")/train.py`, `$HPOTUNE_CODE/src/train.py`."""
    for word in _CALLED.findall(script):
        parts = [part for part in word.split("/") if part not in ("", ".")]
        tails = [Path(*parts[index:]) for index in range(len(parts))]
        yield from (folder / tail for folder in folders for tail in tails if os.path.isfile(folder / tail))


def _import_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """The imports of a module: the number of leading dots, and the dotted name."""
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


def _imported_files(parts: Sequence[str], folder: Path) -> Iterator[Path]:
    """The files under a folder that the import of a dotted name reads."""
    for part in parts:
        if os.path.isfile(folder / part / "__init__.py"):
            yield from files_below(folder / part, (".py",))
            return
        if os.path.isfile(folder / f"{part}.py"):
            yield folder / f"{part}.py"
            return
        folder = folder / part
        if not os.path.isdir(folder):
            return
    if parts and os.path.isfile(folder / "__main__.py"):
        yield folder / "__main__.py"
