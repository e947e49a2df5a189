"""What a trial's process needs, from the study and the claimed row."""

from __future__ import annotations

from hpotune.config.load import Study
from hpotune.records.trial import TrialRow, TrialSpec
from hpotune.workspace.folder import StudyFolder


def spec_without_point(row: TrialRow, study: Study, folder: StudyFolder, *, home: str) -> TrialSpec:
    """Everything but the point; complete for the baseline."""
    config, ladder, line = study.config, study.config.search.ladder, row.lineage
    rung = ladder.rung(row.rung) if ladder is not None and row.rung is not None else None
    return TrialSpec(
        study=config.name,
        number=row.number,
        kind=row.kind,
        seed=config.search.seed,
        folder=str(folder.trial(row.number)),
        point=study.base(),
        checks=config.checks,
        data_root=config.data_root,
        offline=config.env.offline,
        python=config.python,
        command=config.command,
        home=home,
        rung=line.rung if line is not None else rung,
        parent=str(folder.trial(line.parent)) if line is not None and line.parent is not None else None,
    )


def with_point(spec: TrialSpec, row: TrialRow, study: Study) -> TrialSpec:
    """Everything the trial's process needs.

    Raises: ValueError for a point that breaks a rule of the study file only there.
    """
    return spec if row.kind == "baseline" else spec.model_copy(update={"point": study.point(row.params)})
