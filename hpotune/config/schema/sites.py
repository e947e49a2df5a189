"""What is known of some clusters: facts with their sources, and the defaults that `site:` fills into a study file.

A default is never put where the study file says anything. A fact that no public page was found for is left out. Facts
were read in November 2026; the site's own pages win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpotune.config.schema.walltime import minutes
from hpotune.config.yaml_source import Value

ALVIS = "https://github.com/c3se/alvis-intro/blob/main/tutorial/1_getting_started/README.md"
JEAN_ZAY = "http://www.idris.fr/en/docs/jean-zay/slurm/slurm_partitions_gpu"
JEAN_ZAY_JOB = "https://huggingface.co/datasets/PleIAs/Post-OCR-Correction/blob/main/irene_7.07.25/run.slurm"
GRID5000 = "https://grid5000.fr/w/OAR_Syntax_simplification"
_LUMI = "https://github.com/Lumi-supercomputer/lumi-userguide/blob/main/docs/runjobs/scheduled-jobs"
LUMI, LUMI_G = f"{_LUMI}/partitions.md", f"{_LUMI}/lumig-job.md"
LUMI_GPU = "https://github.com/ECP-WarpX/WarpX/blob/development/Docs/source/install/hpc/lumi.rst"
LEONARDO = "https://docs.hpc.cineca.it/hpc/leonardo.html"
LEONARDO_JOB = "https://github.com/ECP-WarpX/WarpX/blob/development/Tools/machines/leonardo-cineca/job.sh"
LEONARDO_TMP = (
    "https://wiki.u-gov.it/confluence/pages/diffpagesbyversion.action"
    "?pageId=358197701&selectedPageVersions=15&selectedPageVersions=16"
)
PERLMUTTER = "https://docs.nersc.gov/beginner-guide/nodetypesfig"
PERLMUTTER_QOS = "https://docs.nersc.gov/jobs/policy/"
PERLMUTTER_JOB = "https://github.com/ECP-WarpX/WarpX/blob/development/Tools/machines/perlmutter-nersc/perlmutter_gpu.sbatch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One thing that is known of a site."""

    text: str
    source: str
    key: str = ""
    """The key of the section `resources` that it is a default of; empty: it is for people."""
    value: str | float | None = None
    needs_gpus: bool = True
    """Whether the default is for jobs with GPUs alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A cluster."""

    name: str
    title: str
    facts: tuple[Fact, ...] = ()
    account: Fact | None = None
    """Why a job needs `resources.account`; None: not known."""
    gpus_per_node: Mapping[str, int] | None = None
    """Type as Slurm names it -> GPUs of a node; an empty type: any. None: not known."""
    longest: tuple[str, str] | None = None
    """Longest job of the default partition in Slurm's format, and the source."""
    has_slurm: bool = True


GENERIC = Site(name="generic", title="any Slurm cluster: no defaults beside those of hpotune and Slurm")
SITES = {
    site.name: site
    for site in (
        Site(
            name="alvis",
            title="Alvis, C3SE, Sweden",
            facts=(
                Fact(text="partition of NAISS projects", source=ALVIS, key="partition", value="alvis"),
                Fact(
                    text="GPUs by type: --gpus-per-node=A40:1",
                    source=ALVIS,
                    key="gpu_option",
                    value="gpus-per-node",
                ),
                Fact(
                    text="types of GPUs: T4, V100, A40, A100, A100fat; A40 nodes have no Infiniband",
                    source=ALVIS,
                ),
                Fact(text="software by modules or Apptainer (/apps/containers)", source=ALVIS),
            ),
            account=Fact(text="a project such as NAISS2024-X-YY (`projinfo`)", source=ALVIS),
            gpus_per_node={"T4": 8, "V100": 4, "A40": 4, "A100": 4, "A100fat": 4},
            longest=("7-00:00:00", ALVIS),
        ),
        Site(
            name="jean-zay",
            title="Jean Zay, IDRIS, France",
            facts=(
                Fact(text="GPUs by --gres=gpu:N", source=JEAN_ZAY_JOB, key="gpu_option", value="gres"),
                Fact(
                    text="without a constraint V100 nodes of 16 or 32 GB; v100-16g, v100-32g choose",
                    source=JEAN_ZAY,
                ),
                Fact(text="constraint: a100 for A100 of 80 GB", source=JEAN_ZAY_JOB),
                Fact(text="a job without a time limit ends after 10 minutes", source=JEAN_ZAY),
            ),
            gpus_per_node={"": 8},
            longest=("100:00:00", JEAN_ZAY),
        ),
        Site(
            name="grid5000",
            title="Grid'5000, France",
            facts=(
                Fact(text="jobs by OAR: oarsub -l gpu=1, then `hpotune run` in the job", source=GRID5000),
            ),
            has_slurm=False,
        ),
        Site(
            name="lumi",
            title="LUMI-G, CSC, Finland",
            facts=(
                Fact(
                    text="nodes in part; standard-g: whole nodes, 2 days",
                    source=LUMI,
                    key="partition",
                    value="small-g",
                ),
                Fact(text="GPUs by --gpus-per-node", source=LUMI_G, key="gpu_option", value="gpus-per-node"),
                Fact(text="GB of a GPU: half an AMD MI250X", source=LUMI_GPU, key="gpu_memory_gb", value=64),
                Fact(text="AMD MI250X, each of which is two GPUs for Slurm and for PyTorch", source=LUMI_GPU),
                Fact(text="63 cores of a node are free for jobs", source=LUMI_G),
            ),
            account=Fact(text="a project such as project_465000000", source=LUMI_G),
            gpus_per_node={"": 8},
            longest=("3-00:00:00", LUMI),
        ),
        Site(
            name="leonardo",
            title="Leonardo Booster, CINECA, Italy",
            facts=(
                Fact(
                    text="partition of GPU nodes",
                    source=LEONARDO_JOB,
                    key="partition",
                    value="boost_usr_prod",
                ),
                Fact(text="GPUs by --gres=gpu:N", source=LEONARDO_JOB, key="gpu_option", value="gres"),
                Fact(text="GB of a GPU: an A100 of 64 GB", source=LEONARDO, key="gpu_memory_gb", value=64),
                Fact(text="32 cores of a node", source=LEONARDO),
                Fact(
                    text="node-local disk: $TMPDIR, with extra: {gres: tmpfs:SIZE} on nodes with disks",
                    source=LEONARDO_TMP,
                ),
            ),
            account=Fact(text="a project (`saldo -b`)", source=LEONARDO_JOB),
            gpus_per_node={"": 4},
        ),
        Site(
            name="perlmutter",
            title="Perlmutter, NERSC, USA",
            facts=(
                Fact(text="GPU nodes", source=PERLMUTTER_JOB, key="constraint", value="gpu"),
                Fact(
                    text="without it: the queue debug",
                    source=PERLMUTTER_QOS,
                    key="qos",
                    value="regular",
                    needs_gpus=False,
                ),
                Fact(
                    text="GPUs by --gpus-per-node",
                    source=PERLMUTTER_JOB,
                    key="gpu_option",
                    value="gpus-per-node",
                ),
                Fact(
                    text="GB of a GPU: A100; 80 with constraint: gpu&hbm80g",
                    source=PERLMUTTER,
                    key="gpu_memory_gb",
                    value=40,
                ),
            ),
            account=Fact(text="a project whose name ends in _g", source=PERLMUTTER_JOB),
            gpus_per_node={"": 4},
        ),
        GENERIC,
    )
}


