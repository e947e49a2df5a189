"""Checks of `hpotune doctor`: the caches of models and datasets, the study's store, and the file system's clock."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.checks.doctor_slurm import clock
from hpotune.checks.finding import Finding
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:
    import psycopg

SPARE_CONNECTIONS = 5
"""PostgreSQL connections besides one per worker: `hpotune status`, follow-up jobs, dashboards."""


def cache_findings(config: StudyConfig | None) -> Iterator[Finding]:
    """The cache folders of models and datasets, and whether they contain those of the study."""
    env = {**os.environ, **(config.env.vars if config else {})}
    home = Path(
        env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    ).expanduser()
    hub = Path(env.get("HF_HUB_CACHE") or home / "hub").expanduser()
    datasets = Path(env.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    if home.is_relative_to(Path.home()):
        change = "set HF_HOME to project storage that compute nodes can read, in your shell and in env.vars"
        yield Finding(level="note", kind="cache", text=f"HF_HOME is {home}", advice=change)
    cached = sorted(path.name for path in hub.glob("*--*")) if hub.is_dir() else []
    yield Finding(kind="cache", text=f"{len(cached)} models and datasets in {hub}")
    if not os.path.isdir(datasets):
        yield Finding(kind="cache", text=f"no prepared datasets: {datasets} does not exist")
    if config is not None:
        yield from _needed(config, hub, datasets)


def _needed(config: StudyConfig, hub: Path, datasets: Path) -> Iterator[Finding]:
    wanted = [("model", config.model.path)] if config.model else []
    wanted += [("dataset", one.path) for one in config.data.sources.values()] if config.data else []
    for kind, name in wanted:
        if not _is_hub_id(name) or (config.data_root and Path(config.data_root, name).exists()):
            continue
        files = hub / f"{kind}s--{name.replace('/', '--')}" / "snapshots"
        prepared = datasets / name.replace("/", "___")
        if (files.is_dir() and any(files.iterdir())) or (kind == "dataset" and prepared.is_dir()):
            yield Finding(kind="cache", text=f"{kind} {name} is in the cache")
            continue
        option = " --repo-type dataset" if kind == "dataset" else ""
        found = f"{kind} {name} is not in the cache, and trials run {'offline' if config.env.offline else 'online'}"
        yield Finding(
            level="bad" if config.env.offline else "note", kind="cache", text=found,
            advice=f"on a node with internet: hpotune fetch STUDY, or hf download {name}{option}",
        )  # fmt: skip


def _is_hub_id(path: str) -> bool:
    """Whether a path is a Hugging Face id, NAME or NAMESPACE/NAME, and not an existing file or folder."""
    return (
        path.count("/") <= 1 and not path.startswith((".", "~", "/", "package:")) and not Path(path).exists()
    )


def store_findings(folder: StudyFolder) -> Iterator[Finding]:
    """Whether the study's store answers, its version, and how many workers it supports; nothing without a study."""
    if not folder.provenance_file.is_file():
        return
    from hpotune.storage import TrialQueue

    url = ""
    try:
        url = folder.provenance().store
        study = folder.load()
        rows = TrialQueue.open(url, study, read_only=True).rows()
    except HpotuneError as error:
        yield Finding(level="bad", kind="store", text=str(error), advice="see the message")
        return
    version = f"SQLite {sqlite3.sqlite_version}, " if url.startswith("sqlite:") else ""
    yield Finding(kind="store", text=f"{version}{url}: {len(rows)} trials")
    if url.startswith("postgresql"):
        yield from _postgres(url, parallel=study.config.budget.parallel)


def _postgres(url: str, *, parallel: int) -> Iterator[Finding]:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=5) as server:
            here = time.time()
            facts = _postgres_facts(server)
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        yield Finding(level="bad", kind="store", text=f"PostgreSQL: {reason}", advice="see the message")
        return
    found = f"PostgreSQL {facts['version'] // 10000}: {facts['max']} connections, {facts['used']} in use"
    needed = facts["reserved"] + facts["used"] + parallel + SPARE_CONNECTIONS
    if needed > facts["max"]:
        yield Finding(
            level="bad", kind="store", text=f"{found}; budget.parallel is {parallel}",
            advice=f"raise max_connections to {needed} or more, or write a smaller budget.parallel",
        )  # fmt: skip
    else:
        yield Finding(kind="store", text=found)
    yield clock("the PostgreSQL server", facts["now"], here=here)


def _postgres_facts(server: psycopg.Connection) -> Mapping[str, int]:
    """Version, connections (at most, reserved, in use) and time (Unix seconds) of a PostgreSQL server."""
    row = server.execute(
        "SELECT current_setting('server_version_num')::int, "
        "CASE WHEN r.rolconnlimit < 0 THEN s.most ELSE least(r.rolconnlimit, s.most) END, "
        "current_setting('superuser_reserved_connections')::int, "
        "(SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'), "
        "extract(epoch FROM clock_timestamp())::float8 "
        "FROM pg_roles r, (SELECT current_setting('max_connections')::int AS most) s WHERE r.rolname = current_user"
    ).fetchone()
    assert row is not None, "every user has a role"
    return dict(zip(("version", "max", "reserved", "used", "now"), row, strict=True))


def disk_clock(folder: Path) -> Iterator[Finding]:
    """The file system's clock compared with this machine's, from the modification time of a new file."""
    try:
        before = time.time()
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hpotune-clock-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            stamp = os.stat(file.name).st_mtime
        after = time.time()
    except OSError:  # the check of file locks reports that the folder is not writable
        return
    nearest = min(max(stamp, before), after)  # a slow disk must not look like a wrong clock
    yield clock("the file system", here=nearest, there=stamp)
