"""Job arrays: the ids of their elements, their largest size (MaxArraySize), and how a longer one is split."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hpotune.errors import ClusterError
from hpotune.records.jobs import JobSpec
from hpotune.slurm.cluster_limits import cluster_config


def max_array_size() -> int | None:
    """The largest number of elements of an array here (MaxArraySize); None where unknown."""
    try:
        found = cluster_config().get("MaxArraySize", "")
    except ClusterError:
        return None
    return max(1, int(found)) if found.isdigit() else None


def split_array(spec: JobSpec, *, at_most: int | None) -> list[JobSpec]:
    """The same array as several that fit MaxArraySize, which share the throttle.

    With a throttle below their number only so many are returned: the follow-up job adds the rest.
    """
    if at_most is None or spec.count <= at_most:
        return [spec]
    parts = min(math.ceil(spec.count / at_most), spec.throttle)
    sizes = [min(at_most, spec.count - at_most * index) for index in range(parts)]
    shares = [spec.throttle // parts + (index < spec.throttle % parts) for index in range(parts)]
    return [
        replace(spec, count=size, throttle=min(size, share))
        for size, share in zip(sizes, shares, strict=True)
    ]


def expand_ids(name: str) -> Iterator[str]:
    """The ids that a name of Slurm's covers: `7`, `7_3`, or for waiting elements `7_[2-4,8-12:2%2]`."""
    job, _, elements = name.partition("_[")
    if not elements:
        yield name
        return
    for part in elements.rstrip("]").partition("%")[0].split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if bounds:
            first, last, step = bounds.groups()
            yield from (f"{job}_{n}" for n in range(int(first), int(last or first) + 1, int(step or 1)))


def array_job_id(id_: str) -> str:
    """The job number of an array element's id."""
    return id_.partition("_")[0]


def array_job_ids(ids: Sequence[str]) -> list[str]:
    """Job numbers of array elements, each once."""
    return list(dict.fromkeys(array_job_id(id_) for id_ in ids))
