"""Whether the study came through: its trials, their values, its cost, and what the store says of every victim."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import trial as objective
from fault import Fault
from faults import KINDS
from study import Account

from hpotune.records.trial import Attempt, TrialRow

TARGETED = ("kill_worker", "kill_rank", "kill_trial", "scancel", "timeout", "stopped")
"""Kinds whose victim is known by its trial."""
CANCELS = ("scancel", "cancelled")
"""Kinds that are a user's own cancel of a worker: a study whose last worker he cancels waits for `hpotune resume`."""
OF_JOBS = ("timeout",)
"""Kinds that strike a job's later trials too: a limit that was cut stays cut."""
FORGETFUL_S = 15.0
"""slurmctld writes a new job to its disk some seconds after it has returned its number."""
UNEXPLAINED = ("is gone from the queue", "no heartbeat")
"""What hpotune says of such a loss: it has no other information."""
ROUNDING = 1e-9
"""Relative, of a loss in float64."""
LATE_S = 30.0
"""A stale worker's last heartbeat is at most this old."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the study, ended."""

    rows: Sequence[TrialRow]
    accounts: Sequence[Account]
    faults: Sequence[Fault] = ()
    wall_s: float = 0.0
    submits: int = 0
    """How often a user had to say `hpotune submit` again."""
    resumes: int = 0
    """How often he had to say `hpotune resume`, having cancelled the last worker himself."""
    repairs: Sequence[str] = ()
    """What an administrator had to do."""
    submitted: Mapping[str, float] = field(default_factory=dict)
    """When each job of its was submitted, in Unix seconds."""
    words: str = ""
    """Why it was given up; empty where it ended by itself."""


def report(calm: Run, storm: Run, *, trials: int, faults: int, waste: float) -> dict[str, Any]:
    """Every check with what it found, the table of faults and causes, and the figures.

    `waste`: GPU-hours that the struck study may use, as a multiple of the calm one's.
    """
    finished = [row for row in storm.rows if row.state == "finished"]
    cost = {"calm": gpu_hours(calm), "storm": gpu_hours(storm)}
    ratios = {by: round(cost["storm"][by] / max(cost["calm"][by], 1e-9), 3) for by in ("slurm", "store")}
    wrong = wrong_values(calm.rows, finished)
    states = Counter(row.state for row in storm.rows)
    numbers = Counter(row.number for row in storm.rows)
    twice = [number for number, times in numbers.items() if times > 1]
    missing = sorted(set(range(trials)) - set(numbers))
    struck = [fault for fault in storm.faults if fault.struck]
    cancels = sum(fault.kind in CANCELS for fault in struck)
    unfit, strange = unfit_fates(storm), unexplained(storm)
    checks = {
        "the study ended by itself": (not storm.words, storm.words or f"{storm.wall_s:.0f} s"),
        f"at least {faults} faults struck": (len(struck) >= faults, str(len(struck))),
        f"exactly {trials} trials finished": (len(finished) == trials, str(len(finished))),
        "every value is the undisturbed one": (
            not wrong,
            "; ".join(wrong[:5]) or f"{len(finished)} compared",
        ),
        "no number stands twice": (not twice, str(twice)),
        "no number is missing": (not missing, str(missing)),
        "none is running or waiting": (not states["running"] + states["waiting"], str(dict(states))),
        f"GPU-hours are at most {waste} x the calm run's": (max(ratios.values()) <= waste, str(ratios)),
        "it was resumed only after a user's cancel": (
            storm.resumes <= cancels,
            f"{storm.resumes} times, {cancels} cancels",
        ),
        "every victim's cause is right": (not unfit, "; ".join(unfit[:8])),
        "every cause has its fault": (not strange, "; ".join(strange[:8])),
    }
    return {
        "ok": all(ok for ok, _ in checks.values()),
        "checks": {name: {"ok": ok, "found": found} for name, (ok, found) in checks.items()},
        "table": table(storm),
        "gpu_hours": cost,
        "ratio": ratios,
        "wall_s": {"calm": round(calm.wall_s, 1), "storm": round(storm.wall_s, 1)},
        "submits": storm.submits,
        "resumes": storm.resumes,
        "repairs": list(storm.repairs),
        "failed": {row.number: str(row.failure) for row in storm.rows if row.state == "failed"},
        "jobs": dict(Counter(account.state for account in storm.accounts)),
        "faults": [asdict(fault) for fault in storm.faults],
        "rows": [{**asdict(row), "failure": row.failure and row.failure.model_dump()} for row in storm.rows],
        "accounts": [asdict(account) for account in storm.accounts],
    }


