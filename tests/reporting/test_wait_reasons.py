"""Slurm's pending reasons, explained."""

from __future__ import annotations

import pytest

from hpotune.reporting.wait_reasons import explain


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "higher priority"),
        ("Resources", "nodes or GPUs are free"),
        ("Dependency", "other jobs of the study"),
        ("DependencyNeverSatisfied", "`hpotune submit`"),
        ("JobArrayTaskLimit", "budget.parallel"),
        ("BeginTime", "requeued"),
        ("PartitionTimeLimit", "resources.time"),
        ("PartitionNodeLimit", "resources.nodes"),
        ("BadConstraints", "resources.constraint"),
        ("Licenses", "licenses"),
        ("ReqNodeNotAvail", "maintenance"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", "maintenance"),
        (
            "(Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions)",
            "sinfo -R",
        ),
        ("launch failed requeued held", "scontrol release"),
        ("JobHeldUser", "scontrol release"),
        ("QOSMaxGRESPerUser", "you have, in this QOS, reached the limit of GPUs"),
        ("QOSMaxJobsPerUserLimit", "limit of running jobs"),
        ("QOSMaxWallDurationPerJobLimit", "lower resources.time"),
        ("QOSMaxCpuPerJobLimit", "one job may not use so much (CPUs)"),
        ("QOSGrpNodeLimit", "all users of this QOS"),
        ("AssocGrpGRES", "your account or project has reached the limit of GPUs"),
        ("AssocGrpBillingMinutes", "used hours"),
        ("AssocGrpBillingRunMinutes", "time reserved by running jobs"),
        ("AssocGrpCPUMinutesLimit", "used hours"),
        ("AssocMaxJobsLimit", "limit of running jobs"),
        ("MaxGRESPerAccount", "all users of your account"),
        ("AssocMaxSubmitJobLimit", "queued jobs"),
    ],
)
def test_reason_is_explained(reason, words):
    assert words in explain(reason)


NAMES = """
None Prolog Priority Dependency Resources PartitionNodeLimit PartitionTimeLimit PartitionDown PartitionInactive
JobHeldAdmin JobHeldUser BeginTime Licenses AssociationJobLimit AssociationResourceLimit AssociationTimeLimit
Reservation ReqNodeNotAvail FrontEndDown SchedDefer NodeDown BadConstraints SystemFailure JobLaunchFailure
NonZeroExitCode RaisedSignal TimeLimit InactiveLimit InvalidAccount InvalidQOS QOSUsageThreshold QOSJobLimit
QOSResourceLimit QOSTimeLimit Cleaning QOSNotAllowed AccountNotAllowed DependencyNeverSatisfied QOSGrpCpuLimit
QOSGrpCPUMinutesLimit QOSGrpCPURunMinutesLimit QOSGrpJobsLimit QOSGrpMemLimit QOSGrpNodeLimit QOSGrpSubmitJobsLimit
QOSGrpWallLimit QOSMaxCpuPerJobLimit QOSMaxCpuMinutesPerJobLimit QOSMaxNodePerJobLimit
QOSMaxWallDurationPerJobLimit QOSMaxCpuPerUserLimit QOSMaxJobsPerUserLimit QOSMaxNodePerUserLimit
QOSMaxSubmitJobPerUserLimit QOSMinCpuNotSatisfied AssocGrpCpuLimit AssocGrpCPUMinutesLimit
AssocGrpCPURunMinutesLimit AssocGrpJobsLimit AssocGrpMemLimit AssocGrpNodeLimit AssocGrpSubmitJobsLimit
AssocGrpWallLimit AssocMaxJobsLimit AssocMaxCpuPerJobLimit AssocMaxCpuMinutesPerJobLimit AssocMaxNodePerJobLimit
AssocMaxWallDurationPerJobLimit AssocMaxSubmitJobLimit JobHoldMaxRequeue JobArrayTaskLimit BurstBufferResources
BurstBufferStageIn BurstBufferOperation PowerNotAvail PowerReserved AssocMaxCpuPerNode AssocGrpMemMinutes
AssocGrpMemRunMinutes AssocMaxMemPerJob AssocMaxMemPerNode AssocMaxMemMinutesPerJob AssocGrpNodeMinutes
AssocGrpNodeRunMinutes AssocMaxNodeMinutesPerJob AssocMaxBBPerNode QOSMaxCpuPerNode QOSGrpMemoryMinutes
QOSGrpMemoryRunMinutes QOSMaxMemoryPerJob QOSMaxMemoryPerNode QOSMaxMemoryPerUser QOSMaxMemoryMinutesPerJob
QOSMinMemory QOSGrpNodeMinutes QOSGrpNodeRunMinutes QOSMaxNodeMinutesPerJob QOSMinNode MaxCpuPerAccount
MaxNodePerAccount MaxMemoryPerAccount MaxJobsPerAccount MaxSubmitJobsPerAccount PartitionConfig AccountingPolicy
FedJobLock OutOfMemory MaxMemPerLimit ReservationDeleted ReservationInvalid Constraints MpiPortsBusy
"""
REASONS = [*NAMES.split(), "DeadLine"]  # words: ignore
for _of in ("Assoc", "QOS"):
    for _what in ("Unknown", "Energy", "GRES", "License", "BB", "Billing"):
        REASONS += [f"{_of}Grp{_what}{end}" for end in ("", "Minutes", "RunMinutes")]
        REASONS += [f"{_of}Max{_what}{end}" for end in ("PerJob", "PerNode", "PerUser", "MinutesPerJob")]
        REASONS += [f"QOSMin{_what}", f"Max{_what}PerAccount", f"QOSMax{_what}RunMinsPerUser"]


@pytest.mark.parametrize("reason", sorted(set(REASONS)))
def test_every_reason_of_slurm_is_explained(reason):
    """The names of Slurm 22.05 to 24.11 (src/common/job_state_reason.c), and of the page of reason codes."""
    text = explain(reason)
    assert "man squeue" not in text
    assert text.count(" ") > 3


def test_requeued_and_held_is_no_fault():
    text = explain("job requeued in held state")
    assert "scontrol release" in text
    assert "node" not in text


def test_unknown_reason_is_shown():
    assert explain("FluxCapacitor") == "Slurm's reason is FluxCapacitor: see JOB REASON CODES in `man squeue`"
    assert explain("Job's account not permitted here") == "Job's account not permitted here"
    assert explain("") == ""


def test_limit_keeps_slurms_name():
    assert explain("QOSMaxGRESPerUser").endswith("(QOSMaxGRESPerUser)")
