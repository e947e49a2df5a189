"""The study files that `hpotune init` writes, each with the other files that it needs (templates/NAME/)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hpotune.errors import StudyFileError, nearest

FOLDER = Path(__file__).parents[1] / "templates"


def list_templates() -> Iterator[tuple[str, str]]:
    """Each template's name and its first comment line."""
    for path in sorted(FOLDER.glob("*.yaml")):
        yield path.stem, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def copy_template(name: str, out: Path | None) -> Path:
    """Write a template to `out` (or NAME.yaml in the current folder) with the files that it needs: all or none of them.

    Returns the path of the study file. An existing file with the same content is kept.
    Raises: StudyFileError for an unknown name, a file that exists already, or a file that cannot be written.
    """
    source = FOLDER / f"{name}.yaml"
    if not source.is_file():
        raise StudyFileError(
            f"template {name!r} is unknown; {nearest(name, [path.stem for path in FOLDER.glob('*.yaml')])}"
        )
    target = out or Path(f"{name}.yaml")
    # pip compiles the modules that it installs, so an installed template's folder also contains __pycache__.
    beside = {
        target.parent / path.name: path.read_bytes()
        for path in sorted((FOLDER / name).glob("*"))
        if path.is_file()
    }
    missing = {path: content for path, content in beside.items() if not _holds(path, content)}
    for path in (target, *missing):
        if os.path.lexists(path):
            raise _exists(path, target)
    _write_all({**missing, target: source.read_bytes()}, target)
    return target


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False


def _write_all(files: dict[Path, bytes], target: Path) -> None:
    """Create the files in order; after a failure, remove those that were created."""
    created: list[Path] = []
    try:
        for path, content in files.items():
            with path.open("xb") as file:
                created.append(path)
                file.write(content)
    except BaseException as error:  # also after Ctrl-C no partial copy remains
        for path_made in created:
            path_made.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise _exists(path, target) from None
        if isinstance(error, OSError):
            raise StudyFileError(
                f"{path}: cannot be written ({error.strerror}); choose another folder with --out"
            ) from None
        raise


def _exists(path: Path, target: Path) -> StudyFileError:
    if path == target:
        return StudyFileError(f"{path}: exists already; choose another name with --out")
    return StudyFileError(
        f"{path}: exists already and differs from the template's file, which {target.name} needs; "
        "choose another folder with --out"
    )
