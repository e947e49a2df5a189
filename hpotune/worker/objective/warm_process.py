"""The processes of a trial that stay for the next trials: `python -m hpotune.finetune --serve`.

One rank, or all ranks and their launcher. The worker drives them by a socket; what is said on it is in
hpotune/finetune/warm/server.py. Like every process of a trial they have a watchdog, and all that they started ends with
them.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM, Signals

from hpotune.worker.objective.order_socket import ORDERS, OrderSocket
from hpotune.worker.objective.process import (
    CHECKPOINT_S,
    MARK,
    ProcessExit,
    StopRequest,
    begin_attempt,
    delete_caches,
    end_all,
    end_watchdog,
    marked_processes,
    start_watchdog,
)
from hpotune.worker.objective.rank_log import RankLog
from hpotune.workspace.atomic_files import open_append

END_S = 5.0
"""How long idle ranks may take to end."""
EXIT_S = 120.0
"""How long ranks may take to end after the first one has closed the socket."""
NOT_REACHED = ".not-reached"
"""A file in the folder of --serve: the first rank does not reach the worker, since it runs on another node."""


class WarmProcess:
    """The ranks of a trial, from their start for a first trial to their end.

    `log_folder`: of that trial; None: they are started before there is one, and what they write until then is lost.
    `warning`: the signal that asks them for a checkpoint. `copy_log`: whether the worker writes their output into the
    log of each trial, as it must for several ranks; a single one does so itself.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_folder: Path | None,
        env: Mapping[str, str],
        stop: StopRequest,
        warning: Signals,
        copy_log: bool,
    ) -> None:
        self._mark, self._stop, self._ended = f"{MARK}={uuid.uuid4().hex}", stop, False
        self._warning, self._has_run, self._env = warning, False, dict(env)
        self._own: set[int] = set()
        self._log: RankLog | None = None
        self._orders = OrderSocket()
        self._watchdog = start_watchdog(self._mark)
        try:
            with open_append(Path(os.devnull) if log_folder is None else log_folder / "log.txt") as log:
                self._log_start = begin_attempt(log)
                self._log = RankLog(log_folder) if copy_log and log_folder is not None else None
                self._child = subprocess.Popen(
                    command, stdout=log if self._log is None else self._log.pipe, stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL, env=self._own_env(env), start_new_session=True,
                )  # fmt: skip
                if self._log is not None:
                    self._log.start()
        except OSError:
            self._orders.close()
            if self._log is not None:
                self._log.close()
            with self._watchdog:
                end_watchdog(self._watchdog)
            raise

    def is_idle(self) -> bool:
        """Whether it waits for a trial."""
        return not self._ended and not self._has_exited()

    def run_first(self, spec: Path, env: Mapping[str, str]) -> ProcessExit | None:
        """Run the trial for which the ranks were started; returns their exit, or None if they cannot be kept.

        They cannot where the first one runs on another node than the worker. The trial was not started then.
        """
        self._run(spec, env)
        unreached = spec.parent / NOT_REACHED
        if not self._orders.is_connected and unreached.exists():
            unreached.unlink(missing_ok=True)
            return None
        return self._exit()

    def run(self, spec: Path, env: Mapping[str, str]) -> ProcessExit | None:
        """Run the trial of the spec; returns the exit, or None if it was not started and needs new processes."""
        with open_append(spec.parent / "log.txt") as log:
            self._log_start = begin_attempt(log)
        if self._log is not None:
            self._log.move_to(spec.parent)
        return self._exit() if self._run(spec, env) else None

    def _run(self, spec: Path, env: Mapping[str, str]) -> bool:
        """Run the trial to its end; returns whether it was started.

        The ranks end with the trial, but for a trial that finished and left nothing behind.
        """
        self._stop.attach(self._child, warning=self._warning)
        self._has_run = True
        try:
            started = self._orders.connect(self._has_exited)
            if started:
                order = {"spec": str(spec), "env": self._own_env(env), "sent": time.time()}
                self._orders.send(json.dumps(order))
                started = self._answer() == "started"
            # what runs before a trial's own code does
            self._own = self._own or {self._child.pid, *(marked_processes(self._mark) if started else ())}
            kept = started and self._answer() == "kept"
            if not kept:
                with suppress(subprocess.TimeoutExpired):  # `end` kills what hangs
                    self._child.wait(EXIT_S)
        finally:
            self._stop.child = None
        left_running = set(marked_processes(self._mark)) - self._own  # programs that the trial started
        if not kept or left_running:
            self.end()
        return started

    def _exit(self) -> ProcessExit:
        """The exit of the trial: that of the process, or 0 if it goes on."""
        return ProcessExit(code=self._child.returncode or 0, log_start=self._log_start)

    def end(self) -> None:
        """End the ranks and all that they started; idle ones by closing the socket.

        Those that got no trial are asked by SIGTERM: they may be importing, and do not look at the socket.
        """
        if self._ended:
            return
        self._ended = True
        self._orders.close()
        if not self._has_run:
            self._child.send_signal(SIGTERM)
        may_save = self._has_run and self._stop.signal is not None
        if not may_save:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(END_S)
        end_all(self._mark, patience_s=CHECKPOINT_S if may_save else 0)
        self._child.wait()
        delete_caches(self._mark, self._env)
        if self._log is not None:
            self._log.close()
        with self._watchdog:
            end_watchdog(self._watchdog)

    def _own_env(self, env: Mapping[str, str]) -> dict[str, str]:
        return {**env, MARK: self._mark.partition("=")[2], ORDERS: str(self._orders.file)}

    def _has_exited(self) -> bool:
        return self._child.poll() is not None

    def _answer(self) -> str:
        return self._orders.answer(self._has_exited)
