"""One worker's time at work, and the thread that watches over it: signs of life, the end of the job, lost trials."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from signal import SIGTERM

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import StoreError
from hpotune.objective.process import PAUSE, Stop
from hpotune.records.trial import LOCAL, Worker
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.storage import Claim, Store
from hpotune.workspace.code_snapshot import Code
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.timeline import Diary

Now = Callable[[], datetime]
CANCEL_S = 5.0
"""How often a worker looks whether its running trial is still wanted, where the budget's end stops it."""
BEATS = 5
"""Signs of life in the time of one lease."""


@dataclass(kw_only=True)
class Shift:
    """One worker's time at work: who it is, what it works on, and until when."""

    folder: StudyFolder
    study: Study
    store: Store
    me: Worker
    stop: Stop
    diary: Diary
    now: Now
    home: str
    """The folder of the study file."""
    deadline: float | None
    """When its job ends, in Unix seconds; None: nobody knows."""
    code: Code | None = None
    """The snapshot of the study's code that it runs."""
    holding: Claim | None = None
    """The trial that it evaluates."""
    dropped: set[tuple[int, str]] = field(default_factory=set)
    """Adapters and checkpoints that this worker has seen gone: trial, name."""
    abandoned: int | None = None
    """The trial id that was told to end because it is somebody else's."""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def config(self) -> StudyConfig:
        """As it stands now: budgets may be extended while the study runs."""
        return self.store.config

    @property
    def left_s(self) -> float | None:
        """Seconds until its job is told to end."""
        if self.deadline is None:
            return None
        return self.deadline - time.time() - self.config.resources.signal_delay_s * (self.me.job != LOCAL)


@contextmanager
def watched(shift: Shift) -> Iterator[None]:
    """While inside, a thread says that the worker lives, and stops a trial whose time is out or that is not its own."""
    thread = threading.Thread(target=_watch, args=(shift,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        shift.over.set()
        thread.join(timeout=5)


def _watch(shift: Shift) -> None:
    pause_s = max(1.0, shift.config.execution.lease_s / BEATS)
    if shift.config.budget.on_end == "cancel":
        pause_s = min(pause_s, CANCEL_S)
    while not shift.over.wait(_until_look(shift, pause_s)):
        try:
            _look(shift)
        except StoreError:  # it is away: the worker's own calls wait for it
            continue
        except Exception:  # a thread that died would look like a worker that did
            with suppress(OSError):  # the log may lie on a full disk
                traceback.print_exc()


def _look(shift: Shift) -> None:
    """Gives a sign of life; stops the trial whose time is out, that is not its own, or that is not wanted any more."""
    if shift.left_s is not None and shift.left_s <= 0 and shift.stop.signal is None:
        say("the time of this job is nearly out: its trial is told to checkpoint")
        shift.stop.ask(PAUSE)
    shift.diary.beat()
    holding = shift.holding
    if holding is None:
        return
    if not shift.store.beat(holding.trial_id, owner=shift.me) and shift.holding is holding:
        say(f"trial {holding.row.number} is somebody else's by now: it is ended here")
        shift.stop.abandon(kill=shift.abandoned == holding.trial_id)
        shift.abandoned = holding.trial_id
    if shift.config.budget.on_end == "cancel" and shift.stop.signal is None:
        config = shift.folder.config_now(shift.study)
        if reason := stop_reason(config, shift.store.rows(), now=shift.now(), starting=False):
            say(f"the study is over: {reason.text}; its running trials are stopped (budget.on_end: cancel)")
            shift.stop.ask(SIGTERM)


def _until_look(shift: Shift, pause_s: float) -> float:
    """Seconds until the next look: at the end of the job at the latest."""
    if shift.left_s is None or shift.stop.signal is not None:
        return pause_s
    return min(pause_s, max(0.1, shift.left_s))


def say(text: str) -> None:
    """A line in the job's log."""
    with suppress(OSError):  # a full disk costs a line of the log, not the worker
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", file=sys.stderr, flush=True)  # noqa: T201 - a job's log
