"""Checks of `hpotune doctor`: Slurm's commands, limits and partitions, and whether the study fits them."""

from __future__ import annotations

import getpass
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime

from hpotune.checks.finding import Finding
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.schema.walltime import seconds
from hpotune.errors import HpotuneError, nearest
from hpotune.slurm.cluster_limits import cluster_config, user_limits
from hpotune.slurm.command_tables import number_of, query_table
from hpotune.slurm.commands import CommandMissing, limited_time, one_line, run_command
from hpotune.slurm.partitions import UNTYPED, Partition, query_partitions, spelled_here, unknown_type
from hpotune.slurm.study_jobs import cached_jobs
from hpotune.workspace.folder import StudyFolder

SLOW_S = 10.0
"""Commands that take longer are reported as slow."""
ANSWER_S = 20.0
"""Timeout of each command."""
ALL_S = 90.0
"""Seconds that all commands may take together."""
_TIME = re.compile(r"(\d{1,5}-)?\d{1,5}(:\d\d){0,2}", re.ASCII)
SKEW_S = 5.0
"""Clock differences up to this are no problem."""
_COMMANDS = {
    "sbatch": ["sbatch", "--version"],
    "srun": ["srun", "--version"],
    "squeue": ["squeue", "-u", getpass.getuser(), "-o", "%i"],
    "sacct": ["sacct", "-n", "-X", "-S", "now-1minutes"],
    "scontrol": ["scontrol", "ping"],
    "scancel": ["scancel", "--version"],
    "sinfo": ["sinfo", "-h", "-o", "%R"],
}
_WITHOUT = {
    "squeue": "job states come from scontrol, or from the files of the jobs in the study folder",
    "sacct": "why a job ended is known only for some minutes, until Slurm removes it from its queue",
    "scontrol": "the cluster's limits are not known before submitting",
    "scancel": "`hpotune cancel` cannot cancel jobs",
    "sinfo": "the partition is not checked before submitting",
}
"""Command -> what does not work without it."""


def slurm_findings(config: StudyConfig | None) -> Iterator[Finding]:
    """All findings about Slurm; one note if it is not installed."""
    if shutil.which("sbatch") is None:
        change = "`hpotune run` works here; submit from a login node"
        yield Finding(level="note", kind="slurm", text="no Slurm on this machine", advice=change)
        return
    with limited_time(ALL_S):
        yield from _of_cluster(config)


def _of_cluster(config: StudyConfig | None) -> Iterator[Finding]:
    commands = list(_commands())
    yield from commands
    if any(finding.level == "bad" for finding in commands):
        return
    settings, asked = _configuration()
    if not settings and shutil.which("scontrol") is not None:
        text = "`scontrol show config` printed no configuration: the cluster's limits are not known"
        yield Finding(level="note", kind="slurm", text=text, advice="is scontrol Slurm's own?")
    yield from _config_findings(settings, asked)
    if "limits" in settings.get("AccountingStorageEnforce", "limits"):
        yield from _my_limits(config)
    yield from _partitions(config)


def held_findings(folder: StudyFolder) -> Iterator[Finding]:
    """The study's jobs that Slurm itself holds; nothing where there are none, or Slurm does not answer."""
    if shutil.which("sbatch") is None or not folder.jobs.is_dir():
        return
    with limited_time(ANSWER_S):
        held = [job.id for job in cached_jobs(folder, []).rows if job.held_by_slurm]
    if held:
        yield Finding(
            level="bad",
            kind="slurm",
            text=f"Slurm holds job {', '.join(held)} of the study after failed launches",
            advice="see `sinfo -R` for the node; `hpotune resume` replaces them, `scontrol release JOB` starts one",
        )


