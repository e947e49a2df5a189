"""The cluster's configuration, the limits that it sets for a user, and sbatch's refusals as errors."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hpotune.config.schema.resources import ResourcesConfig
from hpotune.errors import ClusterError
from hpotune.slurm.commands import error_kind, error_line, run_command

_TOO_MANY = re.compile(r"\b\w*(?:Max|Grp)\w*Submit\w*")
_AS_OF = "Configuration data as of"
"""Line prefix of the controller's time in `scontrol show config`, in this machine's time zone."""
_FULL = ("temporarily unable to accept job", "Resource temporarily unavailable")


class SubmitLimitReached(ClusterError):
    """A limit on queued jobs is reached; fewer jobs may be accepted."""

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


def named_limit(text: str) -> str:
    """The limit on queued jobs that sbatch's refusal names; empty for any other refusal."""
    if found := _TOO_MANY.search(text):
        return found[0]
    if "job submit limit" in text:
        return "MaxSubmitJobs"
    return "MaxJobCount" if any(sentence in text for sentence in _FULL) else ""


def refusal_error(text: str) -> ClusterError:
    """sbatch's refusal as an error with the next step."""
    limit = named_limit(text)
    if not limit:
        message = f"Slurm refused the job: {error_line(text)}; check resources in the study file"
        return error_kind(text)(message)
    if limit == "MaxJobCount":
        why = "the cluster's queue is full (MaxJobCount); run `hpotune submit` again later"
    else:
        why = (
            f"{_whose(limit)} as many queued jobs as the cluster allows ({limit}); run `hpotune submit` again when "
            "some have ended, or use fewer jobs: budget.parallel, execution.trials_per_job"
        )
    return SubmitLimitReached(f"Slurm refused the job: {why}", limit=limit)


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
    """A limit that accounting sets."""

    name: str
    """As sacctmgr names it: MaxSubmitJobs, MaxJobs, GrpSubmitJobs, MaxSubmitJobsPerUser …"""
    of: str
    """What has it: `account x`, `qos y`."""
    value: str


_ASSOC = ("MaxJobs", "MaxSubmitJobs", "GrpJobs", "GrpSubmitJobs", "MaxWall", "GrpTRES", "GrpTRESMins")
_QOS = (
    "MaxJobsPerUser", "MaxSubmitJobsPerUser", "MaxTRESPerUser", "GrpJobs", "GrpSubmitJobs", "MaxWall", "GrpTRES",
)  # fmt: skip


def user_limits(*, account: str | None, qos: str | None) -> list[Limit]:
    """The limits of this user in the account and the QOS of a study, or in all of them; empty without limits.

    Raises: ClusterError where sacctmgr does not answer.
    """
    query = [
        "sacctmgr",
        "-n",
        "-P",
        "show",
        "assoc",
        f"user={getpass.getuser()}",
        "format=Account,QOS," + ",".join(_ASSOC),
    ]
    found, names = [], set()
    for account_, qos_, *values in _lines(query, columns=2 + len(_ASSOC)):
        if account in (None, account_):
            names |= set(qos_.split(",")) - {""}
            found += _set(f"account {account_}", _ASSOC, values)
    query = ["sacctmgr", "-n", "-P", "show", "qos", "format=Name," + ",".join(_QOS)]
    for name, *values in _lines(query, columns=1 + len(_QOS)):
        if name in ({qos} if qos else names):
            found += _set(f"qos {name}", _QOS, values)
    return found


def _lines(command: list[str], *, columns: int) -> Iterator[list[str]]:
    rows = (line.split("|") for line in run_command(command).splitlines())
    return (row for row in rows if len(row) == columns)


def _set(of: str, names: tuple[str, ...], values: list[str]) -> list[Limit]:
    return [Limit(name=name, of=of, value=value) for name, value in zip(names, values, strict=True) if value]


def free_submit_slots(resources: ResourcesConfig) -> int | None:
    """How many more jobs this user may queue, by accounting's limits and the queue; None where unknown."""
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
