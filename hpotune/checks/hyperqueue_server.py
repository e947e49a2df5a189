"""Whether HyperQueue can run a study's workers from this machine: its command, its server, its workers."""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.checks.finding import Finding
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError
from hpotune.slurm.commands import limited_time
from hpotune.slurm.hyperqueue.hq_commands import connected_workers, require_hq, server_version

ANSWER_S = 20.0
"""Timeout of each command."""
_START = "start some in jobs with `hq worker start`, or let the server do so: `hq alloc add slurm`"


def hyperqueue_findings(config: StudyConfig | None) -> Iterator[Finding]:
    """All findings about HyperQueue; nothing for a study that runs elsewhere, or without a study."""
    if config is None or config.execution.place != "hyperqueue":
        return
    with limited_time(2 * ANSWER_S):
        try:
            path = require_hq()
            version = server_version(answer_s=ANSWER_S)
            workers = connected_workers(answer_s=ANSWER_S)
        except ClusterError as error:
            advice = "`hpotune run` needs no server"
            yield Finding(
                level="bad",
                kind="hyperqueue",
                text=str(error),
                advice=advice,
                key=("execution", "place"),
            )
            return
    yield Finding(
        kind="hyperqueue", text=f"server {version} answers {path}; workers connected to it: {workers}"
    )
    if not workers:
        text = "no worker of HyperQueue is connected: submitted workers wait"
        yield Finding(level="note", kind="hyperqueue", text=text, advice=_START, key=("execution", "place"))
