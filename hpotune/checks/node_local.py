"""Files of a study that other nodes do not see: in this machine's memory, or in a temporary folder of each node.

Only for studies that go to Slurm. A local disk that this machine exports cannot be known from one that it does not, so
only temporary folders and memory count.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpotune.checks.finding import Finding
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import KeyPath
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.mounts import mount

_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
_OWN_DISK = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "f2fs")
_OF_NODE = ("/tmp", "/var/tmp", "/dev/shm", "/run")
_VARIABLES = ("TMPDIR", "SLURM_TMPDIR", "LOCAL_SCRATCH", "LOCALSCRATCH", "JOB_TMPDIR")
"""Variables in which sites name a folder of the node's own."""
_ASKED = ("partition", "account", "qos", "constraint", "reservation")
"""Keys of `resources` that only a job of Slurm has."""


def node_local_findings(
    config: StudyConfig, folder: StudyFolder, *, env: Mapping[str, str] = os.environ
) -> Iterator[Finding]:
    """A warning for each file of a study that a compute node needs and that lies where only this machine sees it.

    Nothing where Slurm is not installed, or the study asks for nothing of Slurm's.
    """
    for_slurm = any(getattr(config.resources, key) is not None for key in _ASKED)
    if shutil.which("sbatch") is None or not for_slurm:
        return
    for what, path, key in _needed(config, folder, env):
        if why := node_local_reason(path, env=env):
            yield Finding(
                kind="disk", level="note", key=key, text=f"{what} {path} is {why}",
                advice="compute nodes do not see it: put it on shared storage",
            )  # fmt: skip


def node_local_reason(path: Path, *, env: Mapping[str, str]) -> str:
    """Why other nodes do not see a path; empty where they may."""
    mounted = mount(path)
    if mounted.kind in _MEMORY:
        return f"in this machine's memory ({mounted.kind} on {mounted.point})"
    real = path.absolute().resolve()
    own = [*_OF_NODE, *(env[name] for name in _VARIABLES if env.get(name, "").startswith("/"))]
    inside = next((name for name in own if real.is_relative_to(Path(name).resolve())), None)
    if inside is None or mounted.kind not in _OWN_DISK:
        return ""
    return f"in {inside}, which each node has for itself"


def _needed(
    config: StudyConfig, folder: StudyFolder, env: Mapping[str, str]
) -> Iterator[tuple[str, Path, KeyPath | None]]:
    """What jobs read or write: its name, its path, and the key that sets it."""
    yield "the study's folder", folder.path, None
    store = config.store.partition(":///")[2]
    if config.store.startswith(("sqlite", "journal")) and store:
        yield "the store", Path(store), ("store",)
    venv = config.env.venv
    if venv is not None and config.env.container is None:
        yield "the environment", Path(sys.prefix if venv == "auto" else venv), ("env", "venv")
    named: list[tuple[str, str | None, KeyPath]] = [("data_root", config.data_root, ("data_root",))]
    named += [("the model", config.model.path, ("model", "path"))] if config.model else []
    for source, one in config.data.sources.items() if config.data else ():
        key: KeyPath = ("data", "mixture", source, "path") if source else ("data", "path")
        named.append(("the data", one.path, key))
    for what, text, key in named:
        if text is not None and os.path.isabs(text):
            yield what, Path(text), key
    cache = config.env.vars.get("HF_HOME") or env.get("HF_HOME")
    if cache is not None and config.model is not None:
        yield "HF_HOME", Path(cache), None
