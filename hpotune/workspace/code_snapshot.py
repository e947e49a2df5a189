"""Code snapshots: the study's code, copied at submit and named by its content; jobs run the copy, edits come later.

code/newest             the hash of the latest snapshot
code/<hash>/snapshot.json
code/<hash>/0/…         the study's home: the program and what it imports are copies, everything else there is a link,
                        so that data is found beside the program as before
code/<hash>/1/…         the same of a program elsewhere, or of a folder of lm-eval tasks
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.json_file import DamagedFileError, decoding, read_object
from hpotune.config.ownership import Owners, file_owner, first_complaint, this_user
from hpotune.config.yaml_source import Value
from hpotune.errors import StoreError, StudyFileError
from hpotune.records.trial import TrialSpec
from hpotune.workspace.atomic_files import current_umask, file_mode, make_scratch_folder, write_atomic
from hpotune.workspace.dependencies import (
    TASK_FILES,
    command_modules,
    files_below,
    program_words,
    study_programs,
    task_folders,
    with_imports,
)
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.snapshot_check import changes, content_hash, copy_path, is_importable, snapshot_hash
from hpotune.workspace.snapshot_users import newest_snapshot, snapshot_names
from hpotune.workspace.trust import check_files, trusted_group

MAX_FILES = 1000
MAX_BYTES = 10_000_000
"""Limits of a snapshot: it holds the study's own code, neither data nor libraries."""
_SAFE = re.compile(r"[\w@%+=:,./-]+", re.ASCII)

VERSION = 2
"""Of snapshot.json. Since 2 the snapshot's name is the hash of what it says; homes of earlier ones may have moved."""
Files = dict[Path, bytes]
"""Absolute path -> content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeSnapshot:
    """One snapshot."""

    hash: str
    path: Path
    roots: Mapping[str, str]
    """Absolute folder -> its copy, relative to `path`; the study's home first."""
    files: Mapping[str, str]
    """Absolute path -> a hash of its content."""
    version: int = VERSION

    @property
    def home(self) -> Path:
        """The folder that relative paths of a command refer to."""
        return Path(next(iter(self.roots)))

    def copy_of(self, path: Path) -> Path:
        """The copy of a file or folder in the snapshot; the path itself where it is not part of the snapshot."""
        for root, mirror in sorted(self.roots.items(), key=lambda pair: -len(pair[0])):
            inside = path.is_relative_to(root) and self.path / mirror / path.relative_to(root)
            if inside and not inside.is_symlink() and inside.exists():
                return inside
        return path

    def apply(self, spec: TrialSpec) -> TrialSpec:
        """The spec with the program in the snapshot; the trial still runs in the study's home."""
        score = spec.point.score
        if score.include_path is not None:
            score = score.model_copy(update={"include_path": str(self.copy_of(Path(score.include_path)))})
        changed: dict[str, object] = {
            "code": self.hash,
            "point": spec.point.model_copy(update={"score": score}),
        }
        if spec.python is not None:
            file, _, function = spec.python.rpartition(":")
            changed["python"] = f"{self.copy_of(Path(file))}:{function}"
        if spec.command is not None:
            changed["command"] = self._command(spec.command)
        return spec.model_copy(update=changed)

    def _command(self, command: str) -> str:
        """The command with its programs in the snapshot; $HPOTUNE_CODE is the copy of the study's home."""
        text, mirror = command, self.copy_of(self.home)
        for start, end, file in reversed(list(program_words(command, home=self.home))):
            text = text[:start] + str(self.copy_of(file)) + text[end:]
        first = f"export HPOTUNE_CODE={mirror}"
        if command_modules(command, home=self.home):  # else `-m` takes the module from the working directory
            first += f" PYTHONSAFEPATH=1 PYTHONPATH={mirror}${{{{PYTHONPATH:+:$PYTHONPATH}}}}"
        return f"{first}; {text}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotResult:
    """A snapshot, and what the user should know about it."""

    code: CodeSnapshot | None
    """None: the study has no program of its own."""
    notes: tuple[str, ...] = ()
    """One line each: what changed since the trials before, what is not part of the snapshot."""


def snapshot_code(folder: StudyFolder, values: Mapping[str, Value], *, home: Path) -> SnapshotResult:
    """Copy the study's code as it is now, unless the same snapshot exists. `values`: of the study file, paths absolute.

    Raises: StudyFileError where the code is too large or cannot be read, StoreError where it cannot be written.
    """
    before = _newest(folder)
    files, notes = _gather(values, home=home, folder=folder)
    if not files:
        return SnapshotResult(code=None, notes=tuple(notes))
    code = _snapshot_of(folder, files, task_folders(values), home=home)
    try:
        _write(code, files, folder=folder)
        if before is None or before.hash != code.hash:
            write_atomic(folder.path / "code" / "newest", code.hash + "\n")
        if not code.path.is_dir():  # an old one, which another process has just removed
            _write(code, files, folder=folder)
    except OSError as error:
        raise StoreError(
            f"{error.filename2 or folder.path / 'code'}: the snapshot of the study's code cannot be written "
            f"({error.strerror}); free space, or choose another folder with --folder"
        ) from None
    if before and before.hash != code.hash and any(folder.path.glob("trials/*")):
        notes.insert(0, _change_note(before, code))
    return SnapshotResult(code=code, notes=tuple(notes))


