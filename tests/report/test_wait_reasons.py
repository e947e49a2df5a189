"""The reasons for which jobs wait, in words."""

from __future__ import annotations

import pytest

from hpotune.report.wait_reasons import explain


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "ahead in line"),
        ("Resources", "free nodes or GPUs"),
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
        ("QOSMaxWallDurationPerJobLimit", "write a shorter resources.time"),
        ("QOSMaxCpuPerJobLimit", "one job may not have so much (CPUs)"),
        ("QOSGrpNodeLimit", "all users of this QOS"),
        ("AssocGrpGRES", "your account or project has reached the limit of GPUs"),
        ("AssocGrpBillingMinutes", "used hours"),
        ("AssocGrpBillingRunMinutes", "promised time of running jobs"),
        ("AssocGrpCPUMinutesLimit", "used hours"),
        ("AssocMaxJobsLimit", "limit of running jobs"),
        ("MaxGRESPerAccount", "all users of your account"),
        ("AssocMaxSubmitJobLimit", "queued jobs"),
    ],
)
def test_a_reason_is_explained_with_what_to_do(reason, words):
    assert words in explain(reason)


def test_an_unknown_reason_is_passed_on_and_none_is_none():
    assert explain("FluxCapacitor") == "FluxCapacitor"
    assert explain("") == ""


def test_a_limit_is_named_as_slurm_does():
    assert explain("QOSMaxGRESPerUser").endswith("(QOSMaxGRESPerUser)")
