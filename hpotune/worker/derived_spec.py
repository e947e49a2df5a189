"""The spec of a trial of a study that hpotune derived from another one: the sealed test, or repeats of the finalists.

Its point is that of the study's trial. A sealed test scores the kept adapter; where none was kept, it is trained again
with the trial's own seed. A repeat is always trained, with the seed of the list.
"""

from __future__ import annotations

from pathlib import Path

from hpotune.config.training_method import trained_folder
from hpotune.records.derived_points import DerivedPoint, read_points
from hpotune.records.trial import TrialRow, TrialSpec
from hpotune.workspace.folder import StudyFolder


def derived_spec(spec: TrialSpec, row: TrialRow, folder: StudyFolder) -> TrialSpec:
    """The base spec of a derived study's trial at its own point. `folder`: of the derived study.

    Raises: StudyFileError where its list cannot be read, or an adapter is not this user's.
    """
    listed = read_points(folder.path)
    if row.kind == "baseline":
        return spec.model_copy(
            update={"point": listed.base, "sealed": True, "expected_loss": listed.base_loss}
        )
    point = listed.of(row)
    if point is None:
        raise ValueError(f"{dict(row.params)}: is no position in the list of {folder.path}")
    if listed.kind == "repeats":
        return spec.model_copy(update={"point": point.point, "seed": point.seed})
    adapter = kept_adapter(folder, point)
    return spec.model_copy(
        update={
            "point": point.point,
            "seed": point.seed,
            "sealed": True,
            "adapter": str(adapter) if adapter is not None else None,
            "expected_loss": point.loss if adapter is not None else None,
        }
    )


def kept_adapter(folder: StudyFolder, point: DerivedPoint) -> Path | None:
    """The adapter, or the whole model, of the study's trial; None where it was not kept."""
    study = StudyFolder(path=folder.path.parents[1], shared=folder.shared)
    return trained_folder(study.trusted_trial(point.trial))
