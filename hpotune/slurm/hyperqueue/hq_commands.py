"""Runs `hq`, HyperQueue's command, and reads its JSON. Asks once; never in a loop.

Which server it reaches is HyperQueue's own rule: the folder in HQ_SERVER_DIR, else ~/.hq-server.
"""

from __future__ import annotations

import json
import re
import shutil

from hpotune.config.yaml_source import Value
from hpotune.errors import ClusterError
from hpotune.slurm.command_process import Answer
from hpotune.slurm.commands import (
    TIMEOUT_S,
    CommandMissing,
    ControllerUnreachable,
    UnreadableAnswer,
    command_answer,
    one_line,
)

HQ = "hq"
_NO_SERVER = re.compile(
    r"no running instance|is unreachable|invalid server directory|connection (refused|reset)"
)
"""In hq's errors where no server runs, or it cannot be reached."""
_START = "start one with `hq server start`, or name its folder in HQ_SERVER_DIR"


def require_hq() -> str:
    """The path of `hq`.

    Raises: CommandMissing where it is not installed.
    """
    found = shutil.which(HQ)
    if found is None:
        raise CommandMissing(
            "hq not found: HyperQueue is not installed here; put its program into PATH, or write "
            "execution.place: slurm"
        )
    return found


def hq_json(*arguments: str, answer_s: float = TIMEOUT_S) -> Value:
    """What `hq` prints as JSON for these arguments.

    Raises: CommandMissing, NoAnswer after `answer_s` seconds, ControllerUnreachable where no server runs, ClusterError
        where the server refuses.
    """
    require_hq()
    answer = command_answer([HQ, "--output-mode", "json", *arguments], answer_s=answer_s)
    if answer.code:
        raise _error(answer, arguments[0])
    try:
        found: Value = json.loads(answer.out or "null")
    except ValueError:
        raise UnreadableAnswer(f"hq {arguments[0]} printed no JSON but {one_line(answer.out)!r}") from None
    return found


def _error(answer: Answer, verb: str) -> ClusterError:
    """The error that hq printed: a JSON object on its output, or text."""
    text = answer.out + answer.err
    try:
        found = json.loads(answer.out)
        text = str(found["error"]) if isinstance(found, dict) and "error" in found else text
    except ValueError:
        pass
    first = one_line(next((line for line in text.splitlines() if line.strip()), "no reason given"))
    if _NO_SERVER.search(text.lower()):
        return ControllerUnreachable(f"no HyperQueue server answers ({first.rstrip('.')}); {_START}")
    return ClusterError(f"hq {verb} failed: {first}")


def server_version(*, answer_s: float = TIMEOUT_S) -> str:
    """The version of the server that `hq` reaches.

    Raises: ClusterError as `hq_json`.
    """
    found = hq_json("server", "info", answer_s=answer_s)
    return str(found.get("version", "?")) if isinstance(found, dict) else "?"


def connected_workers(*, answer_s: float = TIMEOUT_S) -> int:
    """How many of HyperQueue's own workers are connected to the server.

    Raises: ClusterError as `hq_json`.
    """
    found = hq_json("worker", "list", answer_s=answer_s)
    return len(found) if isinstance(found, list) else 0


def jobs_by_name(*, answer_s: float = TIMEOUT_S) -> dict[str, int]:
    """The server's number of each job that it knows, ended ones included, by the job's name; the newest of a name.

    Raises: ClusterError as `hq_json`.
    """
    found = hq_json("job", "list", "--all", answer_s=answer_s)
    known: dict[str, int] = {}
    for job in found if isinstance(found, list) else []:
        if isinstance(job, dict) and isinstance(number := job.get("id"), int):
            known[str(job.get("name"))] = max(number, known.get(str(job.get("name")), 0))
    return known
