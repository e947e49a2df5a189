"""Slurm's pending reasons explained, with what to do. Text in, text out; never asks Slurm.

Source: https://slurm.schedmd.com/job_reason_codes.html
"""

from __future__ import annotations

import re

_LESS = "request less in `resources`, or wait"
_WAIT = "nothing to do: it starts by itself"
_EXPLAINED = (
    (r"Priority", f"other jobs have a higher priority; {_WAIT}"),
    (r"Resources", f"it is next, when nodes or GPUs are free; {_WAIT}; a shorter resources.time may start sooner"),
    (r"None", "Slurm has not considered it yet; wait a minute"),
    (r"Dependency", "it starts when other jobs of the study have ended, as intended"),
    (r"DependencyNeverSatisfied", "a job that it depends on failed: `hpotune cancel`, then `hpotune submit`"),
    (r"JobArrayTaskLimit", "as many jobs of its array run as budget.parallel allows; it starts when one ends"),
    (r"BeginTime", "its begin time is not reached, or it was requeued a moment ago; it starts by itself"),
    (r"Cleaning", "Slurm cleans up after a requeue; it starts by itself"),
    (r"PartitionTimeLimit", "resources.time is longer than the partition allows: lower it or choose another partition"),
    (r"PartitionNodeLimit", "resources.nodes is more than the partition allows: lower it or choose another partition"),
    (r"PartitionDown", "the partition accepts jobs but starts none: see `sinfo`, or choose another partition"),
    (r"PartitionInactive", "the partition is inactive: choose another resources.partition"),
    (r"PartitionConfig", "no node of the partition has these resources: change resources.partition, gpus or mem"),
    (
        r"ReqNodeNotAvail.*",
        "a node that it needs is down, drained or reserved (maintenance?): see `sinfo -R`; with a resources.time that "
        "ends before the maintenance it starts now",
    ),
    (r"NodeDown", "a node that it needs is down: wait, or `hpotune cancel` and `hpotune submit`"),
    (r"Nodes?_required_for_job_are_DOWN.*", "nodes that it needs are down, drained or reserved: see `sinfo -R`"),
    (r"Reservation", f"its reservation has not started or is full: check resources.reservation; {_WAIT}"),
    (r"Reservation(Deleted|Invalid)", "its reservation is deleted or not for this job: change resources.reservation"),
    (r"Licenses", f"all licenses that it requests are in use; {_WAIT}"),
    (r"(Bad)?Constraints", "no node has what it requests: change resources.constraint, gpus, cpus or mem"),
    (r"Prolog", f"the node is being prepared for it; {_WAIT}"),
    (r"MpiPortsBusy", f"all MPI ports of its nodes are in use; {_WAIT}"),
    (r"SchedDefer", f"Slurm starts no job at the moment of its submission; {_WAIT}"),
    (r"Power(NotAvail|Reserved)", f"the cluster has no electric power left for it; {_WAIT}"),
    (r"FrontEndDown|Block\w+|(Job)?SystemFailure", "a fault of the cluster: report it to the cluster's staff"),
    (r"AccountNotAllowed", "your account may not use this partition: change resources.account or partition"),
    (r"QOSNotAllowed", "your QOS may not be used here: change resources.qos or partition"),
    (r"InvalidAccount", "resources.account is unknown or not yours: `sacctmgr show assoc user=$USER` lists yours"),
    (r"InvalidQOS", "resources.qos is unknown or not yours: `sacctmgr show assoc user=$USER` lists yours"),
    (r"QOS(Job|Usage|Resource|Time)Limit", f"a limit of its QOS is reached: {_LESS}"),
    (r"QOSUsageThreshold", "your account has used too much for this QOS (UsageThreshold): change resources.qos"),
    (r"AccountingPolicy", f"a limit of your account or QOS is reached (`sacctmgr show assoc user=$USER`): {_LESS}"),
    (r"MaxMemPerLimit", "it requests more memory than allowed (MaxMemPerNode, MaxMemPerCPU): lower resources.mem"),
    (r"Association(Job|Resource|Time)Limit", f"a limit of your account is reached: {_LESS}"),
    (
        r"launch_failed_requeued_held",
        "it could not be started and is held: check the node (`sinfo -R`); the next follow-up or `hpotune resume` "
        "replaces it, `scontrol release JOB` starts it again",
    ),
    (
        r"job_?requeued_in_held_state|REQUEUE_HOLD|SPECIAL_EXIT|RequeueHold|SpecialExit",
        "it was requeued and is held (`scontrol requeuehold`, or a rule of the site): `scontrol release JOB`",
    ),
    (
        r"JobHoldMaxRequeue",
        "it was requeued as often as the cluster allows (MaxBatchRequeue) and is held: see `hpotune logs --job JOB`; "
        "the next follow-up or `hpotune resume` replaces it, `scontrol release JOB` starts it again",
    ),
    (r"RESV_DEL_HOLD", "its reservation is deleted, so it is held: `hpotune cancel`, change resources.reservation"),
    (r"JobHeldUser", "you hold it: `scontrol release JOB`"),
    (r"JobHeldAdmin", "an administrator holds it: ask the cluster's staff"),
    (r"JobLaunchFailure|RaisedSignal.*|NonZeroExitCode", "its start failed: see `hpotune logs --job JOB`"),
    (r"OutOfMemory", "it used more memory than it requested: raise resources.mem"),
    (r"TimeLimit|InactiveLimit", "it reached its time limit; its trials continue in another job"),
    (r"Deadline", "it cannot end before its deadline: lower resources.time"),
    (r"BurstBuffer\w*", f"it waits for a burst buffer; {_WAIT}"),
    (r"Fed(eration)?\w*", f"another cluster of the federation may take it; {_WAIT}"),
    (r"Reconfig\w*", f"the cluster reconfigures itself; {_WAIT}"),
)  # fmt: skip
_WHOSE = {
    "QOSGrp": "all users of this QOS together have",
    "AssocGrp": "your account or project has",
    "AssocMax": "you have, in this account,",
    "QOSMax": "you have, in this QOS,",
    "Max": "you have",
    "Grp": "your group has",
}
_LIMITS = (
    (r"Run(Min|$)", "time reserved by running jobs", "a shorter resources.time counts less; or wait until jobs end"),
    (r"Billing|Minutes|Mins|Grp\w*Wall", "used hours", "request more, or wait for the next period"),
    (r"Submit", "queued jobs", "it is submitted when others have ended"),
    (r"Wall", "time", "lower resources.time"),
    (r"CPU|Cpu", "CPUs", _LESS),
    (r"GRES|Gres|GPU", "GPUs", _LESS),
    (r"Mem", "memory", _LESS),
    (r"Node", "nodes", _LESS),
    (r"License", "licenses", _WAIT),
    (r"Energy|BB|TRES|Unknown", "resources", _LESS),
    (r"Jobs?", "running jobs", "it starts when one ends; a smaller budget.parallel changes nothing"),
)  # fmt: skip


