"""What a cluster allows one user: its configuration, limits on queued jobs, and a refusal in plain words."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hpotune.config.schema.resources import ResourcesConfig
from hpotune.errors import ClusterError
from hpotune.slurm.commands import error_line, run_command

_TOO_MANY = re.compile(r"\b\w*(?:Max|Grp)\w*Submit\w*")
_AS_OF = "Configuration data as of"
"""Before the controller's time, in this machine's time zone."""
_FULL = ("temporarily unable to accept job", "Resource temporarily unavailable")


class SubmitLimitReached(ClusterError):
    """So many jobs may not be queued at a time; fewer perhaps may."""

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


def named_limit(text: str) -> str:
    """The limit on queued jobs that a refusal of sbatch names; empty where it is another refusal."""
    if found := _TOO_MANY.search(text):
        return found[0]
    if "job submit limit" in text:
        return "MaxSubmitJobs"
    return "MaxJobCount" if any(said in text for said in _FULL) else ""


def refusal_error(text: str) -> ClusterError:
    """sbatch's complaint as an error with the next step."""
    limit = named_limit(text)
    if not limit:
        return ClusterError(f"Slurm refused the job: {error_line(text)}; see resources in the study file")
    if limit == "MaxJobCount":
        said = "the cluster's queue is full (MaxJobCount); `hpotune submit` again later"
    else:
        said = (
            f"{_whose(limit)} as many jobs queued as the cluster allows ({limit}); `hpotune submit` again when some "
            "have ended, or ask for fewer with budget.parallel and execution.trials_per_job"
        )
    return SubmitLimitReached(f"Slurm refused the job: {said}", limit=limit)


def _whose(limit: str) -> str:
    if "Grp" in limit or "PerAccount" in limit:
        return "your account or QOS has" if "Grp" in limit else "your account has"
    return "you have"


def cluster_config() -> Mapping[str, str]:
    """`scontrol show config` by key.

    Raises: ClusterError where it does not answer.
    """
    lines = run_command(["scontrol", "show", "config"]).splitlines()
    pairs = (line.replace(_AS_OF, f"{_AS_OF}=").partition("=") for line in lines)
    return {key.strip(): value.strip() for key, mid, value in pairs if mid}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A number of jobs that accounting allows."""

    name: str
    """As sacctmgr calls it: MaxSubmitJobs, MaxJobs, GrpSubmitJobs, MaxSubmitJobsPerUser …"""
    of: str
    """Whose: `account x`, `qos y`."""
    value: str


_ASSOC = ("MaxJobs", "MaxSubmitJobs", "GrpJobs", "GrpSubmitJobs", "MaxWall", "GrpTRES", "GrpTRESMins")
_QOS = (
    "MaxJobsPerUser", "MaxSubmitJobsPerUser", "MaxTRESPerUser", "GrpJobs", "GrpSubmitJobs", "MaxWall", "GrpTRES",
)  # fmt: skip


def user_limits(*, account: str | None, qos: str | None) -> list[Limit]:
    """What accounting limits for me, in the account and the QOS of a study, or in all of mine; empty without limits.

    Raises: ClusterError where sacctmgr does not answer.
    """
    me = getpass.getuser()
    asked = ["sacctmgr", "-n", "-P", "show", "assoc", f"user={me}", "format=Account,QOS," + ",".join(_ASSOC)]
    found, names = [], set()
    for account_, qos_, *values in _lines(asked, columns=2 + len(_ASSOC)):
        if account in (None, account_):
            names |= set(qos_.split(",")) - {""}
            found += _set(f"account {account_}", _ASSOC, values)
    asked = ["sacctmgr", "-n", "-P", "show", "qos", "format=Name," + ",".join(_QOS)]
    for name, *values in _lines(asked, columns=1 + len(_QOS)):
        if name in ({qos} if qos else names):
            found += _set(f"qos {name}", _QOS, values)
    return found


def _lines(command: list[str], *, columns: int) -> Iterator[list[str]]:
    rows = (line.split("|") for line in run_command(command).splitlines())
    return (row for row in rows if len(row) == columns)


def _set(of: str, names: tuple[str, ...], values: list[str]) -> list[Limit]:
    return [Limit(name=name, of=of, value=value) for name, value in zip(names, values, strict=True) if value]


def free_submit_slots(resources: ResourcesConfig) -> int | None:
    """How many more jobs I may queue, by accounting's limits and what of mine is queued; None where nobody says."""
    try:
        limits = user_limits(account=resources.account, qos=resources.qos)
        allowed = [int(limit.value) for limit in limits if "Submit" in limit.name and limit.value.isdigit()]
        if not allowed:
            return None
        return max(
            0,
            min(allowed)
            - len(run_command(["squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i"]).split()),
        )
    except ClusterError:
        return None
