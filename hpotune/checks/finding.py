"""One thing that `doctor` has looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from hpotune.config.schema.section import Json
from hpotune.errors import ClusterError, HpotuneError, StoreError

Level = Literal["ok", "note", "bad"]
CLUSTER, STORE = ("slurm", "limits", "partition"), ("store",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found, and what to do about it."""

    level: Level = "ok"
    what: str
    found: str
    change: str = ""
    """What to do about it."""

    def as_json(self) -> dict[str, Json]:
        """As a plain mapping."""
        return asdict(self)


def exit_code(findings: Sequence[Finding]) -> int:
    """0, or what the worst finding means: 4 the store, 3 the cluster, 1 anything else that is bad."""
    bad = {finding.what for finding in findings if finding.level == "bad"}
    if bad & set(STORE):
        return StoreError.exit_code
    if bad & set(CLUSTER):
        return ClusterError.exit_code
    return HpotuneError.exit_code if bad else 0
