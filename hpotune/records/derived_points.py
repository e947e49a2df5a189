"""points.json of a study that hpotune derived from another one: what its sealed test scores, or what is repeated.

Such a study (STUDY/test/N, STUDY/repeats) has one parameter, the position in this list. So its space may grow with the
list, and everything that works on a study (queue, workers, follow-ups, logs) works on it unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from hpotune.config.json_file import DamagedFileError, decoding, read_regular
from hpotune.config.schema.study_config import PointConfig, Section, StudyConfig
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialRow

POSITION = "params.point"
"""The parameter of a derived study: a position in its list of points."""


class DerivedPoint(Section):
    """One trial of a derived study."""

    trial: int
    """Number of the study's trial whose point it is."""
    seed: int
    """Of training."""
    point: PointConfig
    loss: float | None
    """The validation loss that the study's trial recorded; null: it recorded none."""


class DerivedPoints(Section):
    """All trials of a derived study, by position."""

    kind: Literal["test", "repeats"]
    """test: an opening of the sealed test. repeats: finalists, trained again with new seeds."""
    base: PointConfig
    """The base model's, as the study's baseline has it."""
    base_loss: float | None
    """The validation loss of the study's baseline; null: it recorded none."""
    points: list[DerivedPoint]

    def with_new(self, points: Sequence[DerivedPoint]) -> DerivedPoints:
        """The list with those of the points that it does not have, at its end."""
        known = {(one.trial, one.seed) for one in self.points}
        new = [one for one in points if (one.trial, one.seed) not in known]
        return self.model_copy(update={"points": [*self.points, *new]})

    def of(self, row: TrialRow) -> DerivedPoint | None:
        """The point of a derived study's trial; None for its baseline, and for a trial that has none yet."""
        position = row.params.get(POSITION)
        if not isinstance(position, int) or not 0 <= position < len(self.points):
            return None
        return self.points[position]


def check_not_derived(folder: Path, config: StudyConfig, *, advice: str, verb: str = "") -> None:
    """Check that a study is one of the user's, not a part that hpotune derived from it.

    Raises: StudyFileError.
    """
    if config.search.is_derived:
        start = f"{verb}: {folder} is" if verb else f"{folder}: is"
        raise StudyFileError(
            f"{start} a part of another study (its sealed test, or repeats of its finalists); {advice}"
        )


def points_file(folder: Path) -> Path:
    """The list of the derived study in a folder."""
    return folder / "points.json"


def read_points(folder: Path) -> DerivedPoints:
    """The list of the derived study in a folder.

    Raises: DamagedFileError where it cannot be read.
    """
    file = points_file(folder)
    next_step = "the study cannot go on without it: restore the file"
    with decoding(file, next_step=next_step):
        text = read_regular(file)
    try:
        return DerivedPoints.model_validate_json(text)
    except ValidationError as error:
        raise DamagedFileError(f"{file}: is damaged ({error.error_count()} errors); {next_step}") from error
