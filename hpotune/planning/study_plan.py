"""The plan of a study: jobs, time and cost in each mode; and plan.json, the plan recorded when the study starts.

Submits nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeGuard

from hpotune.config.json_file import optional_object
from hpotune.config.schema.execution import BudgetConfig, ExecutionConfig
from hpotune.config.schema.rungs import Ladder
from hpotune.config.schema.search_config import SearchConfig
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import ClusterError
from hpotune.planning.estimate import (
    STORED_KEYS,
    Estimates,
    MeasuredTimes,
    SimulationTimes,
    assumptions,
    estimates,
    stored_name,
)
from hpotune.planning.measured_times import actual_progress, measured_times
from hpotune.planning.memory_plan import MemoryPlan, memory_note
from hpotune.planning.mode_comparison import ModeResult, compare_modes, recommend
from hpotune.planning.simulator import SimulationResult, Split, simulate
from hpotune.records.jobs import JobSpec
from hpotune.records.thread_choice import read_choice
from hpotune.records.trial import TrialRow
from hpotune.schedule.next_jobs import next_jobs
from hpotune.slurm.commands import require_slurm
from hpotune.slurm.hyperqueue.task_submission import tasks_text
from hpotune.slurm.job_arrays import max_array_size, split_array
from hpotune.slurm.job_script import sbatch_text
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder

PLAN_FILE = "plan.json"
PROBE_FILE = "probe.json"
LOCAL_POLL_S = 0.5
"""`hpotune run` checks twice a second whether a worker has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """The result of `hpotune plan`."""

    config: StudyConfig
    estimates: Estimates
    arrays: tuple[JobSpec, ...]
    """The first submission, split by Slurm's MaxArraySize."""
    array_limit: int | None
    """MaxArraySize; None: not known."""
    sbatch: str | None
    """Script of the first job, for HyperQueue after the command that submits it; None without Slurm."""
    no_slurm: str
    """Why there is no script; empty where there is one."""
    mode_results: tuple[ModeResult, ...]
    recommended: ModeResult
    reason: str
    memory: MemoryPlan | None
    """The memory of a trial; None for a function or a command, or where the study's space is not known."""
    repeats: SimulationResult | None
    """The repeats of the finalists after the search; None without `search.repeats`."""
    threads: str
    """What `resources.threads: auto` stands for on this machine; empty without it."""
    planned: Mapping[str, Value] | None
    """plan.json, as recorded when the study started; None: it has not started."""
    actual: Mapping[str, Value] | None

    @property
    def own(self) -> ModeResult:
        """The mode of the study file."""
        return next(way for way in self.mode_results if way.own)


def make_plan(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    *,
    probed: Mapping[str, float] | None = None,
    memory: MemoryPlan | None = None,
    now: datetime,
) -> StudyPlan:
    """The plan of the whole study from its start. Submits and writes nothing; the folder need not exist."""
    learned = measured_times(folder, rows) if rows else MeasuredTimes()
    known = estimates(config, learned, read_probe(folder) if probed is None else probed)
    limit, no_slurm = _cluster(config)
    cut = partial(split_array, at_most=limit)
    ways = tuple(compare_modes(config, known.simulation_times, begin=now, split=cut))
    chosen, reason = recommend(ways)
    arrays = tuple(part for spec in next_jobs(config, [], [], now=now) for part in cut(spec))
    planned = read_plan(folder)
    return StudyPlan(
        config=config,
        estimates=known,
        arrays=arrays,
        array_limit=limit,
        sbatch=_script(folder, config, arrays[0]) if arrays and not no_slurm else None,
        no_slurm=no_slurm,
        mode_results=ways,
        recommended=chosen,
        reason=reason,
        memory=memory,
        repeats=simulate_repeats(config, known.simulation_times, begin=now, cut=cut),
        threads=threads_note(folder, config),
        planned=planned,
        actual=measured_progress(folder, config, rows, planned, now=now),
    )


