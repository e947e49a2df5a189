"""`resources_per_trial` and `resources_per_worker`: what Kubernetes is asked for, as the section `resources`. Pure.

Source: kubeflow/training-operator 1.9, training/utils/utils.py: get_container_spec; the quantities of Kubernetes,
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from hpotune.api.katib.parameter_classes import TrainerResources
from hpotune.api.katib.study_draft import StudyDraft
from hpotune.errors import StudyFileError

_UNITS: Mapping[str, float] = {
    "": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_MIB, _GIB = 2**20, 2**30


def put_trainer_resources(draft: StudyDraft, given: TrainerResources, *, source: str) -> None:
    """Nodes and ranks a node; each worker of Katib is a node. `source`: the argument, empty for those of train().

    Raises: StudyFileError.
    """
    prefix = f"{source}." if source else ""
    for name, key in (("num_workers", "nodes"), ("num_procs_per_worker", "processes")):
        count = getattr(given, name)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise StudyFileError(f"{prefix}{name}: {count!r} needs a whole number of at least 1")
        draft.put(f"resources.{key}", count, f"{prefix}{name}")
    put_worker_resources(draft, given.resources_per_worker, source=f"{prefix}resources_per_worker")


def put_worker_resources(draft: StudyDraft, given: object, *, source: str) -> None:
    """GPUs, CPUs and memory of each node: a mapping, or an object with `limits` or `requests` such as Kubernetes has.

    Raises: StudyFileError for a resource or a quantity that is not known.
    """
    for name, quantity in _mapping(given, source).items():
        where = f"{source}[{name!r}]"
        number = _number(quantity, where)
        kind = str(name).lower().removeprefix("nvidia.com/").removeprefix("amd.com/")
        if kind == "gpu":
            draft.put("resources.gpus", _whole(number, where), where)
        elif kind.startswith("mig-"):
            draft.put("resources.gpus", f"{kind.removeprefix('mig-')}:{_whole(number, where)}", where)
        elif kind == "cpu":
            draft.put("resources.cpus", max(1, math.ceil(number)), where)
        elif kind == "memory":
            draft.put("resources.mem", slurm_memory(number), where)
        else:
            raise StudyFileError(
                f"{where}: Slurm has no such resource here; needs gpu, cpu or memory; write others as "
                "study={'resources': {'extra': {...}}}"
            )


def _mapping(given: object, source: str) -> Mapping[str, object]:
    if given is None:
        return {}
    found = given
    if not isinstance(given, Mapping):
        found = getattr(given, "limits", None) or getattr(given, "requests", None)
    if not isinstance(found, Mapping):
        raise StudyFileError(
            f"{source}: {given!r} needs a dict such as {{'gpu': 2, 'cpu': 4, 'memory': '10G'}}"
        )
    return found


def _number(quantity: object, where: str) -> float:
    found = _QUANTITY.fullmatch(str(quantity))
    if isinstance(quantity, bool) or found is None:
        raise StudyFileError(f"{where}: {quantity!r} is no quantity; needs one such as 4, 500m or 10Gi")
    return float(found[1]) * _UNITS[found[2] or ""]


def _whole(number: float, where: str) -> int:
    if number != int(number):
        raise StudyFileError(f"{where}: {number:g} needs a whole number: a node's GPUs are not shared")
    return int(number)


def slurm_memory(size: float) -> str:
    """Bytes in Slurm's units, which are powers of 1024, rounded up to MiB."""
    return f"{int(size // _GIB)}G" if size % _GIB == 0 and size else f"{math.ceil(size / _MIB)}M"
