"""The exercises that come with hpotune: a folder each in templates/handouts/, copied for a student by `lab prepare`.

templates/handouts/N/handout.yaml has the title, the minutes it takes and whether it needs Slurm; the other files of the
folder are what the student gets: README.md, a study file, programs, job scripts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.yaml_source import read_source
from hpotune.errors import StudyFileError

FOLDER = Path(__file__).parents[1] / "templates" / "handouts"
FACTS = "handout.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Handout:
    """One exercise."""

    number: int
    title: str
    minutes: int
    """What it takes a student."""
    needs_slurm: bool
    files: tuple[str, ...]
    """Names of what the student gets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedHandout:
    """An exercise in a student's folder."""

    handout: Handout
    folder: Path
    written: tuple[str, ...]
    """Files that were not there before."""


def handouts() -> Sequence[Handout]:
    """All exercises by their number."""
    numbers = sorted(int(path.name) for path in FOLDER.glob("*") if path.name.isdecimal())
    return [_handout(number) for number in numbers]


def _handout(number: int) -> Handout:
    folder = FOLDER / str(number)
    facts = read_source(folder / FACTS).values
    title, minutes, slurm = facts["title"], facts["minutes"], facts["needs_slurm"]
    assert isinstance(title, str), "handout.yaml has a title"
    assert isinstance(minutes, int), "handout.yaml has minutes"
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != FACTS)
    return Handout(number=number, title=title, minutes=minutes, needs_slurm=slurm is True, files=tuple(names))


def prepare_handout(number: int, folder: Path) -> PreparedHandout:
    """Copy the files of an exercise into a folder: all or none of them. Files that are equal already are kept.

    Raises: StudyFileError for an unknown number, a file that differs, and a folder that cannot be written.
    """
    known = {one.number: one for one in handouts()}
    if number not in known:
        listed = ", ".join(map(str, known))
        raise StudyFileError(
            f"handout {number}: there is none; needs one of {listed} (`hpotune lab prepare` lists them)"
        )
    handout, source = known[number], FOLDER / str(number)
    contents = {name: (source / name).read_bytes() for name in handout.files}
    missing = [name for name, content in contents.items() if not _holds(folder / name, content)]
    for name in missing:
        if os.path.lexists(folder / name):
            raise StudyFileError(
                f"{folder / name}: is there already and differs from the handout's file; your work stays as it is: "
                "give another --folder, or rename the file"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in missing:
            (folder / name).write_bytes(contents[name])
            (folder / name).chmod(0o755 if contents[name].startswith(b"#!") else 0o644)
    except OSError as error:
        raise StudyFileError(
            f"{folder}: cannot be written ({error.strerror}); choose another with --folder"
        ) from None
    return PreparedHandout(handout=handout, folder=folder, written=tuple(missing))


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False