def site_defaults(values: Mapping[str, Value]) -> dict[str, Fact]:
    """Keys of `resources` that the site of a study file gives, since the file does not; none for an unknown site.

    A constraint, queue or partition of the user's own may mean other GPUs: then no memory is filled in.
    """
    site, given = SITES.get(str(values.get("site"))), values.get("resources")
    asked = given if isinstance(given, dict) else {}
    has_gpus = asked.get("gpus") not in (None, 0)
    own_nodes = any(asked.get(key) is not None for key in ("partition", "constraint"))
    return {
        fact.key: fact
        for fact in (site.facts if site is not None else ())
        if fact.key
        and fact.key not in asked
        and (has_gpus or not fact.needs_gpus)
        and not (own_nodes and fact.key == "gpu_memory_gb")
    }


def with_defaults(values: dict[str, Value]) -> dict[str, Value]:
    """The values of a study file with the defaults of its site."""
    found = site_defaults(values)
    if not found:
        return values
    given = values.get("resources")
    asked = given if isinstance(given, dict) else {}
    return {**values, "resources": {**asked, **{key: fact.value for key, fact in found.items()}}}


def site_remarks(
    name: str | None,
    *,
    filled: Mapping[str, Fact],
    account: str | None,
    gpus: str,
    time: str,
    partition: str | None,
) -> list[str]:
    """What to say of a study's site: which values came from it, and what its jobs would be refused for."""
    site = SITES.get(name or "")
    if site is None:
        return []
    remarks = []
    if filled:
        said = ", ".join(f"resources.{key}: {fact.value}" for key, fact in filled.items())
        remarks.append(f"from site {site.name}: {said} (`hpotune sites {site.name}` names the sources)")
    if not site.has_slurm:
        remarks.append(f"site {site.name} has no Slurm: {site.facts[0].text}")
    if site.account is not None and account is None:
        remarks.append(f"resources.account: {site.title} needs {site.account.text}")
    kind, _, number = gpus.rpartition(":")
    most = _gpus_of(site, kind)
    if number.isdigit() and most is not None and int(number) > most:
        remarks.append(
            f"resources.gpus: {gpus}: a node of {site.title} has {most}; use resources.nodes for more"
        )
    default = next((fact.value for fact in site.facts if fact.key == "partition"), None)
    if site.longest is not None and partition in (None, default) and minutes(time) > minutes(site.longest[0]):
        remarks.append(f"resources.time: {time}: a job of {site.title} may take {site.longest[0]}")
    return remarks


def _gpus_of(site: Site, kind: str) -> int | None:
    """GPUs of a node: of this type, or the most of any."""
    if site.gpus_per_node is None:
        return None
    by_name = {name.lower(): count for name, count in site.gpus_per_node.items()}
    return by_name.get(kind.lower(), by_name.get("", max(by_name.values())))


def known_sites() -> Sequence[str]:
    """The names, in the order of the table."""
    return [*SITES]
