"""Where a study and its trials come from: versions, commit, machines, content of model and data, jobs and their usage.

What was not recorded (an earlier version made the study, or nothing measures it) is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpotune.records.jobs import JobUsage
from hpotune.records.trial import TrialRow
from hpotune.reporting.views.rerun_view import RerunResult, recorded_reruns
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.origin.content import Content
from hpotune.workspace.origin.environment import Environment, environment_differences, read_environment
from hpotune.workspace.origin.trial_provenance import TrialProvenance, read_trial_provenance
from hpotune.workspace.stored_preset import preset_in


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentView:
    """An environment in which trials ran."""

    trials: tuple[int, ...]
    """The trials whose last attempt ran in it."""
    environment: Environment
    differences: Mapping[str, tuple[str, str]]
    """What differs from the study's first environment: name -> (there, here); empty for the first one itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialProvenanceView:
    """Where one trial comes from."""

    trial: int
    provenance: TrialProvenance | None
    """Of its last attempt; None: not recorded."""
    environment: Environment | None
    usage: JobUsage | None
    """Of its job, which may have run further trials; None outside Slurm, and without accounting."""
    reruns: tuple[RerunResult, ...]
    """Oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyProvenanceView:
    """Where a study comes from."""

    host: str
    """Where it was made."""
    python: str
    versions: Mapping[str, str]
    """Of the packages where it was made."""
    commit: str | None
    """Of the git repository of the study file; None: there is none."""
    changed: bool | None
    """Whether the files differed from the commit; None: not known."""
    diff: Path | None
    """The changes, secrets masked; None: none."""
    untracked: tuple[str, ...]
    own_commit: str | None
    """Of hpotune, where it ran from a git repository."""
    preset: str | None
    """The preset of its space; None: the study file gives all ranges."""
    preset_keys: tuple[str, ...]
    """The keys that came from it, dotted."""
    environments: tuple[EnvironmentView, ...]
    """By their first trial."""
    contents: Mapping[str, tuple[Content, ...]]
    """model, tokenizer, data -> what trials read; more than one where it changed, or is searched."""
    code: tuple[str, ...]
    """Hashes of the code snapshots that trials ran."""
    nodes: Mapping[str, int]
    """Host -> number of trials."""
    energy_wh: float | None
    """Of the GPUs, the sum over the last attempts of the trials; None: no trial measured it."""
    not_recorded: tuple[int, ...]
    """Started trials without a record."""


def trial_provenance(
    folder: StudyFolder, number: int, *, usage: Mapping[str, JobUsage]
) -> TrialProvenanceView:
    """The provenance of a trial. `usage`: of the study's jobs.

    Raises: StudyFileError where another user owns one of its files.
    """
    found = read_trial_provenance(folder.trusted_trial(number))
    return TrialProvenanceView(
        trial=number,
        provenance=found,
        environment=read_environment(folder.path, found.environment) if found else None,
        usage=usage.get(found.job) if found and found.job else None,
        reruns=recorded_reruns(folder, number),
    )


def study_provenance(folder: StudyFolder, rows: Sequence[TrialRow]) -> StudyProvenanceView:
    """The provenance of the study and of its trials together."""
    made, diff = folder.provenance(), folder.path / "git.diff"
    preset = preset_in(folder, folder.read_resolved().values)
    started = [row.number for row in rows if row.attempts or row.state not in ("waiting", "running")]
    read = {number: read_trial_provenance(folder.trial(number)) for number in started}
    found = {number: one for number, one in read.items() if one is not None}
    energies = [one.energy_wh for one in found.values() if one.energy_wh is not None]
    contents: dict[str, dict[str, Content]] = {}
    nodes: dict[str, int] = {}
    for one in found.values():
        nodes[one.host] = nodes.get(one.host, 0) + 1
        for name, content in one.contents.items():
            contents.setdefault(name, {})[content.identity or content.path] = content
    return StudyProvenanceView(
        host=made.host,
        python=made.python,
        versions=made.versions,
        commit=made.commit,
        changed=made.changed,
        diff=diff if diff.is_file() else None,
        untracked=made.untracked,
        own_commit=made.own_commit,
        preset=None if preset is None else preset[0],
        preset_keys=() if preset is None else preset[1],
        environments=_environments(folder, found),
        contents={name: tuple(every.values()) for name, every in contents.items()},
        code=tuple(dict.fromkeys(one.code for one in found.values() if one.code)),
        nodes=nodes,
        energy_wh=sum(energies) if energies else None,
        not_recorded=tuple(number for number in started if number not in found),
    )


def _environments(folder: StudyFolder, found: Mapping[int, TrialProvenance]) -> tuple[EnvironmentView, ...]:
    trials: dict[str, list[int]] = {}
    for number, one in found.items():
        trials.setdefault(one.environment, []).append(number)
    read = {key: read_environment(folder.path, key) for key in trials}
    known = {key: one for key, one in read.items() if one is not None}
    first = next(iter(known.values()), None)
    return tuple(
        EnvironmentView(
            trials=tuple(trials[key]),
            environment=one,
            differences={what: (before, now) for what, before, now in environment_differences(first, one)}
            if first is not None
            else {},
        )
        for key, one in known.items()
    )