def threads_note(folder: StudyFolder, config: StudyConfig) -> str:
    """What `resources.threads: auto` stands for; empty without it."""
    if config.resources.threads != "auto":
        return ""
    choice = read_choice(folder.path)
    return "auto: `hpotune run` measures it before its first trial" if choice is None else choice.text


def _script(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> str:
    newest = find_snapshot(folder)
    text = tasks_text if config.execution.place == "hyperqueue" else sbatch_text
    return text(folder, config, spec, code=newest.hash if newest else None)


def _cluster(config: StudyConfig) -> tuple[int | None, str]:
    """MaxArraySize, and why it is not known; HyperQueue has no such limit."""
    if config.execution.place == "hyperqueue":
        return None, ""
    try:
        require_slurm()
    except ClusterError:
        return None, "Slurm not found (no sbatch): no job script and no array limit is shown"
    return max_array_size(), ""


def measured_progress(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    planned: Mapping[str, Value] | None,
    *,
    now: datetime,
) -> dict[str, Value] | None:
    """The numbers of a recorded plan as measured since it was recorded; None without trials."""
    if not rows:
        return None
    recorded = planned.get("recorded") if planned else None
    since = float(recorded) if isinstance(recorded, (int, float)) else None
    return actual_progress(folder, config, rows, since=since, now=now.timestamp())


def record_plan(folder: StudyFolder, config: StudyConfig, *, local: bool = False) -> None:
    """Write plan.json when the study is first started or submitted; later calls change nothing."""
    file = folder.path / PLAN_FILE
    if file.exists():
        return
    known = estimates(config, MeasuredTimes(), read_probe(folder))
    outcome = simulate_study(config, known.simulation_times, begin=datetime.now(), local=local)
    again = simulate_repeats(config, known.simulation_times, begin=datetime.now(), local=local)
    stored = {
        "recorded": time.time(),
        "place": "local" if local else config.execution.place,
        **result_summary(config, outcome),
        "queue_s": 0.0 if local else known.queue_s.value,
        "figures": stored_estimates(known),
        **({"repeats": repeats_summary(again)} if again is not None else {}),
    }
    write_atomic(file, json.dumps(stored, indent=1) + "\n")


def simulate_study(
    config: StudyConfig, times: SimulationTimes, *, begin: datetime, local: bool, cut: Split | None = None
) -> SimulationResult:
    """The simulated study in the mode of its file, on the cluster or on this machine."""
    if not local:
        return simulate(config, times, begin=begin, split=cut)
    resources = config.resources.model_copy(update={"follow_up": "worker", "time": "1000-00:00:00"})
    here = replace(times, queue_s=0.0, gap_s=LOCAL_POLL_S, follow_up_s=LOCAL_POLL_S)
    return simulate(config.model_copy(update={"resources": resources}), here, begin=begin)


def simulate_repeats(
    config: StudyConfig,
    times: SimulationTimes,
    *,
    begin: datetime,
    local: bool = False,
    cut: Split | None = None,
) -> SimulationResult | None:
    """The simulated repeats of the finalists, from their first submission; None without `search.repeats`.

    They are trained whole, without rungs and without a baseline.
    """
    count = config.search.repeats * config.search.finalists
    if not count:
        return None
    budget = BudgetConfig(trials=count, parallel=min(config.budget.parallel, count))
    whole = {
        "search": SearchConfig(),
        "budget": budget,
        "execution": ExecutionConfig(),
        "checks": config.checks.model_copy(update={"baseline": False}),
    }
    return simulate_study(config.model_copy(update=whole), times, begin=begin, local=local, cut=cut)


def result_summary(config: StudyConfig, outcome: SimulationResult) -> dict[str, Value]:
    """A simulation result with the keys of plan.json, which `actual_progress` uses too."""
    return {
        "mode": config.execution.mode,
        "trials_per_job": config.execution.trials_per_job,
        "wall_s": round(outcome.wall_s, 1),
        "gpu_hours": round(outcome.gpu_hours, 4),
        "job_hours": round(outcome.held_s / 3600, 4),
        "jobs": outcome.jobs,
        "arrays": outcome.arrays,
        "idle": round(outcome.idle, 4),
        "trials": outcome.trials,
        "trials_per_hour": round(outcome.trials / max(outcome.wall_s, 1e-9) * 3600, 2),
    }


def repeats_summary(outcome: SimulationResult) -> dict[str, Value]:
    """The repeats in plan.json, with its keys."""
    return {
        "wall_s": round(outcome.wall_s, 1),
        "gpu_hours": round(outcome.gpu_hours, 4),
        "jobs": outcome.jobs,
        "trials": outcome.trials,
    }


def stored_estimates(known: Estimates) -> dict[str, Value]:
    """The estimates with their sources, as plan.json holds them."""
    return {
        stored_name(name): {"value": round(figure.value, 2), "source": figure.source}
        for name, figure in known.by_name().items()
    }


def notes(plan: StudyPlan) -> list[str]:
    """What is only assumed, and what in the study file causes problems."""
    found, resources = [assumptions(plan.estimates)], plan.config.resources
    if plan.config.search.ladder is not None:
        found.append(
            f"rungs: each trial is estimated {_rungs_note(plan.estimates, plan.config.search.ladder)}"
        )
    if plan.estimates.impossible:
        found.append(
            f"{plan.estimates.impossible} measured times are impossible and left out (an end before its start, or "
            "longer than the study is old): the clocks of the nodes differ; compare `date` on them, ask for NTP"
        )
    needs = plan.estimates.load_s.value + plan.estimates.trial_s.value
    has = resources.working_s - plan.estimates.start_s.value
    if needs > has:
        found.append(
            f"a trial takes {needs:.0f} s and a job of {resources.time} has {max(0.0, has):.0f} s for it: it continues "
            "from its checkpoint in the next job, if it has one; raise resources.time"
        )
    if plan.memory is not None:
        found.append(memory_note(plan.memory))
    return [note for note in found if note]


def _rungs_note(known: Estimates, ladder: Ladder) -> str:
    """How the length of a trial with rungs is estimated."""
    if not known.rungs_per_trial:
        return "as long as trials took so far, pruned ones included"
    if not ladder.is_halving:
        return f"as a whole run, the upper limit: which trials {ladder.pruner} prunes is not known beforehand"
    there = [sum(rung in rungs for rungs in known.rungs_per_trial) for rung in range(len(ladder))]
    count, whole = len(known.rungs_per_trial), sum(ladder.share(rungs[-1]) for rungs in known.rungs_per_trial)
    return (
        f"as with random scores: of {count} trials {_listed(there)} are scored at rung "
        f"{_listed(range(1, len(ladder) + 1))}, and train {whole / count:.0%} of {count} whole runs"
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def read_plan(folder: StudyFolder) -> dict[str, Value] | None:
    """The content of plan.json; None where it is missing or cannot be read."""
    return _read(folder.path / PLAN_FILE)


def probe_file(folder: StudyFolder) -> Path:
    """The file of a probe: in the study's folder, or beside it while it does not exist."""
    if folder.resolved_file.is_file():
        return folder.path / PROBE_FILE
    return folder.path.with_name(f"{folder.path.name}.{PROBE_FILE}")


def read_probe(folder: StudyFolder) -> dict[str, float]:
    """The values of the last probe of this study, by the names of Estimates; empty where there was none."""
    for file in (folder.path / PROBE_FILE, folder.path.with_name(f"{folder.path.name}.{PROBE_FILE}")):
        if stored := _read(file):
            return {
                STORED_KEYS.get(name, name): float(value) for name, value in stored.items() if _number(value)
            }
    return {}


def _number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _read(file: Path) -> dict[str, Value] | None:
    return optional_object(file)
