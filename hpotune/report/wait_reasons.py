"""Why a job waits, in plain words and with what to do: the reasons that Slurm prints."""

from __future__ import annotations

import re

_LESS = "ask for less in `resources`, or wait"
_WAIT = "nothing is wrong: it starts by itself"
_SAID = (
    (r"Priority", f"other jobs are ahead in line; {_WAIT}"),
    (r"Resources", f"it is next, and waits for free nodes or GPUs; {_WAIT}; a shorter resources.time may start sooner"),
    (r"None", "Slurm has not looked at it yet; wait a minute"),
    (r"Dependency", "it waits for other jobs of the study to end, as it should"),
    (r"DependencyNeverSatisfied", "what it waits for can never come: `hpotune cancel`, then `hpotune submit`"),
    (r"JobArrayTaskLimit", "as many of its array run as budget.parallel allows; it follows when one of them ends"),
    (r"BeginTime", "its begin time lies ahead, or it was requeued and pauses; it starts by itself then"),
    (r"Cleaning", "its last run is being cleaned up after a requeue; it goes on by itself"),
    (r"PartitionTimeLimit", "resources.time is longer than the partition allows: write less, or another partition"),
    (r"PartitionNodeLimit", "resources.nodes is more than the partition allows: write fewer, or another partition"),
    (r"PartitionDown", "the partition takes jobs, but starts none: `sinfo` says until when; or another partition"),
    (r"PartitionInactive", "the partition is switched off: name another in resources.partition"),
    (r"PartitionConfig", "the partition has no node like this: change resources.partition, gpus or mem"),
    (
        r"ReqNodeNotAvail.*",
        "a node that it needs is down, drained or reserved (maintenance?): `sinfo -R` says; a resources.time that ends "
        "before the maintenance lets it start now",
    ),
    (r"NodeDown", "a node that it needs is down: it waits for it, or `hpotune cancel` and `submit`"),
    (r"Nodes?_required_for_job_are_DOWN.*", "nodes that it needs are down, drained or reserved: `sinfo -R` says why"),
    (r"Reservation(Deleted)?", "its reservation has not begun, or is gone: look at resources.reservation"),
    (r"Licenses", f"all licenses that it asks for are in use; {_WAIT}"),
    (r"BadConstraints", "no node has what it asks for: change resources.constraint, gpus, cpus or mem"),
    (r"FrontEndDown|Prolog|BlockMaxError|SystemFailure", "a fault of the cluster: tell your centre"),
    (r"AccountNotAllowed", "your account may not use this partition: change resources.account or partition"),
    (r"QOSNotAllowed", "your QOS may not be used here: change resources.qos or partition"),
    (r"InvalidAccount", "resources.account is not known, or not yours: `sacctmgr show assoc user=$USER` lists yours"),
    (r"InvalidQOS", "resources.qos is not known, or not yours: `sacctmgr show assoc user=$USER` lists yours"),
    (r"QOS(Job|Usage|Resource|Time)Limit", f"a limit of its QOS is reached; {_LESS}"),
    (r"Association(Job|Resource|Time)Limit", f"a limit of your account is reached; {_LESS}"),
    (
        r"(job_?requeued_in_held_state|launch_failed_requeued_held)",
        "it could not be started, and is held: look at the node (`scontrol show job`), then `scontrol release` it, or "
        "`hpotune cancel` and `submit`",
    ),
    (r"JobHeldUser", "you have held it: `scontrol release JOB`"),
    (r"JobHeldAdmin", "an administrator holds it: ask your centre"),
    (r"JobLaunchFailure|RaisedSignal.*|NonZeroExitCode", "its start failed: see its log under jobs/"),
    (r"DeadLine", "it cannot end before its deadline"),
    (r"BurstBuffer\w*", f"it waits for a burst buffer; {_WAIT}"),
    (r"Federation\w*|Reconfig", f"the cluster is busy with itself; {_WAIT}"),
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
    (r"BillingRun|(CPU|GRES|Mem|Node|TRES|Billing|BB|License)Run\w*|RunMinutes", "promised time of running jobs",
     "a shorter resources.time counts less; or wait until jobs end"),
    (r"Billing|\w*Minutes", "used hours", "they are used up for now: ask for more, or wait for the next period"),
    (r"Submit", "queued jobs", "it follows when others have ended"),
    (r"Wall", "time", "write a shorter resources.time"),
    (r"CPU|Cpu", "CPUs", _LESS),
    (r"GRES|Gres|GPU", "GPUs", _LESS),
    (r"Mem", "memory", _LESS),
    (r"Node", "nodes", _LESS),
    (r"License", "licenses", _WAIT),
    (r"Energy|BB", "what the site counts", _LESS),
    (r"Jobs?", "running jobs", "it follows when one ends; a smaller budget.parallel changes nothing"),
)  # fmt: skip


def explain(reason: str) -> str:
    """A pending reason in plain words with what to do; one that is not known as Slurm wrote it; empty for none."""
    plain = re.sub(r"[\s()]+", "_", reason.strip()).strip("_")
    if not plain:
        return ""
    for pattern, words in _SAID:
        if re.fullmatch(pattern, plain, re.IGNORECASE):
            return words
    return _limit(plain) or reason


def _limit(reason: str) -> str:
    """A limit by the parts of its name: AssocGrpBillingRunMinutes, QOSMaxGRESPerUser, MaxGRESPerAccount."""
    whose = next((words for start, words in _WHOSE.items() if reason.startswith(start)), "")
    if not whose:
        return ""
    if "PerAccount" in reason:
        whose = "all users of your account together have"
    if "PerJob" in reason or "PerNode" in reason or "WallDuration" in reason:
        whose = "one job may not have"
    for pattern, what, remedy in _LIMITS:
        if re.search(pattern, reason):
            if whose == "one job may not have":
                less = remedy if what == "time" else "ask for less"
                return f"one job may not have so much ({what}): {less} ({reason})"
            return f"{whose} reached the limit of {what}: {remedy} ({reason})"
    return ""