def explain(reason: str) -> str:
    """A pending reason explained, with what to do; empty for an empty reason.

    A sentence of Slurm's or of hpotune's is unchanged; a word that is not known stands with where it is explained.
    """
    plain = re.sub(r"[\s()]+", "_", reason.strip()).strip("_")
    if not plain:
        return ""
    for pattern, text in _EXPLAINED:
        if re.fullmatch(pattern, plain, re.IGNORECASE):
            return text
    if found := _least(plain) or _limit(plain):
        return found
    return f"Slurm's reason is {reason}: see JOB REASON CODES in `man squeue`" if plain == reason else reason


def _least(reason: str) -> str:
    """A lower limit of a QOS, e.g. QOSMinGRES; empty for other reasons."""
    if not reason.startswith("QOSMin"):
        return ""
    what = next((what for pattern, what, _ in _LIMITS if re.search(pattern, reason)), "resources")
    return f"its QOS is for larger jobs ({what}): request more in `resources`, or change resources.qos ({reason})"


def _limit(reason: str) -> str:
    """A limit explained by the parts of its name, e.g. AssocGrpBillingRunMinutes; empty for other reasons."""
    whose = next((words for start, words in _WHOSE.items() if reason.startswith(start)), "")
    if not whose:
        return ""
    if "PerAccount" in reason:
        whose = "all users of your account together have"
    if "PerJob" in reason or "PerNode" in reason or "WallDuration" in reason:
        whose = ""
    for pattern, what, remedy in _LIMITS:
        if re.search(pattern, reason):
            if not whose:  # a limit of each job
                less = "lower resources.time" if what in ("time", "used hours") else "request less"
                return f"one job may not use so much ({what}): {less} ({reason})"
            return f"{whose} reached the limit of {what}: {remedy} ({reason})"
    return ""
