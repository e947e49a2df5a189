"""The spec of a claimed trial: all that its process needs, from the study, the trial's row and the code snapshot."""

from __future__ import annotations

from pathlib import Path

from hpotune.config.load import Study
from hpotune.records.trial import TrialRow, TrialSpec
from hpotune.worker.derived_spec import derived_spec
from hpotune.worker.leader_file import LEADER, races
from hpotune.workspace.code_snapshot import CodeSnapshot
from hpotune.workspace.fetched_lock import located, lock_file, read_lock
from hpotune.workspace.folder import StudyFolder


def base_spec(row: TrialRow, study: Study, folder: StudyFolder, *, home: str) -> TrialSpec:
    """The trial's spec at the base point: complete for the baseline, and enough to report a failure of any trial.

    `home`: the folder of the study file, where functions and commands run.
    """
    config, ladder, line = study.config, study.config.search.ladder, row.lineage
    rung = ladder.rung(row.rung) if ladder is not None and row.rung is not None else None
    lock = lock_file(folder.path)
    return TrialSpec(
        study=config.name,
        number=row.number,
        kind=row.kind,
        seed=config.search.seed,
        folder=str(folder.trial(row.number)),
        point=located(study.base(), read_lock(lock)),
        checks=config.checks,
        data_root=config.data_root,
        offline=config.env.offline,
        fetched=str(lock) if lock is not None else None,
        stage=config.env.stage,
        python=config.python,
        command=config.command,
        prepared=str(folder.prepared) if config.model is not None else None,
        home=home,
        rung=line.rung if line is not None else rung,
        parent=str(folder.trial(line.parent)) if line is not None and line.parent is not None else None,
        leader=str(folder.path / LEADER) if row.kind == "trial" and races(config) else None,
    )


def spec_at_point(
    spec: TrialSpec, row: TrialRow, study: Study, *, code: CodeSnapshot | None = None
) -> TrialSpec:
    """The base spec at the trial's own point, its program in the code snapshot where there is one.

    Raises: ValueError for a point that breaks a rule of the study file only there.
    """
    if study.config.search.is_derived:
        spec = derived_spec(spec, row, StudyFolder(path=Path(spec.folder).parents[1]))
    elif row.kind != "baseline":
        spec = spec.model_copy(update={"point": study.point(row.params)})
    lock = read_lock(Path(spec.fetched) if spec.fetched is not None else None)
    spec = spec.model_copy(update={"point": located(spec.point, lock)})
    return spec if code is None else code.apply(spec)


def make_trial_folder(spec: TrialSpec, folder: StudyFolder) -> None:
    """Make the trial's folder, and check that its files and those of the trial that it continues are this user's.

    Raises: StudyFileError; OSError where it cannot be made.
    """
    Path(spec.folder).mkdir(parents=True, exist_ok=True)
    folder.trusted_trial(spec.number)
    if spec.parent is not None:
        folder.trusted_trial(int(Path(spec.parent).name))
