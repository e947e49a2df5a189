"""`python -m hpotune.finetune --serve FOLDER`: a rank that runs one trial after another, as the worker orders.

Rank 0 connects to the worker's socket (worker/objective/order_socket.py); several ranks meet in FOLDER once, and rank 0
gives them what it reads. The worker sends a line of JSON a trial: {"spec": PATH, "env": {...}, "sent": SECONDS}. The
answers:

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
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from hpotune.finetune.model import hub
from hpotune.finetune.trial_imports import import_training
from hpotune.finetune.warm.orders import LostRank, Orders, log_to
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.workspace.atomic_files import write_atomic

if TYPE_CHECKING:
    from hpotune.finetune.distributed.ranks import Ranks
    from hpotune.finetune.warm.kept import Kept


NOT_REACHED = ".not-reached"
"""As in hpotune/worker/objective/warm_process.py."""
EARLY = "HPOTUNE_EARLY"
"""Variable of a rank that is started before its first trial: `offline` or `online`, as the study says."""


class RunTrial(Protocol):
    """`main` of hpotune/finetune/__main__.py: runs the trial of a spec and returns the exit code."""

    def __call__(self, file: Path, *, kept: Kept | None = None, started: float | None = None) -> int: ...


def serve(main: RunTrial, folder: Path) -> int:
    """Run trials until one of them ends the process, or the worker closes the socket. Returns the exit code."""
    process_start = time.time()
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, _end_idle)
    early = os.environ.pop(EARLY, None)
    if os.environ["HPOTUNE_RANKS"] == "single":
        orders = Orders(os.environ, is_main=True)
        if early is not None:
            hub.prepare_environment(offline=early == "offline")
            import_training()
        return _serve(main, orders, None, process_start=process_start)
    try:
        return _serve_ranks(main, folder, process_start=process_start)
    except Exception as error:  # `main` writes the failures of a trial itself
        _write_start_failure(error, folder)
        return 1


def _serve_ranks(main: RunTrial, folder: Path, *, process_start: float) -> int:
    from hpotune.finetune.distributed.ranks import RENDEZVOUS, destroy_ranks, init_ranks, read_rank_info

    info = read_rank_info(os.environ)
    try:
        orders = Orders(os.environ, is_main=info.rank == 0)
    except OSError:
        (folder / NOT_REACHED).touch()
        return os.EX_TEMPFAIL
    ranks = init_ranks(info, os.environ, folder=folder)
    orders.share_with(ranks, os.environ)
    code = _serve(main, orders, ranks, process_start=process_start, without=RENDEZVOUS)
    if code == 0:
        destroy_ranks(ranks)
    return code


def _serve(
    main: RunTrial, orders: Orders, ranks: Ranks | None, *, process_start: float, without: Sequence[str] = ()
) -> int:
    """Run trials one after another.

    `process_start`: in Unix seconds. `without`: variables of the worker that no trial may see.
    """
    kept: Kept | None = None
    while (order := orders.next()) is not None:
        file = Path(order["spec"])
        spec = TrialSpec.model_validate_json(file.read_text())
        env = {name: value for name, value in order["env"].items() if name not in without}
        if ranks is None:  # the worker writes the log of several
            log_to(Path(spec.folder))
            started = order["sent"]
        else:
            started = process_start if kept is None else time.time()
        if kept is None:
            kept = _first(spec, env, ranks)
        else:
            if (why := _agreed(kept.why_cold(spec), ranks)) is not None:
                _say(f"this trial gets a new process: {why}", ranks)
                return 0
            kept.state.restore(env)
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


def _write_start_failure(error: Exception, folder: Path) -> None:
    """The failure of several ranks before their first trial, as its result; of a later trial the log alone has it."""
    from hpotune.finetune.trial_failure import failure_of, is_lost_rank

    with suppress(OSError):
        traceback.print_exc()
    result = folder / "result.json"
    if isinstance(error, LostRank) or is_lost_rank(error) or result.exists():
        return
    spec = TrialSpec.model_validate_json((folder / "spec.json").read_text())
    failed = TrialResult(number=spec.number, state="failed", failure=failure_of(error, phase="load"))
    write_atomic(result, failed.model_dump_json(indent=1) + "\n")


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
    hub.prepare_environment(offline=spec.offline, fetched=spec.fetched)
    import_training()
    from hpotune.finetune.warm.kept import Kept
    from hpotune.finetune.warm.process_state import ProcessState
    from hpotune.finetune.warm.watched_files import WatchedFiles

    kept = Kept(state=ProcessState(env), files=WatchedFiles(), ranks=ranks)
    kept.state.restore(env)  # a process that was started early has no variables of a trial
    return kept


def _end_idle(number: int, _: FrameType | None) -> None:
    """End as a process that has no handler: no trial has started, so nothing is to be saved."""
    hub.delete_private_cache()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
