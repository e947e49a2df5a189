"""Job arrays: the ids of their elements, their largest size (MaxArraySize), and how a longer one is split."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hpotune.errors import ClusterError
from hpotune.records.jobs import JobSpec
from hpotune.slurm.cluster_limits import cluster_config
from hpotune.slurm.command_tables import number_of

MAX_ELEMENTS = 100_000
"""Elements of an array that are looked at."""


def max_array_size() -> int | None:
    """The largest number of elements of an array here (MaxArraySize); None where unknown."""
    try:
        found = number_of(cluster_config().get("MaxArraySize", ""))
    except ClusterError:
        return None
    return max(1, found) if found is not None else None


def split_array(spec: JobSpec, *, at_most: int | None, spare: int = 0) -> list[JobSpec]:
    """The same array as several that fit MaxArraySize, which share the throttle.

    With a throttle below their number only so many are returned: the follow-up job adds the rest. `spare`: how many
    more elements an array of that length must still be allowed, so that Slurm can be asked for their room.
    """
    if at_most is None or spec.count + spare <= at_most:
        return [spec]
    size = max(1, at_most - spare)
    parts = min(math.ceil(spec.count / size), spec.throttle)
    sizes = [min(size, spec.count - size * index) for index in range(parts)]
    shares = [spec.throttle // parts + (index < spec.throttle % parts) for index in range(parts)]
    return [
        replace(spec, count=count, throttle=min(count, share))
        for count, share in zip(sizes, shares, strict=True)
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
            end = min(int(last or first), int(first) + MAX_ELEMENTS)  # the text is another program's
            yield from (f"{job}_{n}" for n in range(int(first), end + 1, max(1, int(step or 1))))


def array_job_id(id_: str) -> str:
    """The job number of an array element's id."""
    return id_.partition("_")[0]


def array_job_ids(ids: Sequence[str]) -> list[str]:
    """Job numbers of array elements, each once."""
    return list(dict.fromkeys(array_job_id(id_) for id_ in ids))