def wrong_values(calm: Sequence[TrialRow], finished: Sequence[TrialRow]) -> list[str]:
    """Trials whose point or value differs from the calm run's, or from the function's where the trial is one.

    Trained models are float64: what a checkpoint interrupts differs by rounding alone.
    """
    before = {row.number: row for row in calm if row.state == "finished"}
    found = []
    for row in finished:
        params = {key[-1]: float(word) for key, word in row.params.items() if isinstance(word, float)}
        twin = before.get(row.number)
        exact = (objective.value(params),) if params.keys() == {"x", "y"} else None
        wanted = exact or (twin.values if twin else None)
        if twin and dict(twin.params) != dict(row.params):
            found.append(f"trial {row.number}: another point")
        elif wanted is None or len(wanted) != len(row.values):
            found.append(f"trial {row.number}: {row.values}, and nothing to compare with")
        elif any(
            not math.isclose(a, b, rel_tol=0 if exact else ROUNDING)
            for a, b in zip(row.values, wanted, strict=True)
        ):
            found.append(f"trial {row.number}: {row.values} instead of {wanted}")
    return found


def gpu_hours(run: Run) -> dict[str, float]:
    """GPU-hours that jobs held, by Slurm, and that attempts held, by the store; lost node time left out.

    So is the time for which a worker was stopped by SIGSTOP: nobody can use that either.
    """
    node_s = sum(a.seconds * a.gpus for row in run.rows for a in row.attempts if a.cause == "node")
    deaths = [fault for fault in run.faults if fault.kind == "node_death"]
    away_s = sum(
        account.overlap_s(fault.node or "", fault.at) for account in run.accounts for fault in deaths
    )
    stopped_s = sum(
        fault.until - fault.at for fault in run.faults if fault.kind == "stopped" and fault.struck
    )
    held_s = sum(account.gpu_s for account in run.accounts) - stopped_s
    tried_s = sum(a.seconds * a.gpus for row in run.rows for a in row.attempts)
    return {
        "slurm": round((held_s - away_s - node_s) / 3600, 4),
        "store": round((tried_s - node_s) / 3600, 4),
        "lost_node": round((away_s + node_s) / 3600, 4),
        "stopped": round(stopped_s / 3600, 4),
    }


def word(attempt: Attempt) -> str:
    """What the store says of an attempt's end."""
    return attempt.outcome if attempt.cause is None else attempt.cause


def attempts_of(run: Run) -> list[tuple[int, Attempt]]:
    return [(row.number, attempt) for row in run.rows for attempt in row.attempts]


def struck_by(fault: Fault, number: int, attempt: Attempt) -> bool:
    """Whether the fault may have ended this attempt, by target and time."""
    if attempt.outcome == "finished":
        return False
    number_aimed = fault.trial if fault.kind not in OF_JOBS else None
    aims = [(number_aimed, number), (fault.job, attempt.worker.job), (fault.node, attempt.worker.host)]
    if any(aim is not None and aim != own for aim, own in aims):
        return False
    after = (
        attempt.end if not attempt.ended_by_other else min(attempt.end + LATE_S, max(attempt.end, fault.at))
    )
    return fault.at - 1 <= after and attempt.end <= fault.until + KINDS[fault.kind].slow_s


def fate(fault: Fault, run: Run) -> Attempt | None:
    """The attempt that a targeted fault struck; None where it had ended just before."""
    ours = [
        attempt
        for number, attempt in attempts_of(run)
        if number == fault.trial and attempt.worker.job == fault.job and attempt.start <= fault.at + 0.5
    ]
    last = max(ours, key=lambda attempt: attempt.start, default=None)
    return last if last and (last.ended_by_other or last.end >= fault.at - 0.5) else None


def unfit_fates(run: Run) -> list[str]:
    """Victims of which the store says something else than what struck them."""
    found = []
    for fault in run.faults:
        if not fault.struck or fault.kind not in TARGETED or (attempt := fate(fault, run)) is None:
            continue
        others = [f for f in run.faults if f is not fault and struck_by(f, fault.trial or 0, attempt)]
        allowed = {"finished"}.union(
            KINDS[fault.kind].causes, *(KINDS[other.kind].causes for other in others)
        )
        if word(attempt) not in allowed:
            found.append(
                f"{fault.kind} of trial {fault.trial} in {fault.job}: {word(attempt)} ({attempt.message})"
            )
    return found