def _commands() -> Iterator[Finding]:
    took: dict[str, float] = {}
    for name, command in _COMMANDS.items():
        started = time.monotonic()
        try:
            if name == "squeue":  # without its table no state of a job is known
                query_table(command, ("JOBID",), answer_s=ANSWER_S)
            else:
                run_command(command, answer_s=ANSWER_S)
            took[name] = time.monotonic() - started
        except CommandMissing:
            found = f"{name} is not installed"
            level = "bad" if name == "srun" else "note"
            change = _WITHOUT.get(name, "hpotune needs it to submit jobs: ask your centre")
            yield Finding(level="bad" if level == "bad" else "note", kind="slurm", text=found, advice=change)
        except HpotuneError as error:
            if name == "sacct":
                yield Finding(level="note", kind="slurm", text=str(error), advice=_WITHOUT[name])
            else:
                yield Finding(
                    level="bad", kind="slurm", text=str(error), advice="ask your centre, or set SLURM_CONF"
                )
    yield Finding(
        kind="slurm", text="response times: " + ", ".join(f"{name} {s:.2f} s" for name, s in took.items())
    )
    slow = [name for name, taken in took.items() if taken > SLOW_S]
    if slow:
        change = "set HPOTUNE_POLL_S=120, so that hpotune queries Slurm less often"
        yield Finding(level="note", kind="slurm", text=f"slow: {', '.join(slow)}", advice=change)


def _configuration() -> tuple[Mapping[str, str], float]:
    """The configuration that scontrol shows, and the time of the query; empty if scontrol fails."""
    try:
        asked = time.time()
        return cluster_config(), asked
    except HpotuneError:
        return {}, 0.0


def _config_findings(settings: Mapping[str, str], asked: float) -> Iterator[Finding]:
    if not settings:
        return
    yield Finding(kind="slurm", text=f"Slurm {settings.get('SLURM_VERSION', 'of unknown version')}")
    if (size := number_of(settings.get("MaxArraySize", ""))) is not None:
        yield Finding(kind="limits", text=f"job arrays up to index {size - 1}; longer ones are split")
    if "MaxJobCount" in settings:
        yield Finding(
            kind="limits", text=f"{settings['MaxJobCount']} jobs of all users at a time (MaxJobCount)"
        )
    yield _accounting(settings)
    yield from _preemption(settings)
    yield from _controller_clock(settings, asked)


def _accounting(settings: Mapping[str, str]) -> Finding:
    kind = settings.get("AccountingStorageType", "").rpartition("/")[2]
    if kind in ("", "none", "(null)"):
        return Finding(
            level="note",
            kind="slurm",
            text="no accounting: sacct has no records of ended jobs",
            advice=_WITHOUT["sacct"],
        )
    return Finding(
        kind="slurm",
        text=f"accounting by {kind}, enforces {settings.get('AccountingStorageEnforce', 'none')}",
    )


def _preemption(settings: Mapping[str, str]) -> Iterator[Finding]:
    mode, kind = settings.get("PreemptMode", "OFF"), settings.get("PreemptType", "").rpartition("/")[2]
    requeue = (
        "jobs are requeued"
        if settings.get("JobRequeue", "1") == "1"
        else "jobs are not requeued (JobRequeue=0)"
    )
    if mode.startswith("OFF") or kind in ("", "none", "(null)"):
        yield Finding(kind="slurm", text=f"no preemption; {requeue}")
        return
    found = f"preemption by {kind}, {mode}; {requeue}"
    if "preempt_send_user_signal" in settings.get("SlurmctldParameters", ""):
        yield Finding(kind="slurm", text=f"{found}; a preempted trial gets a signal and writes a checkpoint")
        return
    yield Finding(
        level="note", kind="slurm", text=f"{found}; preempted jobs get no signal (no preempt_send_user_signal)",
        advice="preempted trials lose the steps since their last checkpoint: set train.save_steps, or ask your centre "
        "to set preempt_send_user_signal",
    )  # fmt: skip


def _controller_clock(settings: Mapping[str, str], here: float) -> Iterator[Finding]:
    stamp = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", settings.get("Configuration data as of", ""))
    if stamp:
        with suppress(ValueError):  # digits that are no date
            there = datetime.fromisoformat(stamp[0]).timestamp()
            yield clock("Slurm's controller", there, here=here, blur_s=2)


def clock(whose: str, there: float, *, here: float, blur_s: float = 1) -> Finding:
    """The difference between another clock and this machine's; both in Unix seconds, accurate to `blur_s`."""
    ahead = there - here
    if abs(ahead) <= SKEW_S + blur_s:
        return Finding(
            kind="clock",
            text=f"the clocks of {whose} and this machine agree within {max(blur_s, abs(ahead)):.1f} s",
        )
    side = "ahead of" if ahead > 0 else "behind"
    change = (
        "leases and times of trials are wrong by as much: ask your centre (NTP), or raise execution.lease_s"
    )
    level = "bad" if abs(ahead) > 60 else "note"
    found = f"the clock of {whose} is {abs(ahead):.0f} s {side} this machine's"
    return Finding(level="bad" if level == "bad" else "note", kind="clock", text=found, advice=change)


