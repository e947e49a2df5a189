"""A study in numbers: one plain mapping for `--json`; the tables are drawn from it too, so that both agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from hpotune.plan.budget import best_rows, stop_reason
from hpotune.plan.next import JobRow
from hpotune.report.compare import difference, tied_with
from hpotune.study.config import Json, Objective, StudyConfig
from hpotune.study.folder import StudyFolder
from hpotune.study.trial import TrialRow

LIVE = "RUNNING"


def status(
    folder: StudyFolder,
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    lost: Sequence[int],
    *,
    now: datetime,
) -> dict[str, Json]:
    """Where a study stands. `lost` are running trials whose worker is dead and has not been told yet."""
    states = Counter(row.state for row in rows)
    running = [row for row in rows if row.state == "running"]
    best = best_rows(config.score.objective, rows)
    return {
        "study": config.name,
        "folder": str(folder.path),
        "state": _state(config, rows, jobs, lost, now=now),
        "reason": stop_reason(config.budget, config.score.objective, rows, now=now),
        "trials": {
            "budget": config.budget.trials,
            "finished": states["finished"],
            "running": len(running) - len(lost),
            "lost": len(lost),
            "failed": states["failed"],
            "left": max(0, config.budget.trials - states["finished"] - len(running) + len(lost)),
        },
        "failures": dict(Counter(row.failure.cause for row in rows if row.state == "failed" and row.failure)),
        "best": [trial(config.score.objective, row) for row in best],
        "gpu_hours": round(sum(row.gpu_hours for row in rows), 4),
        "jobs": [_job(job, running) for job in jobs],
    }


def _state(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    lost: Sequence[int],
    *,
    now: datetime,
) -> str:
    """done, stopped (by a budget or failures), running, queued, or idle: trials are left and no job does them."""
    if sum(row.state == "finished" for row in rows) >= config.budget.trials:
        return "done"
    if any(row.state == "running" and row.number not in lost for row in rows):
        return "running"
    if stop_reason(config.budget, config.score.objective, rows, now=now):
        return "stopped"
    states = {job.state for job in jobs if job.live}
    return "running" if LIVE in states else "queued" if states else "idle"


def _job(job: JobRow, running: Sequence[TrialRow]) -> dict[str, Json]:
    number = next((row.number for row in running if row.worker and row.worker.job == job.id), None)
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "reason": job.reason,
        "exit_code": job.exit_code,
        "trial": number,
    }


def trial(objectives: Sequence[Objective], row: TrialRow) -> dict[str, Json]:
    """A trial as `trials --json` and `best --json` print it."""
    return {
        "number": row.number,
        "kind": row.kind,
        "state": row.state,
        "params": dict(row.params),
        "values": dict(zip((o.label for o in objectives), row.values, strict=False)),
        "stderrs": dict(zip((o.label for o in objectives), row.stderrs, strict=False)),
        "metrics": dict(row.metrics),
        "failure": row.failure.model_dump() if row.failure else None,
        "job": row.worker.job if row.worker else None,
        "host": row.worker.host if row.worker else None,
        "start": row.start,
        "end": row.end,
    }


def best(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]) -> dict[str, Json]:
    """The best trial (or the Pareto front), against the baseline and against those it cannot be told from."""
    objectives = config.score.objective
    front = best_rows(objectives, rows)
    baseline = next((row for row in rows if row.kind == "baseline" and row.state == "finished"), None)
    told: dict[str, Json] = {
        "study": config.name,
        "folder": str(folder.path),
        "objectives": [{"label": o.label, "direction": o.sense, "goal": o.goal} for o in objectives],
        "finished": sum(row.state == "finished" for row in rows),
        "budget": config.budget.trials,
        "best": trial(objectives, front[0]) if front else None,
        "front": [trial(objectives, row) for row in front] if len(objectives) > 1 else [],
        "tuned_model": config.model is not None,
        "baseline": trial(objectives, baseline) if baseline else None,
        "gain": None,
        "tied": [],
    }
    if front and baseline:
        found = difference(folder, objectives[0], 0, front[0], baseline)
        told["gain"] = {
            "value": found.gain,
            "stderr": found.stderr,
            "paired": found.paired,
            "sure": found.sure,
        }
    if front:
        told["tied"] = [row.number for row in tied_with(folder, objectives[0], front[0], rows)]
        told["adapter"] = _adapter(folder, front[0])
    return told


def _adapter(folder: StudyFolder, row: TrialRow) -> str | None:
    path = folder.trial(row.number) / "adapter"
    return str(path) if path.is_dir() else None
