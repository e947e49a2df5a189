"""A study in numbers: one plain mapping for `--json`; the tables are drawn from it too, so that both agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from hpotune.config.schema.study_config import Json, Objective, StudyConfig
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import TrialRow
from hpotune.report.forecast import forecast
from hpotune.report.wait_reasons import explain
from hpotune.schedule.failures import bad_nodes
from hpotune.schedule.next_jobs import JobRow
from hpotune.schedule.stopping_criterion import best_rows, gpu_hours_used, stop_reason
from hpotune.workspace.folder import StudyFolder

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
    running = [row for row in rows if row.state == "running" and row.number not in lost]
    left = max(0, config.budget.trials - states["finished"] - states["stopped"] - len(running))
    paused, resting = sum(row.paused for row in rows), sum(row.resting for row in rows)
    reason = stop_reason(config, rows, now=now)
    return {
        "study": config.name,
        "folder": str(folder.path),
        "state": _state(config, rows, jobs, lost, reason=reason),
        "reason": reason.text if reason else None,
        "trials": {
            "budget": config.budget.trials,
            "finished": states["finished"],
            "running": len(running),
            "stopped": states["stopped"],
            "waiting": max(0, left - paused - resting - len(lost)),
            "paused": paused,
            "resting": resting,
            "lost": len(lost),
            "failed": states["failed"],
            "left": left,
        },
        "running_trials": [_running(row, now=now) for row in sorted(running, key=lambda r: r.start or 0.0)],
        "failures": dict(Counter(row.failure.cause for row in rows if row.state == "failed" and row.failure)),
        "interrupted": dict(
            Counter(a.cause for row in rows for a in row.attempts if a.cause and a.outcome == "paused")
        ),
        "best": [trial(config.score.objective, row) for row in best_rows(config.score.objective, rows)],
        "gpu_hours": round(gpu_hours_used(config, rows, now=now), 4),
        "outlook": next((asdict(row.outlook) for row in reversed(rows) if row.outlook), None),
        "forecast": forecast(config, rows, jobs, lost, over=reason is not None, now=now),
        "bad_nodes": bad_nodes(rows),
        "jobs": _jobs(jobs, running),
    }


def _state(
    config: StudyConfig,
    rows: Sequence[TrialRow],
    jobs: Sequence[JobRow],
    lost: Sequence[int],
    *,
    reason: StopReason | None,
) -> str:
    """done, stopped (by a budget or failures), running, queued, or idle: trials are left and no job does them."""
    if sum(row.decided for row in rows) >= config.budget.trials:
        return "done"
    if any(row.state == "running" and row.number not in lost for row in rows):
        return "running"
    if reason:
        return "stopped"
    states = {job.state for job in jobs if job.live}
    return "running" if LIVE in states else "queued" if states else "idle"


def _running(row: TrialRow, *, now: datetime) -> dict[str, Json]:
    return {
        "number": row.number,
        "host": row.worker.host if row.worker else None,
        "job": row.worker.job if row.worker else None,
        "attempt": row.tries + 1,
        "rung": row.rung,
        "seconds": round(max(0.0, now.timestamp() - row.start), 1) if row.start is not None else None,
    }


def _jobs(jobs: Sequence[JobRow], running: Sequence[TrialRow]) -> list[dict[str, Json]]:
    trials: dict[str, int] = {}
    for row in running:
        if row.worker:
            trials.setdefault(row.worker.job, row.number)
    return [_job(job, trials.get(job.id)) for job in jobs]


def _job(job: JobRow, number: int | None) -> dict[str, Json]:
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "reason": job.reason,
        "why": explain(job.reason) if job.live and job.reason else "",
        "estimate": job.estimate or None,
        "exit_code": job.exit_code,
        "trial": number,
    }


def trial(objectives: Sequence[Objective], row: TrialRow) -> dict[str, Json]:
    """A trial as `trials --json` and `best --json` print it."""
    return {
        "number": row.number,
        "kind": row.kind,
        "state": "paused" if row.paused else "resting" if row.resting else row.state,
        "params": dict(row.params),
        "values": dict(zip((o.label for o in objectives), row.values, strict=False)),
        "stderrs": dict(zip((o.label for o in objectives), row.stderrs, strict=False)),
        "metrics": dict(row.metrics),
        "failure": row.failure.model_dump() if row.failure else None,
        "attempts": max(row.tries + (row.state == "running"), bool(row.attempts) * 1),
        "rungs": [{"rung": c.rung, "budget": c.budget, "values": list(c.values)} for c in row.climbed],
        "generation": row.generation if row.lineage else None,
        "parent": row.lineage.parent if row.lineage else None,
        "retry_of": row.retry_of,
        "forgiven": row.forgiven,
        "breaks": list(row.breaks),
        "job": row.worker.job if row.worker else None,
        "host": row.worker.host if row.worker else None,
        "start": row.start,
        "end": row.end,
        "seconds": _seconds(row),
    }


def _seconds(row: TrialRow) -> float | None:
    """What all its attempts took that have ended; None before the first has."""
    if row.attempts:
        return round(row.seconds, 3)
    return round(row.end - row.start, 3) if row.end is not None and row.start is not None else None


def best(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]) -> dict[str, Json]:
    """The best trial (or the Pareto front), against the baseline and against those it cannot be told from."""
    from hpotune.report.compare import difference, tied_with  # numpy: `status` does without

    objectives = config.score.objective
    front = best_rows(objectives, rows)
    baseline = next((row for row in rows if row.kind == "baseline" and row.state == "finished"), None)
    told: dict[str, Json] = {
        "study": config.name,
        "folder": str(folder.path),
        "objectives": [{"label": o.label, "direction": o.sense, "goal": o.goal} for o in objectives],
        "finished": sum(row.state == "finished" for row in rows),
        "stopped": sum(row.state == "stopped" for row in rows),
        "budget": config.budget.trials,
        "best": trial(objectives, front[0]) if front else None,
        "front": [trial(objectives, row) for row in front] if len(objectives) > 1 else [],
        "tuned_model": config.model is not None,
        "baseline": trial(objectives, baseline) if baseline else None,
        "gain": None,
        "tied": [],
        "left_out": {row.number: list(row.breaks) for row in rows if row.state == "finished" and row.breaks},
        "unmeasured": _unmeasured(config, rows),
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


def _unmeasured(config: StudyConfig, rows: Sequence[TrialRow]) -> dict[str, list[int]]:
    """Limits whose number some finished trials do not have, and these: nobody can say whether they keep them."""
    told = {"seconds", *(objective.label for objective in config.score.objective)}
    names = [limit.metric for limit in config.score.constraints if limit.metric not in told]
    tried = [row for row in rows if row.state == "finished" and row.kind == "trial"]
    lacking = {
        name: [row.number for row in tried if not isinstance(row.metrics.get(name), (int, float))]
        for name in names
    }
    return {name: numbers for name, numbers in lacking.items() if numbers}


def _adapter(folder: StudyFolder, row: TrialRow) -> str | None:
    path = folder.trial(row.number) / "adapter"
    return str(path) if path.is_dir() else None
