"""The partitions of this cluster and the types of their GPUs, by sinfo; a study's GPU type as this cluster spells it.

Slurm compares types by case: `A100` is refused where the nodes have `a100`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.slurm.command_tables import number_of, query_table
from hpotune.slurm.commands import TIMEOUT_S, one_line, run_command

_COLUMNS = ("PARTITION", "TIMELIMIT", "GRES", "STATE", "NODES", "AVAIL")
_GPU = re.compile(r"(?:^|,)(?:gres/)?gpu(?::([^:,()=\s]+))?[:=](\d{1,6})(?=[,(]|$)", re.ASCII)
_SOCKETS = re.compile(r"\([^()]*\)")
_NAME = re.compile(r"[\w.@+-]{1,64}\*?")
_OUT_OF_SERVICE = re.compile(r"down|fail|powering_down|power_down")
NODE_S = 10.0
"""Seconds that sinfo may take for one node: a worker asks while it is being ended."""
UNTYPED = "gpu"
"""The key of GPUs without a type."""


@dataclass(slots=True)
class Partition:
    """A partition, from the output of sinfo."""

    limit: str
    """Time limit as Slurm writes it: `7-00:00:00`, `infinite`."""
    default: bool = False
    nodes: Counter[str] = field(default_factory=Counter)
    """How many nodes are in each state."""
    gpus: dict[str, int] = field(default_factory=dict)
    """GPUs per node by type; UNTYPED for GPUs without a type."""


def query_partitions(*, answer_s: float = TIMEOUT_S) -> dict[str, Partition]:
    """The partitions of this cluster by name.

    Raises: ClusterError where sinfo does not answer, or prints something else.
    """
    command = ["sinfo", "-o", "%P|%l|%G|%T|%D|%a"]
    found: dict[str, Partition] = {}
    for name, limit, gres, state, count, up in query_table(
        command, _COLUMNS, is_row=_is_partition, answer_s=answer_s
    ).rows:
        part = found.setdefault(name.rstrip("*"), Partition(limit=limit, default=name.endswith("*")))
        state = re.sub(r"\W+$", "", one_line(state)) or "unknown"
        part.nodes[state if up == "up" else f"{state} ({one_line(up)})"] += int(count)
        for kind, number in gpus_of(gres).items():
            part.gpus[kind] = max(number, part.gpus.get(kind, 0))
    return found


def nodes_of(partition: str | None) -> set[str]:
    """The names of a partition's nodes; None: of the default one. Empty where sinfo does not answer.

    `partition` may hold several names, as for sbatch.
    """
    try:
        table = query_table(["sinfo", "-N", "-o", "%N|%P"], ("NODELIST", "PARTITION"))
    except ClusterError:
        return set()
    wanted = set(partition.split(",")) if partition else None
    return {
        node
        for node, name in table.rows
        if (name.endswith("*") if wanted is None else name.rstrip("*") in wanted)
    }


def state_if_down(host: str) -> str:
    """The state of a node that Slurm has taken out of service with its jobs; empty for others, or without an answer."""
    try:
        rows = query_table(
            ["sinfo", "-N", "-n", host, "-o", "%N|%T"], ("NODELIST", "STATE"), answer_s=NODE_S
        ).rows
    except ClusterError:
        return ""
    states = {state.lower() for name, state in rows if name == host}
    return next((state for state in sorted(states) if _OUT_OF_SERVICE.match(state)), "")


def host_names(text: str) -> set[str]:
    """The hosts that a Slurm node list names: `n[1-3],m7`."""
    if "[" not in text:
        return set(text.split(",")) - {""}
    try:
        return set(run_command(["scontrol", "show", "hostnames", text]).split())
    except ClusterError:
        return set()


def _is_partition(cells: tuple[str, ...]) -> bool:
    return bool(_NAME.fullmatch(cells[0])) and number_of(cells[4]) is not None and len(cells[1]) < 40


def gpus_of(gres: str) -> dict[str, int]:
    """GPUs by type in a GRES text: `gpu:a100:4(S:0-1),gpu:2,shard:8` gives {a100: 4, gpu: 2}."""
    found = _GPU.findall(_SOCKETS.sub("", gres))
    return {kind or UNTYPED: int(count) for kind, count in found}


def partitions_of(config: StudyConfig, found: Mapping[str, Partition]) -> list[str]:
    """Names of the partitions that a study may use: those it names, else the default one, as far as they exist."""
    if named := config.resources.partition:
        return [name for name in named.split(",") if name in found]
    return [name for name, part in found.items() if part.default]


def gpu_types(config: StudyConfig, found: Mapping[str, Partition]) -> list[str]:
    """The types of GPUs in the partitions that a study may use, each once; empty where its GPUs have none."""
    types = [kind for name in partitions_of(config, found) for kind in found[name].gpus if kind != UNTYPED]
    return sorted(set(types))


def spelled_here(config: StudyConfig, found: Mapping[str, Partition]) -> str | None:
    """The study's GPU type as this cluster spells it; None where it names none, or none here is equal but for case."""
    asked = config.resources.gpu_type
    types = gpu_types(config, found)
    if asked is None or asked in types:
        return asked
    alike = [kind for kind in types if kind.lower() == asked.lower()]
    return alike[0] if len(alike) == 1 else None


def with_types_here(config: StudyConfig) -> StudyConfig:
    """The study with the cluster's own spelling of its GPU type; unchanged where sinfo does not tell."""
    if config.resources.gpu_type is None:
        return config
    try:
        return with_types_of(config, query_partitions())
    except ClusterError:
        return config


def with_types_of(config: StudyConfig, found: Mapping[str, Partition]) -> StudyConfig:
    """The study with the spelling of its GPU type in these partitions."""
    resources, spelled = config.resources, spelled_here(config, found)
    if spelled in (None, resources.gpu_type):
        return config
    named = resources.model_copy(update={"gpus": f"{spelled}:{resources.gpus_per_node}"})
    return config.model_copy(update={"resources": named})


def unknown_type(config: StudyConfig, found: Mapping[str, Partition]) -> str:
    """Why no partition of the study has its GPU type, with the types that are there; empty otherwise."""
    asked, names = config.resources.gpu_type, partitions_of(config, found)
    types = gpu_types(config, found)
    if asked is None or not names or not types or spelled_here(config, found) is not None:
        return ""
    part_of = [kind for kind in types if asked.lower() in kind.lower()]
    hint = f"did you mean {part_of[0]!r}? " if len(part_of) == 1 else ""
    where = f"partition {names[0]} has" if len(names) == 1 else f"partitions {', '.join(names)} have"
    return (
        f"resources.gpus={config.resources.gpus!r}: {where} no GPUs of type {asked!r}; {hint}"
        f"Slurm's types there: {', '.join(types)}"
    )
