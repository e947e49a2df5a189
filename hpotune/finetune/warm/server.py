"""`python -m hpotune.finetune --serve`: one rank that runs one trial after another, as its standard input names them.

Standard input is a socket. The worker sends a line of JSON a trial: {"spec": PATH, "env": {...}}. The answers:

    started   the trial starts in this process; without this answer it was not started, and needs a new process
    kept      the trial has ended, result.json is written, and the process waits for the next one

Without `kept` the process ends, with the exit code of the trial. It ends after every trial that did not finish, and
after one that left anything behind that is not put back.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from hpotune.finetune.model import hub
from hpotune.records.trial import TrialSpec
from hpotune.workspace.atomic_files import open_append

if TYPE_CHECKING:
    from hpotune.finetune.warm.kept import Kept


class RunTrial(Protocol):
    """`main` of hpotune/finetune/__main__.py: runs the trial of a spec and returns the exit code."""

    def __call__(self, file: Path, *, kept: Kept | None = None, started: float | None = None) -> int: ...


def serve(main: RunTrial) -> int:
    """Run trials until one of them ends the process, or the worker closes the socket. Returns the exit code."""
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, _end_idle)
    orders, answers = os.fdopen(os.dup(0), "rb"), os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # a trial's own code reads nothing, as in a process of its own
    os.close(null)
    kept: Kept | None = None
    for line in orders:
        started, order = time.time(), json.loads(line)
        spec = TrialSpec.model_validate_json(Path(order["spec"]).read_text())
        if kept is None:
            kept = _first(spec, order["env"])
        else:
            _log_to(Path(spec.folder))
            if (why := kept.why_cold(spec)) is not None:
                sys.stderr.write(f"this trial gets a new process: {why}\n")
                return 0
            kept.state.restore(order["env"])
        kept.begin(spec)
        os.write(answers, b"started\n")
        code, why = _run(main, Path(order["spec"]), kept, started=started)
        if why is not None:
            return code
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, _end_idle)
        os.write(answers, b"kept\n")
    return 0


def _run(main: RunTrial, file: Path, kept: Kept, *, started: float) -> tuple[int, str | None]:
    """The trial's exit code, and why this process must end; None: it may go on."""
    code = main(file, kept=kept, started=started)
    if code != 0:
        return code, "it failed"
    spec = TrialSpec.model_validate_json(file.read_text())
    why = _unfinished(spec) or kept.end(spec)
    if why is not None:
        sys.stderr.write(f"the next trial gets a new process: {why}\n")
    return code, why


def _unfinished(spec: TrialSpec) -> str | None:
    state = json.loads((Path(spec.folder) / "result.json").read_text())["state"]
    return None if state == "finished" else f"the trial {state}"


def _first(spec: TrialSpec, env: dict[str, str]) -> Kept:
    """Import what a trial needs, with the environment of the first one."""
    hub.prepare_environment(offline=spec.offline)
    import hpotune.finetune.pipeline  # noqa: F401
    from hpotune.finetune.warm.kept import Kept
    from hpotune.finetune.warm.process_state import ProcessState
    from hpotune.finetune.warm.watched_files import WatchedFiles

    kept = Kept(state=ProcessState(env), files=WatchedFiles())
    gc.collect()
    gc.freeze()  # what was imported is not looked at again: a collection takes 10 ms instead of 300
    return kept


def _log_to(folder: Path) -> None:
    """Send the output of this process, also of its libraries, to the trial's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open_append(folder / "log.txt") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _end_idle(number: int, _: FrameType | None) -> None:
    """End as a process that has no handler: no trial has started, so nothing is to be saved."""
    hub.delete_private_cache()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