def forgotten(run: Run, attempt: Attempt) -> bool:
    """Whether the controller lost the attempt's job: it died before it had saved it, and slurmd ended it as defunct.

    The job was new then, and the attempt began soon.
    """
    new = run.submitted.get(attempt.worker.job.partition("_")[0], -math.inf)
    deaths = [f for f in run.faults if f.kind == "slurmctld" and f.struck and 0 <= f.at - new < FORGETFUL_S]
    is_unexplained = word(attempt) == "killed" and any(
        words in (attempt.message or "") for words in UNEXPLAINED
    )
    return is_unexplained and any(attempt.start <= f.until + LATE_S for f in deaths)


def unexplained(run: Run) -> list[str]:
    """Attempts that ended without a value although nothing struck them that would end them so."""
    found = []
    for number, attempt in attempts_of(run):
        if attempt.outcome == "finished":
            continue
        allowed = {
            w for f in run.faults if f.struck and struck_by(f, number, attempt) for w in KINDS[f.kind].causes
        }
        if word(attempt) not in allowed and not forgotten(run, attempt):
            where = f"{attempt.worker.job} on {attempt.worker.host}"
            found.append(f"trial {number} in {where}: {word(attempt)} ({attempt.message})")
    return found


def table(run: Run) -> dict[str, Mapping[str, Any]]:
    """Faults by kind, and what the store says of the attempts that they ended."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for number, attempt in attempts_of(run):
        fits = [f for f in run.faults if f.struck and struck_by(f, number, attempt)]
        fits = [f for f in fits if word(attempt) in KINDS[f.kind].causes] or fits
        if fits:  # the one with the narrowest aim, then the nearest in time
            best = min(
                fits,
                key=lambda f: (
                    -sum(x is not None for x in (f.trial, f.job, f.node)),
                    abs(f.at - attempt.end),
                ),
            )
            outcomes[best.kind][word(attempt)] += 1
        elif attempt.outcome != "finished":
            outcomes["(nothing)"][word(attempt)] += 1
    for fault in run.faults:
        if fault.struck and fault.kind in TARGETED and (attempt := fate(fault, run)) is not None:
            outcomes[fault.kind]["finished"] += attempt.outcome == "finished"
    struck = Counter(fault.kind for fault in run.faults if fault.struck)
    return {
        kind: {"faults": struck[kind], "expected": sorted(KINDS[kind].causes) if kind in KINDS else [],
               "ended": dict(+outcomes[kind])}
        for kind in [*KINDS, "(nothing)"] if struck[kind] or outcomes[kind]
    }  # fmt: skip


def as_text(summary: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'fault':<12} {'struck':>6}  {'expected of victims':<20} attempts that it ended"]
    for kind, line in summary["table"].items():
        ended = ", ".join(f"{count} {name}" for name, count in line["ended"].items()) or "none"
        lines.append(
            f"{kind:<12} {line['faults']:>6}  {' or '.join(line['expected']) or 'nothing':<20} {ended}"
        )
    hours = summary["gpu_hours"]
    lines.append(f"wall time: calm {summary['wall_s']['calm']} s, struck {summary['wall_s']['storm']} s")
    for by in ("slurm", "store"):
        held = f"calm {hours['calm'][by]:.4f}, struck {hours['storm'][by]:.4f}"
        lines.append(f"GPU-hours by {by}: {held}, ratio {summary['ratio'][by]}")
    lines.append(
        f"left out: lost node time {hours['storm']['lost_node']:.4f}, time of stopped workers "
        f"{hours['storm']['stopped']:.4f} GPU-hours; jobs: {summary['jobs']}"
    )
    lines.append(
        f"submitted again: {summary['submits']}; resumed after a user's cancel: {summary['resumes']}; "
        f"an administrator's repairs: {summary['repairs'] or 'none'}"
    )
    lines += [f"trial {number} failed: {why}" for number, why in summary["failed"].items()]
    for name, check in summary["checks"].items():
        lines.append(f"{'ok    ' if check['ok'] else 'FAILED'} {name}: {check['found']}")
    return "\n".join(lines)
