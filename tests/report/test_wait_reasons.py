"""Slurm's pending reasons, explained."""

from __future__ import annotations

import pytest

from hpotune.report.wait_reasons import explain


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


def test_unknown_reason_is_unchanged():
    assert explain("FluxCapacitor") == "FluxCapacitor"
    assert explain("") == ""


def test_limit_keeps_slurms_name():
    assert explain("QOSMaxGRESPerUser").endswith("(QOSMaxGRESPerUser)")
