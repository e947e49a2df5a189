"""Index of the lm-eval tasks, groups and tags, and whether two of them share items; lm_eval is not imported.

lm-eval's own index parses 14,000 files in 5 to 12 s and imports torch. This index searches the files for five keys
at the start of a line, parses only files in which such a key holds a list (2 s), and caches the result (then 0.05 s).
Source: `lm_eval.tasks._index` and `_factory` (0.4.13): of two equal names in one folder the first is used, a later
folder overrides an earlier one, a `tag` collects tasks, and a `group` lists its members.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from hpotune.config.ownership import check_cache
from hpotune.config.text_files import read_file
from hpotune.config.yaml_source import Value

KEY = re.compile(r"""^["']?(task|group|tag|include|class)["']?[ \t]*:[ \t]*(.*?)[ \t]*$""", re.MULTILINE)
PLAIN = re.compile(r"""^(?:"([^"\\]*)"|'([^']*)'|([A-Za-z0-9_./+@-]+))(?:\s+#.*)?$""")
FLOW = re.compile(r"\A(?:\s*#.*\n|---.*\n|\s)*\{")
"""The start of a file that is one mapping in braces, as JSON is."""
IGNORED = {"__pycache__", ".ipynb_checkpoints"}


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """The folder of cached files: $HPOTUNE_CACHE, or ~/.cache/hpotune."""
    return Path(env.get("HPOTUNE_CACHE") or "~/.cache/hpotune").expanduser()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A task, group or tag of the index."""

    folder: str | None
    """Folder of its file; None for a tag, which has no file."""
    members: list[Value] | None
    """Names and inline mappings of a group or tag; None for a single task."""


Row = tuple[str | None, list[Value] | None]
"""Folder and members of an Entry, as the cache of the index holds them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskIndex:
    """All tasks, groups and tags by name."""

    entries: Mapping[str, Entry]

    def exists(self, name: str) -> bool:
        """Whether lm-eval knows `name`."""
        return name in self.entries

    def nearest(self, name: str) -> list[str]:
        """Up to three similar names."""
        return difflib.get_close_matches(name, self.entries, n=3, cutoff=0.6)

    def leaves(self, name: str) -> frozenset[str]:
        """The single tasks of a task, group or tag, including those of nested groups.

        Raises: KeyError for a name that is not in the index.
        """
        return frozenset(leaf for leaf, _ in self._walk(name))

    def folders(self, names: Iterable[str]) -> list[Path]:
        """The smallest sorted list of folders that contain the files of `names` and of all their members.

        Raises: KeyError for a name that is not in the index.
        """
        found = sorted({Path(folder) for name in names for _, folder in self._walk(name) if folder})
        return [folder for folder in found if not any(other in folder.parents for other in found)]

    def _walk(self, name: str) -> Iterator[tuple[str, str | None]]:
        """(task, folder) of every single task; the folder of a group is given with each of its tasks."""
        entry = self.entries[name]
        if entry.members is None:
            yield name, entry.folder
            return
        for leaf, folder in self._members(name, entry.members):
            yield leaf, folder
            yield leaf, entry.folder

    def _members(self, group: str, members: list[Value]) -> Iterator[tuple[str, str | None]]:
        for item in members:
            inline = item if isinstance(item, dict) else {"task": item}
            child = inline.get("group") or inline.get("task")
            if not isinstance(child, str):
                continue  # malformed; lm-eval reports it when it builds the task
            if child in self.entries:
                yield from self._walk(child)
            elif "group" in inline:
                inner = inline.get("task")
                yield from self._members(f"{group}::{child}", inner if isinstance(inner, list) else [])
            else:
                yield f"{group}::{child}", None


def task_index(include_path: str | None = None, *, cache: Path | None = None) -> TaskIndex | None:
    """All tasks of the installed lm-eval and of `include_path`; None if lm-eval is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(next(iter(spec.submodule_search_locations))) / "tasks"
    own = _scan(Path(include_path).expanduser()) if include_path is not None else {}
    return TaskIndex(entries=_Entries(own=own, stock=_stock(root, cache or cache_folder())))


class _Entries(Mapping[str, Entry]):
    """The user's own entries before those of lm-eval, each of which is made when it is asked for.

    All 14,000 at once would take a twentieth of a second.
    """

    def __init__(self, *, own: Mapping[str, Entry], stock: Mapping[str, Row]) -> None:
        self._own = own
        self._stock = stock

    def __getitem__(self, name: str) -> Entry:
        if name in self._own:
            return self._own[name]
        folder, members = self._stock[name]
        return Entry(folder=folder, members=members)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._stock, **self._own})

    def __len__(self) -> int:
        return len({**self._stock, **self._own})


def unreadable_files(include_path: str | None) -> list[str]:
    """`FILE: reason` of each own task file that is no YAML; lm-eval passes over it without a word."""
    if include_path is None:
        return []
    found = []
    for file in sorted(Path(include_path).expanduser().rglob("*.yaml")):
        try:
            yaml.load(_read(str(file)), Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
            found.append(f"{file}: {line}{error.problem}")
        except (OSError, RecursionError, yaml.YAMLError) as error:
            found.append(f"{file}: {getattr(error, 'strerror', None) or error}")
    return found


def overlap(sealed: Iterable[str], open: Iterable[str], *, index: TaskIndex | None) -> list[str]:
    """An error for each sealed task that shares items with an objective's task; without an index: equal names only."""

    def leaves(name: str) -> frozenset[str]:
        return index.leaves(name) if index is not None and index.exists(name) else frozenset({name})

    errors = []
    opened = list(open)
    for test in sealed:
        for task in opened:
            shared = sorted(leaves(test) & leaves(task))
            if shared:
                what = "is the same task" if test == task else f"contains {_some(shared)} of it"
                errors.append(f"score.test: {test!r} is sealed, but {task!r} in score.objective {what}")
    return errors


def _some(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{len(names)} tasks ({', '.join(names[:3])}{', …' if names[3:] else ''})"


def _stock(root: Path, cache: Path) -> Mapping[str, Row]:
    """lm-eval's own tasks, from the cache if it was written for the same installation."""
    stamp = f"{root}:{importlib.metadata.version('lm_eval')}:{root.stat().st_mtime_ns}"
    kept = cache / f"tasks-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.json"
    check_cache(cache, kept)
    try:
        rows: dict[str, Row] = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        rows = {name: (entry.folder, entry.members) for name, entry in _scan(root).items()}
        _keep(kept, {name: list(row) for name, row in rows.items()})
    return rows


def _keep(path: Path, rows: Mapping[str, Value]) -> None:
    """Write the cache if possible; without it each start takes two seconds longer."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(rows), encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        return


def _scan(root: Path) -> dict[str, Entry]:
    """The entries of one folder's task files; of two equal names the first is used, as in lm-eval."""
    files = sorted(str(path) for path in root.rglob("*.yaml") if IGNORED.isdisjoint(path.parts))
    with ThreadPoolExecutor(16) as pool:  # 14,000 sequential reads are slow on a parallel file system
        texts = dict(zip(files, pool.map(_read_or_nothing, files), strict=True))
    entries: dict[str, Entry] = {}
    for path in files:
        try:
            _register(_keys(path, texts), os.path.dirname(path), entries)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue  # lm-eval skips such files too
    return entries


def _read_or_nothing(path: str) -> str:
    """The text of a file; nothing for a FIFO, a link to nothing, or another file that cannot be read."""
    try:
        return _read(path)
    except OSError:
        return ""


def _read(path: str) -> str:
    return read_file(Path(path)).decode(errors="replace")


def _register(keys: Mapping[str, Value], folder: str, entries: dict[str, Entry]) -> None:
    if "group" in keys and "class" not in keys:
        group, members = keys["group"], keys.get("task")
        if isinstance(group, str):
            entry = Entry(folder=folder, members=members if isinstance(members, list) else [])
            entries.setdefault(group, entry)
        return
    name = keys.get("task")
    if not isinstance(name, str) or name in entries:
        return
    entries[name] = Entry(folder=folder, members=None)
    tags = keys.get("tag") or []
    for tag in tags if isinstance(tags, list) else [tags]:
        if not isinstance(tag, str):
            continue
        entry = entries.setdefault(tag, Entry(folder=None, members=[]))
        if entry.folder is None and entry.members is not None:
            entry.members.append(name)


def _keys(path: str, texts: dict[str, str]) -> dict[str, Value]:
    """The five keys of one file; they override the keys of the files that it includes."""
    text = texts.get(path)
    if text is None:
        text = texts[path] = _read(path)
    own: dict[str, Value]
    plain = {key: PLAIN.match(value) for key, value in KEY.findall(text)}
    if None in plain.values() or FLOW.match(
        text
    ):  # a list, a block, an escape or braces: rare, and needs a parser
        own = yaml.load(text, Loader=_Loader)
    else:
        own = {key: found[1] or found[2] or found[3] for key, found in plain.items() if found}
    includes = own.pop("include", None) or []
    merged: dict[str, Value] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        if isinstance(include, str):
            merged.update(_keys(os.path.normpath(os.path.join(os.path.dirname(path), include)), texts))
    return {**merged, **own}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader that reads `!function` as null."""


_Loader.add_constructor("!function", lambda loader, node: None)
