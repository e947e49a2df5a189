"""A result of `hpotune check` or `hpotune doctor`, as data; reports and `--json` are made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpotune.config.yaml_source import KeyPath, Source
from hpotune.errors import ClusterError, HpotuneError, StoreError

Level = Literal["ok", "note", "bad"]
"""ok: no problem. note: a warning. bad: an error."""
CLUSTER, STORE = ("slurm", "limits", "partition", "hyperqueue"), ("store",)
"""Kinds of findings with an exit code of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A fact, warning or error, with advice."""

    kind: str
    """What was checked: "slurm", "store", "learning rate"."""
    level: Level = "ok"
    text: str
    advice: str = ""
    """What to change; empty if nothing."""
    key: KeyPath | None = None
    """The key of the study file that it concerns; None if it concerns no single key."""

    def message(self, source: Source) -> str:
        """One line, `file:line: text; advice`."""
        location = "" if self.key is None else f"{source.location(self.key)}: "
        return f"{location}{self.text}" + (f"; {self.advice}" if self.advice else "")

    def as_json(self) -> dict[str, str]:
        """The keys of `hpotune doctor --json`."""
        return {"level": self.level, "what": self.kind, "found": self.text, "change": self.advice}


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without errors, else 4 for an error of the store, 3 of the cluster, 1 of anything else."""
    bad = {finding.kind for finding in findings if finding.level == "bad"}
    if bad & set(STORE):
        return StoreError.exit_code
    if bad & set(CLUSTER):
        return ClusterError.exit_code
    return HpotuneError.exit_code if bad else 0