def find_snapshot(folder: StudyFolder, name: str | None = None) -> CodeSnapshot | None:
    """The snapshot of this hash, or the newest, whose files are what was submitted; None where the study has none.

    Raises: StudyFileError where there is none of this hash, or where it was changed or its snapshot.json is damaged.
    """
    found = _newest(folder) if name is None else _read(folder, name)
    if found is not None:
        _check_unchanged(folder, found)
        return found
    wanted = newest_snapshot(folder) if name is None else name
    if wanted is not None and (path := folder.path / "code" / wanted).is_dir():
        raise StudyFileError(
            f"{path / 'snapshot.json'}: is damaged, so what was submitted is not known; restore it, or move the folder "
            f"{wanted} away, then `hpotune run` or `submit` the study file again, which takes the code as it is now"
        )
    if name is not None:
        held = snapshot_names(folder)
        raise StudyFileError(
            f"--code {name}: {folder.path / 'code'} holds no such snapshot; it holds {', '.join(held) or 'none'}"
        )
    return None


def _check_unchanged(folder: StudyFolder, code: CodeSnapshot) -> None:
    """Check that the snapshot holds what was submitted, and that nobody else may write it.

    Raises: StudyFileError naming what differs.
    """
    copies = map(code.path.joinpath, code.roots.values())
    check_files(folder.path, code.path, code.path / "snapshot.json", *copies, shared=folder.shared)
    owners = _code_owners(code.files, folder)
    try:
        changed = changes(code.path, code.roots, code.files, trusted=lambda path: not owners.complaint(path))
    except OSError as error:
        raise StudyFileError(f"{code.path}: cannot be read ({error.strerror}); make it readable") from None
    if code.version >= VERSION and code.hash != snapshot_hash(code.roots, code.files):
        changed = ["snapshot.json was changed"]
    if changed:
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise StudyFileError(
            f"{code.path}: is not the code that was submitted: {shown}; move that folder away, then `hpotune run` or "
            "`submit` the study file again, which takes the code as it is now"
        )


def _code_owners(files: Iterable[str | Path], folder: StudyFolder) -> Owners:
    """Whose modules may be part of the code: this user's, those of the named programs' owners and of a shared group."""
    named = frozenset(file_owner(Path(file)) for file in files)
    group = trusted_group(folder.path, shared=folder.shared)
    return Owners(users=this_user().users | named, group=group, modes=False)


def _newest(folder: StudyFolder) -> CodeSnapshot | None:
    name = newest_snapshot(folder)
    return None if name is None else _read(folder, name)


def _read(folder: StudyFolder, name: str) -> CodeSnapshot | None:
    path = folder.path / "code" / name
    file = path / "snapshot.json"
    with suppress(DamagedFileError), decoding(file, next_step=""):
        recorded = read_object(file, next_step="")
        roots, files = ({str(k): str(v) for k, v in recorded[key].items()} for key in ("roots", "files"))
        inside = all(any(Path(file).is_relative_to(root) for root in roots) for file in files)
        if roots and inside and all(part.isdigit() for part in roots.values()):
            return CodeSnapshot(
                hash=name, path=path, roots=roots, files=files, version=int(recorded.get("version", 1))
            )
    return None


def _gather(values: Mapping[str, Value], *, home: Path, folder: StudyFolder) -> tuple[Files, list[str]]:
    """Read the files of the study's code; also returned: a line for each part that the snapshot leaves out."""
    notes = []
    command = values.get("command")
    programs = study_programs(values, home=home)
    files = _read_files(with_imports(programs, home=home))
    _check_owners(files or (), programs, folder)
    if files is None:
        raise StudyFileError(
            f"the study's code and what it imports from {home} is too large for a code snapshot (more than {MAX_FILES} "
            f"files or {MAX_BYTES // 10**6} MB); install libraries (pip install -e), or move the study file"
        )
    if isinstance(command, str) and not files and re.search(r"\b(cd|pushd)\b", command):
        notes.append(
            "the command changes its folder (cd), so its programs are not part of the code snapshot: each trial "
            "runs them as they are when it starts"
        )
    if isinstance(command, str) and any(not _SAFE.fullmatch(f"{folder.path}{file}") for file in files):
        notes.append(
            f"{folder.path}: contains characters that a shell interprets, so the command's programs are not part of "
            "the code snapshot: each trial runs them as they are when it starts; use a name without spaces and quotes"
        )
        files = {}
    for tasks in task_folders(values):
        found = _read_files(files_below(tasks, TASK_FILES))
        if found is None:
            notes.append(
                f"{tasks}: is too large for the code snapshot: trials read its tasks as they are when they start"
            )
        files |= found or {}
    return files, notes


