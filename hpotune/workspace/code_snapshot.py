"""A study's code as its jobs run it: copied at submit, named by its content; an edit reaches later submissions only.

code/newest             the hash of the snapshot taken last
code/<hash>/snapshot.json
code/<hash>/0/…         the study's home: the program and what it imports are copies, everything else there is a link,
                        so that data is found beside the program as before
code/<hash>/1/…         the same of a program elsewhere, or of a folder of lm-eval tasks
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.yaml_source import Value
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.trial import TrialSpec
from hpotune.workspace.dependencies import TASK_FILES, modules, programs, reached, task_folders, tree, words
from hpotune.workspace.folder import StudyFolder, write_atomic

MOST_FILES = 1000
MOST_BYTES = 10_000_000
"""What a snapshot holds at most: it is a study's own code, not its data and not its libraries."""
_SAFE = re.compile(r"[\w@%+=:,./-]+", re.ASCII)

Files = dict[Path, bytes]
"""Absolute path -> content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """One snapshot."""

    hash: str
    path: Path
    roots: Mapping[str, str]
    """Absolute folder -> its mirror under `path`; the study's home first."""
    files: Mapping[str, str]
    """Absolute path -> a hash of its content."""

    @property
    def home(self) -> Path:
        """Where relative words of a command start."""
        return Path(next(iter(self.roots)))

    def of(self, path: Path) -> Path:
        """Where a file or folder lies in the snapshot; itself where it is no part of it."""
        for root, mirror in sorted(self.roots.items(), key=lambda pair: -len(pair[0])):
            inside = path.is_relative_to(root) and self.path / mirror / path.relative_to(root)
            if inside and not inside.is_symlink() and inside.exists():
                return inside
        return path

    def applied(self, spec: TrialSpec) -> TrialSpec:
        """The trial with its program taken from the snapshot; it still runs in the study's home."""
        score = spec.point.score
        if score.include_path is not None:
            score = score.model_copy(update={"include_path": str(self.of(Path(score.include_path)))})
        changed: dict[str, object] = {
            "code": self.hash,
            "point": spec.point.model_copy(update={"score": score}),
        }
        if spec.python is not None:
            file, _, function = spec.python.rpartition(":")
            changed["python"] = f"{self.of(Path(file))}:{function}"
        if spec.command is not None:
            changed["command"] = self._command(spec.command)
        return spec.model_copy(update=changed)

    def _command(self, command: str) -> str:
        """The command with its programs in the snapshot; $HPOTUNE_CODE is the mirror of its home."""
        text, mirror = command, self.of(self.home)
        for start, end, file in reversed(list(words(command, home=self.home))):
            text = text[:start] + str(self.of(file)) + text[end:]
        first = f"export HPOTUNE_CODE={mirror}"
        if modules(command, home=self.home):  # else `-m` takes the module from the folder it runs in
            first += f" PYTHONSAFEPATH=1 PYTHONPATH={mirror}${{{{PYTHONPATH:+:$PYTHONPATH}}}}"
        return f"{first}; {text}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What taking a snapshot came to."""

    code: Code | None
    """None: the study has no program of its own."""
    notes: tuple[str, ...] = ()
    """What the user should know: what changed, what is not frozen."""


def take(folder: StudyFolder, values: Mapping[str, Value], *, home: Path) -> Taken:
    """Copies the study's code as it is now, unless it lies there already; `values` with absolute paths.

    Raises: StudyFileError where it is too large or cannot be read, HpotuneError where it cannot be written.
    """
    before = _newest(folder)
    files, notes = _gathered(values, home=home, folder=folder)
    if not files:
        return Taken(code=None, notes=tuple(notes))
    code = _named(folder, files, task_folders(values), home=home)
    try:
        _write(code, files, folder=folder)
        if before is None or before.hash != code.hash:
            write_atomic(folder.path / "code" / "newest", code.hash + "\n")
    except OSError as error:
        raise HpotuneError(
            f"{folder.path / 'code'}: the snapshot of the study's code cannot be written ({error.strerror}); "
            "free space, or choose another folder with --folder"
        ) from None
    if before and before.hash != code.hash and any(folder.path.glob("trials/*")):
        notes.insert(0, _changed(before, code))
    return Taken(code=code, notes=tuple(notes))


def code_of(folder: StudyFolder, name: str | None = None) -> Code | None:
    """The snapshot of that hash, or the newest; None where the study has none.

    Raises: StudyFileError where one that is named is not there.
    """
    if name is None:
        return _newest(folder)
    found = _read(folder, name)
    if found is None:
        held = sorted(path.parent.name for path in folder.path.glob("code/*/snapshot.json"))
        raise StudyFileError(
            f"--code {name}: {folder.path / 'code'} holds no such snapshot; it holds {', '.join(held) or 'none'}"
        )
    return found


def _newest(folder: StudyFolder) -> Code | None:
    try:
        name = (folder.path / "code" / "newest").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return _read(folder, name)


def _read(folder: StudyFolder, name: str) -> Code | None:
    path = folder.path / "code" / name
    try:
        told = json.loads((path / "snapshot.json").read_text(encoding="utf-8"))
        return Code(hash=name, path=path, roots=told["roots"], files=told["files"])
    except (OSError, ValueError, KeyError):
        return None


