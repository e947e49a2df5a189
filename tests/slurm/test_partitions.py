"""The GPU types of a cluster's partitions, and a study's type as the cluster spells it. Fake commands."""

from __future__ import annotations

import pytest

from hpotune.errors import ClusterError
from hpotune.records.jobs import JobSpec
from hpotune.slurm.job_script import submitit_parameters
from hpotune.slurm.partitions import gpus_of, query_partitions, state_if_down, unknown_type, with_types_here
from hpotune.slurm.submit import check_submittable

HEADER = "PARTITION|TIMELIMIT|GRES|STATE|NODES|AVAIL\n"
SINFO = HEADER + (
    "main*|1-00:00:00|gpu:2080ti:4(S:0-1)|idle|3|up\nmain*|1-00:00:00|gpu:a100:4(S:0,2),shard:a100:40|mix-|1|up\n"
    "mig|infinite|gpu:1g.10gb:7|idle|1|up\nany|infinite|gpu:8|idle|1|up\ncpu|30:00|(null)|idle|2|up\n"
)


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:A100:4(S:0-1)", {"A100": 4}),
        ("gpu:a100:4(S:0,2)", {"a100": 4}),
        ("gpu:2080ti:4(S:0-1)", {"2080ti": 4}),
        ("gpu:3090:2", {"3090": 2}),
        ("gpu:1g.10gb:7(S:0)", {"1g.10gb": 7}),
        ("gpu:nvidia_a100_80gb_pcie:4", {"nvidia_a100_80gb_pcie": 4}),
        ("gpu:a100:4(S:0-1),gpu:2", {"a100": 4, "gpu": 2}),
        ("gpu:a100:2,gpu:v100:2(S:1),gpu:3090:1", {"a100": 2, "v100": 2, "3090": 1}),
        ("craynetwork:4,gpu:a100_1g.10gb:7,lustre:1", {"a100_1g.10gb": 7}),
        ("gres/gpu:h100=8,gres/shard=4", {"h100": 8}),
        ("gpu:8", {"gpu": 8}),
        ("shard:a100:8,mps:400,mygpu:3", {}),
        ("(null)", {}),
        ("", {}),
        ("gpu", {}),
        ("gpu:a100:", {}),
    ],
)
def test_gpus_of_a_node_by_type(gres, gpus):
    assert gpus_of(gres) == gpus


def test_partition_adds_its_nodes(fake):
    fake("sinfo", "Welcome | to | our | cluster | of | 4\n" + SINFO)
    found = query_partitions()
    assert list(found) == ["main", "mig", "any", "cpu"]
    assert found["main"].gpus == {"2080ti": 4, "a100": 4}
    assert (found["main"].default, found["main"].nodes) == (True, {"idle": 3, "mix": 1})


@pytest.mark.parametrize(
    ("resources", "spelled"),
    [
        ({"gpus": "A100:2"}, "a100:2"),
        ({"gpus": "2080TI:2"}, "2080ti:2"),
        ({"gpus": "1G.10GB:2", "partition": "mig"}, "1g.10gb:2"),
        ({"gpus": "a100:2", "partition": "mig,main"}, "a100:2"),
        ({"gpus": "h100:2"}, "h100:2"),
        ({"gpus": "A100:2", "partition": "any"}, "A100:2"),
        ({"gpus": 4}, 4),
        ({"gpus": "4"}, "4"),
    ],
)
@pytest.mark.parametrize("option", ["gpus-per-node", "gres"])
def test_spelling_of_the_cluster_is_submitted(fake, make_study, resources, spelled, option):
    fake("sinfo", SINFO)
    config = with_types_here(make_study(resources={**resources, "gpu_option": option}).config)
    asked = submitit_parameters(config, JobSpec(count=1, throttle=1))
    assert asked.get("gres", asked.get("gpus_per_node")) == (
        f"gpu:{spelled}" if option == "gres" else spelled
    )


def test_further_gres_keeps_the_gpus(make_study):
    resources = {"gpus": "a100:2", "gpu_option": "gres", "extra": {"gres": "lscratch:100"}}
    asked = submitit_parameters(make_study(resources=resources).config, JobSpec(count=1, throttle=1))
    assert "gres" not in asked
    assert asked["additional_parameters"]["gres"] == "gpu:a100:2,lscratch:100"


def test_spelling_stays_without_slurm(fake, make_study):
    config = make_study(resources={"gpus": "A100:2"}).config
    assert with_types_here(config) == config
    fake("sinfo", "slurm_load_partitions: Unable to contact slurm controller", code=1)
    assert with_types_here(config) == config


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"gpus": "h100:1"}, "partition main has no GPUs of type 'h100'; Slurm's types there: 2080ti, a100"),
        ({"gpus": "80:1"}, "did you mean '2080ti'? Slurm's types there"),
        ({"gpus": "a100:1", "partition": "mig"}, "partition mig has no GPUs of type 'a100'"),
        ({"gpus": "h100:1", "partition": "mig,main"}, "partitions mig, main have no GPUs of type 'h100'"),
        ({"gpus": "h100:1", "partition": "any"}, ""),
        ({"gpus": "A100:1"}, ""),
        ({"gpus": 1}, ""),
    ],
)
def test_unknown_type_names_the_types(fake, make_study, resources, words):
    fake("sinfo", SINFO)
    text = unknown_type(make_study(resources=resources).config, query_partitions())
    assert (words in text) if words else (text == "")


def test_submit_refuses_unknown_type(fake, make_study, make_study_folder, tmp_path):
    fake("sinfo", SINFO)
    for name in ("sbatch", "srun", "scontrol"):
        fake(name)
    study = make_study(resources={"gpus": "h100:1"})
    folder = make_study_folder(study, f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(ClusterError, match="Slurm's types there: 2080ti, a100"):
        check_submittable(folder, study.config, JobSpec(count=1, throttle=1))


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("down*", "down*"),
        ("DOWN", "down"),
        ("failing", "failing"),
        ("idle", ""),
        ("drained", ""),
        ("mixed-", ""),
    ],
)
def test_node_out_of_service(fake, state, found):
    """A node that drains lets its jobs end; one of another name says nothing."""
    fake("sinfo", f"NODELIST|STATE\nn1|{state}\nn1|{state}\nn10|down\n")
    assert state_if_down("n1") == found
    fake("sinfo", "slurm_load_node error: Unable to contact slurm controller", code=1)
    assert state_if_down("n1") == ""
