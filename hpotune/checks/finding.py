"""One result of `check` or `doctor`: data, from which a line, a table or JSON is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpotune.config.yaml_source import KeyPath, Source
from hpotune.errors import ClusterError, HpotuneError, StoreError

Level = Literal["ok", "note", "bad"]
"""ok: as it should be. note: worth knowing, a warning. bad: must be changed, an error."""
CLUSTER, STORE = ("slurm", "limits", "partition"), ("store",)
"""Kinds of findings that decide the exit code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found, and what to do about it."""

    kind: str
    """What was looked at: "slurm", "store", "learning rate"."""
    level: Level = "ok"
    text: str
    advice: str = ""
    """The next step; empty if there is none."""
    key: KeyPath | None = None
    """The key of the study file that it concerns; None: no single one."""

    def message(self, source: Source) -> str:
        """One line, `file:line: text; advice`."""
        location = "" if self.key is None else f"{source.location(self.key)}: "
        return f"{location}{self.text}" + (f"; {self.advice}" if self.advice else "")

    def as_json(self) -> dict[str, str]:
        """The keys of `hpotune doctor --json`."""
        return {"level": self.level, "what": self.kind, "found": self.text, "change": self.advice}


def exit_code(findings: Sequence[Finding]) -> int:
    """0, or the code of the worst finding: 4 the store, 3 the cluster, 1 anything else that is bad."""
    bad = {finding.kind for finding in findings if finding.level == "bad"}
    if bad & set(STORE):
        return StoreError.exit_code
    if bad & set(CLUSTER):
        return ClusterError.exit_code
    return HpotuneError.exit_code if bad else 0