def _gathered(values: Mapping[str, Value], *, home: Path, folder: StudyFolder) -> tuple[Files, list[str]]:
    """The files of the study's code, and what of it is not frozen."""
    notes = []
    command = values.get("command")
    files = _contents(reached(programs(values, home=home), home=home))
    if files is None:
        raise StudyFileError(
            f"the study's code and what it imports from {home} is too large for a snapshot (more than {MOST_FILES} "
            f"files or {MOST_BYTES // 10**6} MB); install what is a library (pip install -e), or move the study file"
        )
    if isinstance(command, str) and not files and re.search(r"\b(cd|pushd)\b", command):
        notes.append(
            "the command changes its folder (cd), so its programs are not frozen: each trial runs them as they are then"
        )
    if isinstance(command, str) and any(not _SAFE.fullmatch(f"{folder.path}{file}") for file in files):
        notes.append(
            f"{folder.path}: a shell would misread this path, so the command's programs are not frozen: each trial "
            "runs them as they are then; a name without spaces and quotes helps"
        )
        files = {}
    for tasks in task_folders(values):
        found = _contents(tree(tasks, TASK_FILES))
        if found is None:
            notes.append(f"{tasks}: is too large to be frozen; trials read its tasks as they are then")
        files |= found or {}
    return files, notes


def _contents(paths: Iterable[Path]) -> Files | None:
    """What stands in the files; None where it is more than a snapshot holds.

    Raises: StudyFileError where one cannot be read.
    """
    files: Files = {}
    size = 0
    for path in paths:
        try:
            size += path.stat().st_size
            if size > MOST_BYTES or len(files) >= MOST_FILES:
                return None
            files[path] = path.read_bytes()
        except OSError as error:
            raise StudyFileError(
                f"{path}: is part of the study's code and cannot be read ({error.strerror}); mend that, or its import"
            ) from None
    return files


def _named(folder: StudyFolder, files: Files, folders: Sequence[Path], *, home: Path) -> Code:
    """The snapshot that the files will be: roots are its home and each folder elsewhere, of tasks or a program."""
    roots = [home]
    for root in [*folders, *(file.parent for file in sorted(files))]:
        if any(file.is_relative_to(root) for file in files) and not any(map(root.is_relative_to, roots)):
            roots.append(root)
    told = {
        "roots": {str(root): str(index) for index, root in enumerate(roots)},
        "files": {str(path): hashlib.sha256(text).hexdigest()[:12] for path, text in sorted(files.items())},
    }
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
    return Code(hash=name, path=folder.path / "code" / name, roots=told["roots"], files=told["files"])


def _write(code: Code, files: Files, *, folder: StudyFolder) -> None:
    """The snapshot under its name, whole; of two at once one is kept. Links to what came since are added."""
    if not code.path.exists():
        code.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=code.path.parent, prefix=f".{code.hash}."))
        try:
            for path, text in files.items():
                copy = scratch / _inside(code, path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(text)
                shutil.copymode(path, copy)
            scratch.chmod(0o755)  # mkdtemp makes 0700; colleagues read a shared project folder
            write_atomic(
                scratch / "snapshot.json", json.dumps({"roots": code.roots, "files": code.files}, indent=1)
            )
            with suppress(FileExistsError):
                _moved(scratch, code.path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    _link(code, but=folder.path)


def _moved(scratch: Path, path: Path) -> None:
    """Raises: FileExistsError where another process was first."""
    try:
        os.rename(scratch, path)
    except OSError:
        if path.is_dir():
            raise FileExistsError(path) from None
        raise


def _inside(code: Code, path: Path) -> Path:
    root = max((root for root in code.roots if path.is_relative_to(root)), key=len)
    return Path(code.roots[root]) / path.relative_to(root)


def _link(code: Code, *, but: Path) -> None:
    """Links beside the copies to everything else that lies beside the originals; not to the study's own folder."""
    folders = {Path(root) for root in code.roots} | {
        above
        for path in map(Path, code.files)
        for above in path.parents
        if any(above.is_relative_to(root) for root in code.roots)
    }
    for folder in sorted(folders):
        mirror = code.path / _inside(code, folder)
        mirror.mkdir(parents=True, exist_ok=True)
        there = set(os.listdir(mirror))
        for name in os.listdir(folder) if folder.is_dir() else ():
            original = folder / name
            if name in there or name == "__pycache__" or original in folders or _a_study(original, but=but):
                continue
            with suppress(
                FileExistsError, PermissionError
            ):  # a file system without links: then there are none
                os.symlink(original, mirror / name)


def _a_study(path: Path, *, but: Path) -> bool:
    """Whether a study's folder lies there; two that link to each other would make tools that follow links go round."""
    study = StudyFolder(path=path)
    return path == but or study.resolved_file.is_file() or study.lock_file.exists()


def _changed(before: Code, now: Code) -> str:
    """One line: that the code is another than that of the trials before, and where."""
    files = sorted({*before.files, *now.files})
    differ = [Path(file).name for file in files if before.files.get(file) != now.files.get(file)]
    shown = ", ".join(differ[:3]) + (f" and {len(differ) - 3} more" if len(differ) > 3 else "")
    return (
        f"the code changed since the earlier trials ({shown or 'its place'}): {before.hash} -> {now.hash}; new jobs "
        "run the new code, earlier trials keep their values, jobs submitted before keep the old code"
    )
