"""Checks a study file and rehearses its trials: every mistake, every warning, and what the study would search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.checks.study_file import Checked
from hpotune.checks.study_file import check as check_file
from hpotune.config.space.presets import PRESETS, Basis
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.planning.memory_plan import memory_note, memory_plan
from hpotune.records.rehearsal_record import RehearsalResult
from hpotune.search.start_points import start_points_text

if TYPE_CHECKING:  # a check of the file alone needs neither
    from hpotune.checks.rehearsal import Limits, Rehearsal


@dataclass(frozen=True, kw_only=True, slots=True)
class PresetKey:
    """A key of the study that its preset filled in."""

    key: str
    """Dotted."""
    value: Value
    """As it would be written in a study file."""
    reason: str
    basis: Basis | None
    """What the reason rests on; None: the preset of this version does not have the key."""
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What was found in a study file."""

    mistakes: tuple[str, ...] = ()
    """One line each, with the file's line; empty: the study is valid."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """How many GPUs `auto` is, what was changed in start points, past studies that could be used."""
    trials: int = 0
    """`budget.trials`; 0 for a study with mistakes."""
    parameters: tuple[str, ...] = ()
    """Names of the searched ones."""
    starts: str = ""
    """Which points the search starts with."""
    preset: tuple[PresetKey, ...] = ()
    """What `space` filled in; empty without it."""
    rehearsal: RehearsalResult | None = None
    """None: not rehearsed."""
    rehearsed_before: bool = False
    """Whether the result is that of an earlier rehearsal of the same content."""

    @property
    def ok(self) -> bool:
        """Whether the study is valid."""
        return not self.mistakes

    def raise_mistakes(self) -> None:
        """Raises: StudyFileError with every mistake, where there is one."""
        if self.mistakes:
            raise StudyFileError(*self.mistakes)


def _preset(checked: Checked) -> tuple[PresetKey, ...]:
    """What `space` filled in. A study that was made by an earlier version may have keys without a reason here."""
    values = checked.study.source.values
    preset = PRESETS.get(str(values.get("space")))
    known = {one.key: one for one in (preset.ranges if preset else ())}
    found = []
    for key in checked.preset:
        one, (section, _, name) = known.get(key), key.partition(".")
        inner = values[section]
        assert isinstance(inner, dict), "the key was filled into it"
        found.append(
            PresetKey(
                key=key,
                value=inner[name],
                reason=one.reason if one else "",
                basis=one.basis if one else None,
                sources=one.sources if one else (),
            )
        )
    return tuple(found)


def check_study(
    target: Path, *, data_root: str | None, rehearse: bool, limits: Limits, silent: bool
) -> CheckResult:
    """The check of a study file; with `rehearse` also of this cluster, and a rehearsal of its trials.

    Raises: HpotuneError where the rehearsal cannot be run; mistakes are returned.
    """
    try:
        checked = check_file(target, data_root=data_root)
        rehearsal = None
        if rehearse and checked.study.config.model is not None:
            from hpotune.api.rehearsed_start import shown_rehearsal

            rehearsal = shown_rehearsal(checked.study, limits=limits, silent=silent, folder=checked.folder)
            rehearsal.raise_mistakes(checked.study)
    except StudyFileError as error:
        return CheckResult(mistakes=tuple(error.mistakes))
    return CheckResult(
        warnings=_warnings(checked, rehearsal, cluster=rehearse),
        notes=(*checked.notes, *checked.unused_studies()),
        trials=checked.study.config.budget.trials,
        parameters=tuple(one.name for one in checked.study.space.searched),
        starts=start_points_text(checked.starts),
        preset=_preset(checked),
        rehearsal=rehearsal.result if rehearsal is not None else None,
        rehearsed_before=rehearsal is not None and rehearsal.again,
    )


def _warnings(checked: Checked, rehearsal: Rehearsal | None, *, cluster: bool) -> tuple[str, ...]:
    """What was found that is no mistake, each once: file and rehearsal both see the form of the tasks."""
    found = [*checked.warnings, *(_cluster_warnings(checked) if cluster else [])]
    memory = memory_plan(checked.study)
    if memory is not None and (note := memory_note(memory)):
        found.append(note)
    if rehearsal is not None:
        found += [finding.message(checked.study.source) for finding in rehearsal.findings]
    return tuple(dict.fromkeys(found))


def _cluster_warnings(checked: Checked) -> list[str]:
    """What this machine's Slurm says of the study's GPUs, files that compute nodes do not see, and HyperQueue."""
    from hpotune.checks.gpus import gpu_type_findings
    from hpotune.checks.hyperqueue_server import hyperqueue_findings
    from hpotune.checks.node_local import node_local_findings

    config = checked.study.config
    found = [
        *gpu_type_findings(config),
        *node_local_findings(config, checked.folder),
        *hyperqueue_findings(config),
    ]
    return [finding.message(checked.study.source) for finding in found if finding.level != "ok"]
