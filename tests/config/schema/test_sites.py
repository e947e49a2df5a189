"""Known clusters: the sbatch directives of each, what the user wrote stays, and what is said about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from hpotune.checks.study_file import check
from hpotune.config.load import Study, build_study
from hpotune.config.paths import resolve
from hpotune.config.schema.sites import SITES, known_sites
from hpotune.errors import StudyFileError
from hpotune.records.jobs import JobSpec
from hpotune.slurm.job_script import submitit_parameters

WORKER = JobSpec(count=1, throttle=1)
OF_NODES = ("partition", "constraint", "qos", "gres", "gpus-per-node", "account", "nodes")
DIRECTIVES = {
    "alvis": {"partition": "alvis", "gpus-per-node": "A100:2", "account": "p"},
    "jean-zay": {"gres": "gpu:A100:2", "account": "p"},
    "lumi": {"partition": "small-g", "gpus-per-node": "A100:2", "account": "p"},
    "leonardo": {"partition": "boost_usr_prod", "gres": "gpu:A100:2", "account": "p"},
    "perlmutter": {"constraint": "gpu", "qos": "regular", "gpus-per-node": "A100:2", "account": "p"},
    "grid5000": {"gpus-per-node": "A100:2", "account": "p"},
    "generic": {"gpus-per-node": "A100:2", "account": "p"},
}
MakeStudy = Callable[..., Study]


def resolved(study: Study) -> Study:
    """The study as jobs read it."""
    source, mistakes = resolve(study.source, home=study.source.path.parent)
    assert mistakes == {}
    return build_study(source)


def directives(study: Study) -> dict[str, str]:
    """The options of sbatch that concern nodes, as submitit writes them into the job script."""
    text = _make_sbatch_string(command="true", folder=".", **submitit_parameters(study.config, WORKER))
    found = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    return {key: value for key, value in found.items() if key in OF_NODES and (key, value) != ("nodes", "1")}


def test_every_site_is_tested() -> None:
    assert set(DIRECTIVES) == set(known_sites())


@pytest.mark.parametrize("name", DIRECTIVES)
def test_site_gives_its_directives(make_study: MakeStudy, name: str) -> None:
    study = make_study(site=name, resources={"gpus": "A100:2", "account": "p"})
    assert directives(resolved(study)) == DIRECTIVES[name]


@pytest.mark.parametrize("name", DIRECTIVES)
def test_own_values_are_kept(make_study: MakeStudy, name: str) -> None:
    own: dict[str, Any] = {
        "gpus": 1, "partition": "mine", "constraint": "big", "qos": "fast", "gpu_option": "gres",
        "gpu_memory_gb": 96,
    }  # fmt: skip
    found = resolved(make_study(site=name, resources=own)).config.resources
    assert {key: getattr(found, key) for key in own} == own


def test_processor_jobs_get_no_gpu_nodes(make_study: MakeStudy) -> None:
    assert directives(resolved(make_study(site="lumi"))) == {}
    assert directives(resolved(make_study(site="perlmutter"))) == {"qos": "regular"}


def test_memory_is_of_default_nodes(make_study: MakeStudy) -> None:
    memory = [
        resolved(make_study(site="perlmutter", resources=given)).config.resources.gpu_memory_gb
        for given in ({"gpus": 4}, {"gpus": 4, "constraint": "gpu&hbm80g"}, {})
    ]
    assert memory == [40, None, None]


def test_check_names_values_of_site(make_study: MakeStudy) -> None:
    study = make_study(site="leonardo", resources={"gpus": 8})
    said = [one.text for one in check(study.source.path).findings if one.kind == "site"]
    assert said == [
        "from site leonardo: resources.partition: boost_usr_prod, resources.gpu_option: gres, "
        "resources.gpu_memory_gb: 64 (`hpotune sites leonardo` names the sources)",
        "resources.account: Leonardo Booster, CINECA, Italy needs a project (`saldo -b`)",
        "resources.gpus: 8: a node of Leonardo Booster, CINECA, Italy has 4; use resources.nodes for more",
    ]


@pytest.mark.parametrize(
    ("name", "resources", "says"),
    [
        ("lumi", {"gpus": 8, "account": "p", "time": "4-00:00:00"}, "may take 3-00:00:00"),
        ("alvis", {"gpus": "V100:8", "account": "p"}, "has 4; use resources.nodes"),
        ("grid5000", {}, "has no Slurm: jobs by OAR"),
    ],
)
def test_refused_jobs_are_named(make_study: MakeStudy, name: str, resources: dict, says: str) -> None:
    found = check(make_study(site=name, resources=resources).source.path).findings
    assert any(says in one.text for one in found if one.kind == "site")


def test_longer_partition_is_not_judged(make_study: MakeStudy) -> None:
    resources = {"gpus": 8, "account": "p", "time": "4-00:00:00", "partition": "other"}
    found = check(make_study(site="lumi", resources=resources).source.path).findings
    assert [one.text for one in found if one.kind == "site" and "may take" in one.text] == []


def test_unknown_site_gets_the_nearest(make_study: MakeStudy) -> None:
    with pytest.raises(StudyFileError, match=r"site='alviss' is no known site; did you mean 'alvis'"):
        make_study(site="alviss")


def test_every_fact_has_a_source() -> None:
    facts = [fact for site in SITES.values() for fact in (*site.facts, *filter(None, [site.account]))]
    assert len(facts) > 20
    assert [fact.text for fact in facts if not re.match(r"https?://[\w.-]+/", fact.source)] == []
