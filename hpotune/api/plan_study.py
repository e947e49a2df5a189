"""Plans a study: what it would submit, take and cost. Submits nothing; makes no folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpotune.api.call_messages import Line
from hpotune.checks.gpus import gpu_type_findings
from hpotune.checks.study_file import check
from hpotune.config.load import Study
from hpotune.config.space.preset_filling import preset_note
from hpotune.planning.memory_plan import memory_plan
from hpotune.planning.probe import probe as run_probe
from hpotune.planning.study_plan import StudyPlan, make_plan
from hpotune.records.trial import Span, TrialRow
from hpotune.reporting.views.plan_view import PlanView, plan_view
from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder, folder_of
from hpotune.workspace.stored_preset import written_values


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStudy:
    """A plan, and the study that it is of."""

    folder: StudyFolder
    study: Study
    made: StudyPlan
    view: PlanView
    preset: str
    """What came from the preset; empty without one."""

    @property
    def spans(self) -> Sequence[Span]:
        """When the jobs of the study's own mode would run."""
        return self.made.own.result.spans

    @property
    def notes(self) -> list[str]:
        """What came from the preset, and what this machine's Slurm says of the study's GPUs."""
        gpus = [f"{found.text}; {found.advice}" for found in gpu_type_findings(self.study.config)]
        return [self.preset, *gpus] if self.preset else gpus


def plan_study(
    target: Path, chosen: Path | None, *, data_root: str | None, probe: bool, say: Line
) -> PlannedStudy:
    """The plan of a study; `probe`: from times measured by a few short trials of a copy, whose progress `say` gets."""
    folder, study, rows, note = _read_planned(target, chosen, data_root)
    probed = run_probe(target, folder, data_root=data_root, say=say) if probe else None
    made = make_plan(folder, study.config, rows, probed=probed, memory=memory_plan(study), now=datetime.now())
    return PlannedStudy(folder=folder, study=study, made=made, view=plan_view(made), preset=note)


def _read_planned(
    target: Path, chosen: Path | None, data_root: str | None
) -> tuple[StudyFolder, Study, Sequence[TrialRow], str]:
    """The study in its folder, or as its file would make it, and what came from its preset."""
    if target.is_dir():
        folder = folder_of(target, chosen=chosen)
        planned = folder.load()
        values = planned.source.values
        note = preset_note(values, written_values(folder, values))
    else:
        checked = check(target, chosen=chosen, data_root=data_root)
        folder, planned, note = checked.folder, checked.folder.in_force(checked.study), checked.preset_note
    rows: Sequence[TrialRow] = ()
    if folder.resolved_file.is_file():
        stored = planned if target.is_dir() else folder.load()
        rows = TrialQueue.open(folder.provenance().store, stored, read_only=True).rows()
    return folder, planned, rows, note
