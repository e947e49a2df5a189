"""A thread of the worker: renews heartbeats and stops a trial that must not continue.

A trial is stopped when the time of its job is nearly out, when another worker has claimed it, or when the study is over
and `budget.on_end` is cancel. The thread starts no trial and records no result.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from signal import SIGTERM

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import StoreError
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.storage import Claim, TrialQueue
from hpotune.worker.objective.process import PAUSE_SIGNAL, StopRequest
from hpotune.workspace.heartbeat import Heartbeat
from hpotune.workspace.timeline import log

Now = Callable[[], datetime]
CANCEL_POLL_S = 5.0
"""How often the monitor checks whether the study is over, where that cancels running trials."""
HEARTBEATS_PER_LEASE = 5
NEAR_S = 60.0
"""Seconds left of the job at which Slurm is asked when it ends."""


class Monitor:
    """The monitor thread of one worker.

    It knows the loop by functions: the job's time left, a question to Slurm about the job's end, and the config now.
    """

    def __init__(
        self,
        *,
        queue: TrialQueue,
        heartbeat: Heartbeat,
        stop: StopRequest,
        left_s: Callable[[], float | None],
        ask_end: Callable[[], bool],
        current_config: Callable[[], StudyConfig],
        now: Now,
    ) -> None:
        self._queue = queue
        self._heartbeat = heartbeat
        self._stop = stop
        self._left_s = left_s
        self._ask_end = ask_end
        self._current_config = current_config
        self._now = now
        self._claim: Claim | None = None
        """The trial that the loop evaluates."""
        self._ended_trial: int | None = None
        """Storage id of a trial that was asked to end because another worker has claimed it."""
        self._closed = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread while the body runs."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join(timeout=5)

    @contextmanager
    def watching(self, claim: Claim) -> Iterator[None]:
        """Renew this trial's heartbeat while the body runs."""
        self._claim = claim
        try:
            yield
        finally:
            self._claim = None

    def _run(self) -> None:
        config = self._queue.config
        period_s = max(1.0, config.execution.lease_s / HEARTBEATS_PER_LEASE)
        if config.budget.on_end == "cancel":
            period_s = min(period_s, CANCEL_POLL_S)
        while not self._closed.wait(self._next_check_s(period_s)):
            try:
                self._check()
            except StoreError:  # the storage does not answer: the loop's own calls wait for it
                continue
            except Exception:  # without this thread the worker would look stale
                with suppress(OSError):  # the log may be on a full disk
                    traceback.print_exc()

    def _next_check_s(self, period_s: float) -> float:
        """Seconds until the next check: NEAR_S before the end of the job and at it, at the latest."""
        left_s = self._left_s()
        if left_s is None or self._stop.signal is not None:
            return period_s
        return min(period_s, max(0.1, left_s - NEAR_S if left_s > NEAR_S else left_s))

    def _check(self) -> None:
        left_s = self._left_s()
        if left_s is not None and left_s <= NEAR_S and self._stop.signal is None:
            try:
                self._ask_end()  # its time limit may have been raised
            except Exception:  # heartbeats, and the request below, do not depend on the answer
                with suppress(OSError):
                    traceback.print_exc()
            left_s = self._left_s()
        if left_s is not None and left_s <= 0 and self._stop.signal is None:
            log("the time of this job is nearly out: its trial is asked to write a checkpoint and end")
            self._stop.request(PAUSE_SIGNAL)
        self._heartbeat.renew()
        claim = self._claim
        if claim is not None:
            self._renew_claim(claim)
            self._stop_if_study_over()

    def _renew_claim(self, claim: Claim) -> None:
        """Renew the trial's heartbeat; end its process, at the second check by SIGKILL, if another worker has it."""
        if (
            self._queue.renew_heartbeat(claim.trial_id, owner=self._heartbeat.worker)
            or self._claim is not claim
        ):
            return
        log(f"another worker has claimed trial {claim.row.number}: its process here is ended")
        self._stop.end_process(kill=self._ended_trial == claim.trial_id)
        self._ended_trial = claim.trial_id

    def _stop_if_study_over(self) -> None:
        if self._queue.config.budget.on_end != "cancel" or self._stop.signal is not None:
            return
        reason = stop_reason(self._current_config(), self._queue.rows(), now=self._now(), starting=False)
        if reason:
            log(f"the study is over: {reason.text}; its running trials are stopped (budget.on_end: cancel)")
            self._stop.request(SIGTERM)
