"""The cluster's configuration, the limits that it sets for a user, and sbatch's refusals as errors."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from hpotune.config.schema.resources import ResourcesConfig
from hpotune.errors import ClusterError
from hpotune.slurm.command_tables import number_of, query_table
from hpotune.slurm.commands import (
    UnreadableAnswer,
    error_kind,
    error_line,
    one_line,
    run_allowance,
    run_command,
)

_TOO_MANY = re.compile(r"\b\w*(?:Max|Grp)\w*Submit\w*")
_OTHER_LIMIT = re.compile(r"\b(?:Assoc|QOS)\w+")
"""A limit that is named beside sbatch's general sentence on limits (`QOSMaxWallDurationPerJobLimit`)."""
_AS_OF = "Configuration data as of"
"""Line prefix of the controller's time in `scontrol show config`, in this machine's time zone."""
_KEY = re.compile(r"[A-Za-z][\w ()*-]*")
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
    if "job submit limit" in text and not _OTHER_LIMIT.search(text):
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

    Raises: ClusterError where it does not answer, or prints something else.
    """
    allowance = run_allowance()
    if allowance is not None and "config" in allowance.facts:
        return allowance.facts["config"]
    lines = run_command(["scontrol", "show", "config"]).splitlines()
    pairs = (line.replace(_AS_OF, f"{_AS_OF}=").partition("=") for line in lines)
    found = {key.strip(): one_line(value) for key, mid, value in pairs if mid and _KEY.fullmatch(key.strip())}
    if "SLURM_VERSION" not in found and _AS_OF not in found:
        raise UnreadableAnswer("scontrol show config printed no configuration; is it Slurm's own?")
    if allowance is not None:
        allowance.facts["config"] = found
    return found


def local_cluster() -> str:
    """The name of the cluster that slurm.conf describes here, whatever SLURM_CLUSTERS says; empty where unknown."""
    with suppress(ClusterError):
        text = run_command(["env", "-u", "SLURM_CLUSTERS", "scontrol", "show", "config"])
        if found := re.search(r"^ClusterName\s*=\s*(\S+)", text, re.MULTILINE):
            return found[1]
    return ""


def limits_are_enforced() -> bool:
    """Whether accounting's limits hold here (AccountingStorageEnforce); True where that is unknown."""
    try:
        return cluster_config().get("AccountingStorageEnforce", "") not in ("none", "(null)")
    except ClusterError:
        return True


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
    header = ("Account", "QOS", *_ASSOC)
    query = ["sacctmgr", "-P", "show", "assoc", f"user={getpass.getuser()}", f"format={','.join(header)}"]
    found, names = [], set()
    for account_, qos_, *values in query_table(query, header).rows:
        if account in (None, account_):
            names |= set(qos_.split(",")) - {""}
            found += _set(f"account {account_}", _ASSOC, values)
    of_qos = ("Name", *_QOS)
    query = ["sacctmgr", "-P", "show", "qos", f"format={','.join(of_qos)}"]
    with suppress(UnreadableAnswer):
        for name, *values in query_table(query, of_qos).rows:
            if name in ({qos} if qos else names):
                found += _set(f"qos {name}", _QOS, values)
    return found


def _set(of: str, names: tuple[str, ...], values: list[str]) -> list[Limit]:
    return [Limit(name=name, of=of, value=value) for name, value in zip(names, values, strict=True) if value]


def free_submit_slots(resources: ResourcesConfig) -> int | None:
    """How many more jobs this user may queue, by accounting's limits and the queue; None where unknown."""
    try:
        limits = user_limits(account=resources.account, qos=resources.qos)
        numbers = [number_of(limit.value) for limit in limits if "Submit" in limit.name]
        allowed = [number for number in numbers if number is not None]
        if not allowed:
            return None
        queued = query_table(["squeue", "-r", "-u", getpass.getuser(), "-o", "%i"], ("JOBID",))
        return None if queued.damaged else max(0, min(allowed) - len(queued.rows))
    except ClusterError:
        return None
