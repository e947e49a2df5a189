"""What a study would come to before anything is submitted, and the plan that is kept to be held beside what came."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from hpotune.config.schema.rungs import Ladder
from hpotune.config.schema.study_config import Json, StudyConfig
from hpotune.errors import ClusterError
from hpotune.planning.estimate import Figures, Measured, Pace, figures, missing
from hpotune.planning.measured_times import actual, measured
from hpotune.planning.mode_comparison import Way, compare, recommend
from hpotune.planning.simulator import Outcome, Split, simulate
from hpotune.records.jobs import JobSpec
from hpotune.records.trial import TrialRow
from hpotune.schedule.next_jobs import next_jobs
from hpotune.slurm.commands import require_slurm
from hpotune.slurm.submit import max_array_size, sbatch_text, split_array
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder

PLAN = "plan.json"
PROBE = "probe.json"
LOCAL_TURN_S = 0.5
"""`hpotune run` looks twice a second whether a worker has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that `hpotune plan` tells."""

    config: StudyConfig
    figures: Figures
    arrays: tuple[JobSpec, ...]
    """What would be submitted first, cut as the cluster takes it."""
    array_limit: int | None
    """None: the cluster does not say."""
    sbatch: str | None
    """Of the first job; None without Slurm."""
    no_slurm: str
    """Why there is none; empty where there is."""
    ways: tuple[Way, ...]
    recommended: Way
    reason: str
    planned: Mapping[str, Json] | None
    """As it was recorded when the study was handed in; None: it never was."""
    actual: Mapping[str, Json] | None

    @property
    def own(self) -> Way:
        """As the study file says."""
        return next(way for way in self.ways if way.own)


def make_plan(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    *,
    probed: Mapping[str, float] | None = None,
    now: datetime,
) -> Plan:
    """Plans the whole study from its beginning. Submits nothing and writes nothing; the folder need not be there."""
    learned = measured(folder, rows) if rows else Measured()
    known = figures(config, learned, read_probe(folder) if probed is None else probed)
    limit, no_slurm = _cluster()
    cut = partial(split_array, at_most=limit)
    ways = tuple(compare(config, known.pace, begin=now, split=cut))
    chosen, reason = recommend(ways)
    arrays = tuple(part for spec in next_jobs(config, [], [], now=now) for part in cut(spec))
    planned = read_plan(folder)
    return Plan(
        config=config,
        figures=known,
        arrays=arrays,
        array_limit=limit,
        sbatch=_script(folder, config, arrays[0]) if arrays and not no_slurm else None,
        no_slurm=no_slurm,
        ways=ways,
        recommended=chosen,
        reason=reason,
        planned=planned,
        actual=_actual(folder, config, rows, planned, now=now),
    )


def _script(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> str:
    newest = find_snapshot(folder)
    return sbatch_text(folder, config, spec, code=newest.hash if newest else None)


def _cluster() -> tuple[int | None, str]:
    """The largest array, and why it cannot be asked for."""
    try:
        require_slurm()
    except ClusterError:
        return None, "no Slurm here (sbatch not found): no job script and no limit of arrays is shown"
    return max_array_size(), ""


def _actual(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    planned: Mapping[str, Json] | None,
    *,
    now: datetime,
) -> dict[str, Json] | None:
    if not rows:
        return None
    since = float(planned["recorded"]) if planned else None
    return actual(folder, config, rows, since=since, now=now.timestamp())


def record_plan(folder: StudyFolder, config: StudyConfig, *, local: bool = False) -> None:
    """Writes plan.json once, when the study is first handed in: what is expected of it. Later calls change nothing."""
    file = folder.path / PLAN
    if file.exists():
        return
    known = figures(config, Measured(), read_probe(folder))
    outcome = expected(config, known.pace, begin=datetime.now(), local=local)
    told = {
        "recorded": time.time(),
        "place": "local" if local else "slurm",
        **summary(config, outcome),
        "queue_s": 0.0 if local else known.queue_s.value,
        "figures": told_figures(known),
    }
    write_atomic(file, json.dumps(told, indent=1) + "\n")


def expected(
    config: StudyConfig, pace: Pace, *, begin: datetime, local: bool, cut: Split | None = None
) -> Outcome:
    """The study as its file says, on the cluster or on this machine."""
    if not local:
        return simulate(config, pace, begin=begin, split=cut)
    resources = config.resources.model_copy(update={"follow_up": "worker", "time": "1000-00:00:00"})
    here = replace(pace, queue_s=0.0, turn_s=LOCAL_TURN_S, step_s=LOCAL_TURN_S)
    return simulate(config.model_copy(update={"resources": resources}), here, begin=begin)


def summary(config: StudyConfig, outcome: Outcome) -> dict[str, Json]:
    """An outcome in the words that `actual` uses too."""
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


def told_figures(known: Figures) -> dict[str, Json]:
    """Every figure with its source, for JSON."""
    return {
        name: {"value": round(figure.value, 2), "source": figure.source}
        for name, figure in known.named().items()
    }


def as_json(made: Plan) -> dict[str, Json]:
    """The plan as one plain mapping: what `--json` prints and the table is drawn from."""
    return {
        "study": made.config.name,
        "trials": made.config.budget.trials,
        "figures": told_figures(made.figures),
        "notes": notes(made),
        "jobs": [
            {"count": spec.count, "throttle": spec.throttle, "trials_per_job": spec.trials}
            for spec in made.arrays
        ],
        "array_limit": made.array_limit,
        "sbatch": made.sbatch,
        "no_slurm": made.no_slurm,
        "modes": [
            {
                **summary(way.config, way.outcome),
                "steps": way.outcome.steps,
                "reason": way.outcome.reason,
                "own": way.own,
                "recommended": way is made.recommended,
            }
            for way in made.ways
        ],
        "recommended": {
            "mode": made.recommended.mode,
            "trials_per_job": made.recommended.trials_per_job,
            "reason": made.reason,
        },
        "planned": None if made.planned is None else dict(made.planned),
        "actual": None if made.actual is None else dict(made.actual),
    }


def notes(made: Plan) -> list[str]:
    """What is only assumed, and what the study file makes hard."""
    found, resources = [missing(made.figures)], made.config.resources
    if made.config.search.ladder is not None:
        found.append(f"rungs: each trial counts {_climbing(made.figures, made.config.search.ladder)}")
    needs = made.figures.load_s.value + made.figures.trial_s.value
    has = resources.working_s - made.figures.start_s.value
    if needs > has:
        found.append(
            f"a trial takes {needs:.0f} s and a job of {resources.time} has {max(0.0, has):.0f} s for it: it goes on "
            "from its checkpoint in the next job, where it has one; raise resources.time"
        )
    return [note for note in found if note]


def _climbing(known: Figures, ladder: Ladder) -> str:
    """How long a trial with rungs is taken to be."""
    if not known.climbs:
        return "as long as trials have taken so far, stopped ones too"
    if not ladder.halves:
        return f"as a whole run, the most that it can take: nobody can tell beforehand whom {ladder.pruner} stops"
    there = [sum(rung in rungs for rungs in known.climbs) for rung in range(len(ladder))]
    count, whole = len(known.climbs), sum(ladder.share(rungs[-1]) for rungs in known.climbs)
    return (
        f"as far as it would climb if scores came by chance: of {count} trials {_listed(there)} are scored at rung "
        f"{_listed(range(1, len(ladder) + 1))}, and train {whole / count:.0%} of {count} whole runs"
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def read_plan(folder: StudyFolder) -> dict[str, Json] | None:
    """What was recorded; None where nothing was, or it cannot be read."""
    return _read(folder.path / PLAN)


def probe_file(folder: StudyFolder) -> Path:
    """Where a probe writes: into the study's folder, or beside where it will be."""
    if folder.resolved_file.is_file():
        return folder.path / PROBE
    return folder.path.with_name(f"{folder.path.name}.{PROBE}")


def read_probe(folder: StudyFolder) -> dict[str, float]:
    """The figures of the last probe of this study; empty where there was none."""
    for file in (folder.path / PROBE, folder.path.with_name(f"{folder.path.name}.{PROBE}")):
        if told := _read(file):
            return {name: float(value) for name, value in told.items() if _number(value)}
    return {}


def _number(value: Json) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _read(file: Path) -> dict[str, Json] | None:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