def _check_owners(files: Iterable[Path], programs: Iterable[Path], folder: StudyFolder) -> None:
    """Check that the modules which the programs import were not put beside them by another user.

    Raises: StudyFileError.
    """
    if found := first_complaint(files, _code_owners(programs, folder)):
        path, text = found
        raise StudyFileError(
            f"{path}: {text}, and the study's program would import it; remove it, or move the program and the study "
            "file into a folder of your own"
        )


def _read_files(paths: Iterable[Path]) -> Files | None:
    """The contents of the files; None where they exceed the limits of a snapshot.

    Raises: StudyFileError where one cannot be read.
    """
    files: Files = {}
    size = 0
    for path in paths:
        try:
            size += path.stat().st_size
            if size > MAX_BYTES or len(files) >= MAX_FILES:
                return None
            files[path] = path.read_bytes()
        except OSError as error:
            raise StudyFileError(
                f"{path}: is part of the study's code and cannot be read ({error.strerror}); make it readable, or "
                "remove its import"
            ) from None
    return files


def _snapshot_of(folder: StudyFolder, files: Files, folders: Sequence[Path], *, home: Path) -> CodeSnapshot:
    """The snapshot of the files, not yet written. Its roots: the home, and other folders with tasks or a program."""
    roots = [home]
    for root in [*folders, *(file.parent for file in sorted(files))]:
        if any(file.is_relative_to(root) for file in files) and not any(map(root.is_relative_to, roots)):
            roots.append(root)
    recorded = {
        "roots": {str(root): str(index) for index, root in enumerate(roots)},
        "files": {str(path): content_hash(text) for path, text in sorted(files.items())},
    }
    name = snapshot_hash(recorded["roots"], recorded["files"])
    return CodeSnapshot(
        hash=name, path=folder.path / "code" / name, roots=recorded["roots"], files=recorded["files"]
    )


def _write(code: CodeSnapshot, files: Files, *, folder: StudyFolder) -> None:
    """Write the snapshot under its name, as a whole or not at all, and update its links; of two at once one is kept."""
    if not code.path.exists():
        code.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = make_scratch_folder(code.path)
        try:
            for path, text in files.items():
                copy = scratch / copy_path(path, code.roots)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(text)
                shutil.copymode(path, copy)  # whether it is executable
                copy.chmod(file_mode(copy) & ~current_umask())
            _write_record(scratch, code)
            with suppress(FileExistsError):
                _rename(scratch, code.path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if _read(folder, code.hash) is None:  # damaged; the name says what it was
        _write_record(code.path, code)
    _check_unchanged(folder, code)
    _link_other_files(code, study_folder=folder.path, owners=_code_owners(code.files, folder))


def _write_record(folder: Path, code: CodeSnapshot) -> None:
    recorded = {"version": VERSION, "roots": code.roots, "files": code.files}
    write_atomic(folder / "snapshot.json", json.dumps(recorded, indent=1))


def _rename(scratch: Path, path: Path) -> None:
    """Rename the folder. Raises FileExistsError where another process was first."""
    try:
        os.rename(scratch, path)
    except OSError:
        if path.is_dir():
            raise FileExistsError(path) from None
        raise


def _link_other_files(code: CodeSnapshot, *, study_folder: Path, owners: Owners) -> None:
    """Link, beside the copies, to all other files beside the originals, but not to study folders.

    Nor to modules that other users have put there: an import would run them.
    """
    folders = {Path(root) for root in code.roots} | {
        above
        for path in map(Path, code.files)
        for above in path.parents
        if any(above.is_relative_to(root) for root in code.roots)
    }
    for folder in sorted(folders):
        mirror = code.path / copy_path(folder, code.roots)
        mirror.mkdir(parents=True, exist_ok=True)
        there = set(os.listdir(mirror))
        for name in os.listdir(folder) if folder.is_dir() else ():
            original = folder / name
            if (
                name in there
                or name == "__pycache__"
                or original in folders
                or _is_study(original, study_folder=study_folder)
                or (owners.complaint(original) and is_importable(original))
            ):
                continue
            with suppress(FileExistsError, PermissionError):  # PermissionError: a file system without links
                os.symlink(original, mirror / name)


def _is_study(path: Path, *, study_folder: Path) -> bool:
    """Whether this is a study folder; two that link to each other would trap tools that follow links."""
    study = StudyFolder(path=path)
    # os.path: another user's closed folder is an error for Path before Python 3.12
    return path == study_folder or os.path.isfile(study.resolved_file) or os.path.exists(study.lock_file)


def _change_note(before: CodeSnapshot, now: CodeSnapshot) -> str:
    """One line: that the code differs from that of the trials before, and in which files."""
    files = sorted({*before.files, *now.files})
    differ = [Path(file).name for file in files if before.files.get(file) != now.files.get(file)]
    shown = ", ".join(differ[:3]) + (f" and {len(differ) - 3} more" if len(differ) > 3 else "")
    return (
        f"the code changed since the earlier trials ({shown or 'its folder'}): {before.hash} -> {now.hash}; new jobs "
        "run the new code; earlier trials keep their values, and jobs submitted before run the old code"
    )
