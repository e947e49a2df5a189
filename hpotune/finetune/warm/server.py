"""`python -m hpotune.finetune --serve FOLDER`: a rank that runs one trial after another, as the worker orders.

Rank 0 connects to the worker's socket (objective/order_socket.py); several ranks meet in FOLDER once, and rank 0 gives
them what it reads. The worker sends a line of JSON a trial: {"spec": PATH, "env": {...}, "sent": SECONDS}. The answers:

    started   the trial starts in these ranks; without this answer it was not started, and needs new ones
    kept      the trial has ended, result.json is written, and the ranks wait for the next one

A single rank may be started before the worker has a trial (HPOTUNE_EARLY): it imports what trials need meanwhile.

Without `kept` the ranks end, with the exit code of the trial. They end after every trial that did not finish, and after
one that left anything behind, on any rank, that is not put back.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from hpotune.finetune.model import hub
from hpotune.finetune.trial_imports import import_training
from hpotune.finetune.warm.orders import Orders
from hpotune.records.trial import TrialSpec
from hpotune.workspace.atomic_files import open_append

if TYPE_CHECKING:
    from hpotune.finetune.distributed.ranks import Ranks
    from hpotune.finetune.warm.kept import Kept


EARLY = "HPOTUNE_EARLY"
"""Variable of a rank that is started before its first trial: `offline` or `online`, as the study says."""


class RunTrial(Protocol):
    """`main` of hpotune/finetune/__main__.py: runs the trial of a spec and returns the exit code."""

    def __call__(self, file: Path, *, kept: Kept | None = None, started: float | None = None) -> int: ...


def serve(main: RunTrial, folder: Path) -> int:
    """Run trials until one of them ends the process, or the worker closes the socket. Returns the exit code."""
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, _end_idle)
    early = os.environ.pop(EARLY, None)
    ranks = None
    if os.environ["HPOTUNE_RANKS"] == "single":
        orders = Orders(os.environ, is_main=True)
        if early is not None:
            hub.prepare_environment(offline=early == "offline")
            import_training()
    else:
        from hpotune.finetune.distributed.ranks import init_ranks, read_rank_info

        info = read_rank_info(os.environ)
        try:
            orders = Orders(os.environ, is_main=info.rank == 0)
        except OSError:
            return os.EX_TEMPFAIL
        ranks = init_ranks(info, os.environ, folder=folder)
        orders.share_with(ranks)
    kept: Kept | None = None
    while (order := orders.next()) is not None:
        started, file = time.time() if ranks else order["sent"], Path(order["spec"])
        spec = TrialSpec.model_validate_json(file.read_text())
        if ranks is None:  # the worker writes the log of several
            _log_to(Path(spec.folder))
        if kept is None:
            kept = _first(spec, order["env"], ranks)
        else:
            if (why := _agreed(kept.why_cold(spec), ranks)) is not None:
                _say(f"this trial gets a new process: {why}", ranks)
                return 0
            kept.state.restore(order["env"])
        kept.begin(spec)
        orders.answer("started")
        code = main(file, kept=kept, started=started)
        if code != 0:
            return code
        unfinished = _unfinished(spec) if ranks is None or ranks.is_main else None
        if (why := _agreed(unfinished or kept.end(spec), ranks)) is not None:
            _say(f"the next trial gets a new process: {why}", ranks)
            return 0
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, _end_idle)
        orders.answer("kept")
    return 0


def _agreed(why: str | None, ranks: Ranks | None) -> str | None:
    """What any of the ranks says against going on; None: nothing. A collective."""
    every = [why] if ranks is None else ranks.all_gather_object(why)
    return next((one for one in every if one is not None), None)


def _say(line: str, ranks: Ranks | None) -> None:
    if ranks is None or ranks.is_main:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _unfinished(spec: TrialSpec) -> str | None:
    state = json.loads((Path(spec.folder) / "result.json").read_text())["state"]
    return None if state == "finished" else f"the trial {state}"


def _first(spec: TrialSpec, env: dict[str, str], ranks: Ranks | None) -> Kept:
    """Import what a trial needs, with the environment of the first one."""
    hub.prepare_environment(offline=spec.offline)
    import_training()
    from hpotune.finetune.warm.kept import Kept
    from hpotune.finetune.warm.process_state import ProcessState
    from hpotune.finetune.warm.watched_files import WatchedFiles

    kept = Kept(state=ProcessState(env), files=WatchedFiles(), ranks=ranks)
    kept.state.restore(env)  # a process that was started early has no variables of a trial
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
