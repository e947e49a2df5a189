"""The study files that `hpotune init` writes, each with the files it needs beside it (templates/NAME/)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpotune.errors import StudyFileError, nearest

FOLDER = Path(__file__).with_name("templates")


def list_templates() -> Iterator[tuple[str, str]]:
    """Each template's name and its first comment line."""
    for path in sorted(FOLDER.glob("*.yaml")):
        yield path.stem, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def copy_template(name: str, out: Path | None) -> Path:
    """Writes a template to `out` (or NAME.yaml here) and returns where.

    Raises: StudyFileError for an unknown name or a file that is already there.
    """
    source = FOLDER / f"{name}.yaml"
    if not source.is_file():
        raise StudyFileError(
            f"template {name!r} is unknown; {nearest(name, [path.stem for path in FOLDER.glob('*.yaml')])}"
        )
    target = out or Path(f"{name}.yaml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise StudyFileError(f"{target}: exists already; choose another name with --out") from None
    except OSError as error:
        raise StudyFileError(
            f"{target}: cannot be written ({error.strerror}); choose another place with --out"
        ) from None
    for beside in sorted((FOLDER / name).glob("*")):
        if not (target.parent / beside.name).exists():
            (target.parent / beside.name).write_text(beside.read_text(encoding="utf-8"), encoding="utf-8")
    return target
