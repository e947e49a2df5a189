"""Runs a finished trial again, in a folder of its own: reruns/N-K. The store and the trial's own folder are only read.

The trial's recorded spec, its seed, its threads and its code snapshot are used. A trial that was trained in stages, or
with interruptions, is trained in one go: its result does not depend on them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpotune.config.load import Study
from hpotune.config.memory.point_memory import MEMORY_FILE
from hpotune.errors import StudyFileError
from hpotune.records.trial import TrialResult, TrialRow, TrialSpec
from hpotune.worker.leader_file import leader_of_rerun
from hpotune.worker.objective import open_objective
from hpotune.worker.objective.interface import TrialContext
from hpotune.worker.objective.process import StopRequest
from hpotune.worker.trial_spec import base_spec, spec_at_point
from hpotune.workspace.code_snapshot import CodeSnapshot, find_snapshot
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.origin.trial_provenance import (
    TrialProvenance,
    contents_of,
    first_provenance,
    read_trial_provenance,
)
from hpotune.workspace.snapshot_users import snapshot_names

MOST_RERUNS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRerun:
    """A trial that can be run again."""

    folder: StudyFolder
    study: Study
    row: TrialRow
    spec: TrialSpec
    """As it was recorded, with the folder of the rerun."""
    before: TrialProvenance | None
    """Of the trial; None: an earlier version recorded none."""
    code: str | None
    """The code snapshot that it runs; None: the study has no program of its own."""

    def expected(self, env: Mapping[str, str]) -> TrialProvenance:
        """The provenance that the rerun would have on this machine; reads model and data unless they are hashed."""
        resources = self.study.config.resources
        first = first_provenance(self.spec, env=self.environment(env))
        return replace(
            first,
            ranks=resources.nodes * resources.processes_per_node if self.study.config.model else 1,
            contents=contents_of(self.spec, study=self.folder.path, env=env),
        )

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment of the rerun: this one, with the number of threads that the trial had."""
        ours = dict(env)
        if self.before is not None:
            ours.pop("OMP_NUM_THREADS", None)
            if self.before.threads is not None:
                ours["OMP_NUM_THREADS"] = self.before.threads
        return ours


def prepare_rerun(folder: StudyFolder, study: Study, row: TrialRow, *, own: Path | None) -> PreparedRerun:
    """Everything that the rerun of a trial needs. `own`: a folder in reruns/ that a submitted job was given; None: new.

    Raises: StudyFileError for a trial without a result, or whose first step cannot be repeated.
    """
    number = row.number
    if row.state not in ("finished", "stopped"):
        verb = "why" if row.state == "failed" else "status"
        raise StudyFileError(
            f"trial {number}: is {row.state}, so there is no result to compare with; rerun needs a finished or pruned "
            f"trial; `hpotune {verb} {folder.path}{f' {number}' if verb == 'why' else ''}` says more"
        )
    trial = folder.trusted_trial(number)
    recorded = _recorded_spec(trial)
    code = _snapshot(folder, recorded)
    built = spec_at_point(
        base_spec(row, study, folder, home=str(folder.provenance().home)), row, study, code=code
    )
    spec = built if recorded is None else _as_recorded(recorded, built)
    if spec.parent is not None and not (Path(spec.parent) / "checkpoint").is_dir():
        raise StudyFileError(
            f"trial {number}: continued from the checkpoint of trial {Path(spec.parent).name}, which is deleted; rerun "
            "a trial that began at its first step"
        )
    own = new_rerun_folder(folder, number) if own is None else own
    with suppress(
        FileNotFoundError
    ):  # micro-batch and checkpointing, where the trial chose them by its memory
        shutil.copy2(trial / MEMORY_FILE, own / MEMORY_FILE)
    return PreparedRerun(
        folder=folder,
        study=study,
        row=row,
        spec=leader_of_rerun(spec.model_copy(update={"folder": str(own)}), row, folder),
        before=read_trial_provenance(trial),
        code=code.hash if code else None,
    )


def run_again(prepared: PreparedRerun, *, env: Mapping[str, str]) -> TrialResult:
    """The result of the rerun; paused if a signal ended it. Its checkpoint is deleted."""
    stop = StopRequest()
    stop.handle_signals()
    context = TrialContext(config=prepared.study.config, env=prepared.environment(env), stop=stop)
    try:
        with open_objective(context) as evaluate:
            return evaluate([prepared.spec])[0]
    finally:
        shutil.rmtree(Path(prepared.spec.folder) / "checkpoint", ignore_errors=True)


def new_rerun_folder(folder: StudyFolder, number: int) -> Path:
    """A new folder reruns/N-K; of two that are made at once each gets its own.

    Raises: OSError.
    """
    for index in range(1, MOST_RERUNS):
        own = folder.path / "reruns" / f"{number}-{index}"
        with suppress(FileExistsError):
            own.mkdir(parents=True)
            return own
    raise StudyFileError(
        f"{folder.path / 'reruns'}: holds {MOST_RERUNS} reruns of trial {number}; remove some"
    )


def describe_code(folder: StudyFolder, prepared: PreparedRerun, say: Callable[[str], None]) -> None:
    """Say where the trial's own code snapshot is gone, so that another one is run."""
    before = prepared.before.code if prepared.before is not None else None
    if before is not None and before != prepared.code:
        held = ", ".join(snapshot_names(folder)) or "none"
        say(f"the code snapshot {before} of trial {prepared.row.number} was removed (there: {held})")


def _recorded_spec(trial: Path) -> TrialSpec | None:
    """The spec that the trial's process read; None where it is missing or damaged."""
    try:
        return TrialSpec.model_validate_json((trial / "spec.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _snapshot(folder: StudyFolder, recorded: TrialSpec | None) -> CodeSnapshot | None:
    """The trial's own code snapshot, or the newest where that one was removed."""
    name = recorded.code if recorded is not None else None
    return find_snapshot(folder, name if name in snapshot_names(folder) else None)


def _as_recorded(recorded: TrialSpec, built: TrialSpec) -> TrialSpec:
    """The recorded spec with the paths of the study's folder as it is now: it may have been moved."""
    score = recorded.point.score.model_copy(update={"include_path": built.point.score.include_path})
    moved = ("python", "command", "code", "home", "prepared", "parent", "fetched")
    now = {name: getattr(built, name) for name in moved}
    point = recorded.point.model_copy(update={"score": score})
    return recorded.model_copy(update={**now, "point": point})