def _my_limits(config: StudyConfig | None) -> Iterator[Finding]:
    resources = config.resources if config else None
    try:
        limits = user_limits(
            account=resources.account if resources else None, qos=resources.qos if resources else None
        )
    except HpotuneError:
        return
    for limit in limits:
        yield Finding(kind="limits", text=f"{limit.of}: {limit.name}={limit.value}")
    numbers = [number_of(limit.value) for limit in limits if "Submit" in limit.name]
    queued = [number for number in numbers if number is not None]
    parallel = config.budget.parallel if config else 0
    if queued and parallel + 1 > min(queued):
        yield Finding(
            level="note", kind="limits", text=f"you may queue {min(queued)} jobs, and budget.parallel is {parallel}",
            advice="fewer jobs are submitted at a time; the follow-up job submits the others",
        )  # fmt: skip


def _partitions(config: StudyConfig | None) -> Iterator[Finding]:
    try:
        found = query_partitions(answer_s=ANSWER_S)
    except HpotuneError as error:
        change = "the partition and the GPU types are not checked"
        yield Finding(level="note", kind="partition", text=str(error), advice=change)
        return
    for name, part in found.items():
        states = ", ".join(f"{count} {state}" for state, count in part.nodes.items())
        gpus = ", ".join(f"{count} {_type(kind)} per node" for kind, count in part.gpus.items()) or "no GPUs"
        default = " (default)" if part.default else ""
        limit = one_line(part.limit)
        yield Finding(kind="partition", text=f"{name}{default}: {states}; {gpus}; time limit {limit}")
    if config is not None:
        yield from _study_partition(config, found)


def _type(kind: str) -> str:
    return "GPUs" if kind == UNTYPED else kind


def _study_partition(config: StudyConfig, found: Mapping[str, Partition]) -> Iterator[Finding]:
    resources = config.resources
    named = resources.partition or next((name for name, part in found.items() if part.default), None)
    if text := unknown_type(config, found):
        yield Finding(level="bad", kind="partition", text=text, advice="write one of them")
    elif (spelled := spelled_here(config, found)) != resources.gpu_type and spelled is not None:
        text = (
            f"resources.gpus={resources.gpus!r}: the type is {spelled!r} here; jobs are submitted with that"
        )
        yield Finding(kind="partition", text=text)
    if named is None:
        change = "write one in resources.partition"
        yield Finding(
            level="bad", kind="partition", text="this cluster has no default partition", advice=change
        )
        return
    for name in named.split(","):
        part = found.get(name)
        if part is None:
            change = nearest(name, found)
            yield Finding(
                level="bad",
                kind="partition",
                text=f"resources.partition={name!r} does not exist on this cluster",
                advice=change,
            )
            continue
        limit = seconds(part.limit) if _TIME.fullmatch(part.limit) else None  # else: infinite, n/a
        if limit is not None and seconds(resources.time) > limit:
            error = f"resources.time={resources.time} exceeds the limit of {name} ({part.limit})"
            yield Finding(level="bad", kind="partition", text=error, advice=f"write at most {part.limit}")
        yield from _study_gpus(
            str(resources.gpus), resources.gpus_per_node, spelled_here(config, found), name, part
        )


def _study_gpus(asked: str, count: int, kind: str | None, name: str, part: Partition) -> Iterator[Finding]:
    """`kind`: the study's type as this cluster spells it; None: it names none, or none that is here."""
    if count and not part.gpus:
        change = "write another partition in resources.partition, or resources.gpus: 0"
        yield Finding(
            level="bad",
            kind="partition",
            text=f"resources.gpus={asked}, and {name} has no GPUs",
            advice=change,
        )
    elif count > (most := part.gpus.get(kind or "", 0) or max(part.gpus.values(), default=0)):
        change = f"write at most {most}, and use resources.nodes for more"
        yield Finding(
            level="bad",
            kind="partition",
            text=f"resources.gpus={asked}, and {name} has {most} GPUs per node",
            advice=change,
        )
