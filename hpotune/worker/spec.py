"""What a trial's process needs, from the study and the claimed row."""

from __future__ import annotations

from hpotune.store import Claim
from hpotune.study.folder import StudyFolder
from hpotune.study.load import Study
from hpotune.study.trial import TrialSpec


def trial_spec(claim: Claim, study: Study, folder: StudyFolder, *, home: str) -> TrialSpec:
    """Everything the trial's process needs.

    Raises: ValueError for a point that breaks a rule of the study file only there.
    """
    blank = spec_without_point(claim, study, folder, home=home)
    if claim.row.kind == "baseline":
        return blank
    return blank.model_copy(update={"point": study.point(claim.row.params)})


def spec_without_point(claim: Claim, study: Study, folder: StudyFolder, *, home: str) -> TrialSpec:
    config = study.config
    return TrialSpec(
        study=config.name,
        number=claim.row.number,
        kind=claim.row.kind,
        seed=config.search.seed,
        folder=str(folder.trial(claim.row.number)),
        point=study.base(),
        checks=config.checks,
        data_root=config.data_root,
        offline=config.env.offline,
        python=config.python,
        command=config.command,
        home=home,
    )
