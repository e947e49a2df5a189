"""The worker: claim a trial, evaluate it, record its outcome, until no trial is left or the job's time is out.

No other code records the outcome of a trial that runs. One worker runs in a job.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.training_method import delete_folders
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import LOCAL, Cause, Failure, TrialResult, TrialRow, Worker, job_id
from hpotune.schedule.failures import BadNode, bad_nodes
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.schedule.job_fit import expected_s, fits
from hpotune.schedule.retention import AdapterRows, adapters_kept, adapters_to_delete, checkpoints_to_delete
from hpotune.schedule.rounds import look_s
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.storage import (
    Claim,
    TrialQueue,
    UnchangedHeartbeats,
    Wait,
    is_worker_process,
    output_reader,
    requeue_lock,
    stale_on_host,
)
from hpotune.worker.heartbeat_monitor import Monitor, Now
from hpotune.worker.job_end import AskLoss, AskTimes, JobEnd
from hpotune.worker.leader_file import write_leader
from hpotune.worker.objective import open_objective
from hpotune.worker.objective.interface import Evaluate, TrialContext, failed_result
from hpotune.worker.objective.process import PAUSE_SIGNAL, StopRequest
from hpotune.worker.outcome import error_cause, outcome_text, record_outcome
from hpotune.worker.trial_spec import base_spec, make_trial_folder, spec_at_point
from hpotune.workspace.atomic_files import touch, wait_for_disk_space
from hpotune.workspace.code_snapshot import CodeSnapshot, find_snapshot
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.heartbeat import Heartbeat
from hpotune.workspace.staged_copies import release_copies
from hpotune.workspace.timeline import Timeline, log

DISK_PATIENCE_S = 120
"""How long a worker waits for a disk that is full."""
DISK_POLL_S = 5.0
"""How often it checks whether the disk has space again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerResult:
    """What a worker did before it ended."""

    trials: int
    """Trials that it evaluated, failed attempts included."""
    broken_node: bool
    """Whether its node makes the trials of any worker fail; never on this machine, outside Slurm."""
    ended_by: Literal["trials", "time", "signal", "nothing left"]
    """trials: as many as asked are done. time: its job's time is out. signal: SIGTERM or SIGINT (`scancel`, a user)."""


class WorkerLoop:
    """One worker on one study: `WorkerLoop.open(folder, ...).run()`."""

    def __init__(
        self,
        *,
        folder: StudyFolder,
        study: Study,
        queue: TrialQueue,
        worker: Worker,
        env: Mapping[str, str],
        code: CodeSnapshot | None,
        job_end: JobEnd,
        requeue_cause: Cause,
        now: Now,
    ) -> None:
        self._folder = folder
        self._study = study
        self._queue = queue
        self._worker = worker
        self._env = env
        self._code = code
        self._job_end = job_end
        self._requeue_cause = requeue_cause
        self._now = now
        self._home = str(folder.provenance().home)
        self._stop = StopRequest()
        self._heartbeat = Heartbeat(folder=folder, worker=worker)
        self._timeline = Timeline(folder=folder, worker=worker)
        self._monitor = Monitor(
            queue=queue,
            heartbeat=self._heartbeat,
            stop=self._stop,
            left_s=self._left_s,
            ask_end=job_end.ask,
            current_config=partial(folder.current_config, study),
            now=now,
        )
        self._others = UnchangedHeartbeats(queue.config.execution.lease_s)
        self._out_of_time = False
        """Whether no trial fits into the rest of its job."""
        self._deleted: dict[str, set[int]] = {"adapter": set(), "checkpoint": set()}
        """Trials whose adapters and checkpoints this worker has deleted or found deleted."""
        self._adapters = AdapterRows()

    @classmethod
    def open(
        cls,
        folder: StudyFolder,
        *,
        worker: Worker,
        env: Mapping[str, str],
        deadline: float | None = None,
        limit_s: float | None = None,
        ask_times: AskTimes | None = None,
        ask_loss: AskLoss | None = None,
        code: str | None = None,
        requeue_cause: Cause = "preempted",
        now: Now = datetime.now,
    ) -> WorkerLoop:
        """The loop of a worker on the study in a folder.

        `env`: of its trials. `deadline`: when its job ends, in Unix seconds, and `limit_s` its time limit; None: not
        known. `ask_times`: what Slurm says of both later, `ask_loss`: why it took the job; None: it cannot be asked.
        `code`: the hash of the code snapshot to run; None: the newest. `requeue_cause`: why Slurm started the job
        again, if it did.

        Raises: StoreError when the storage does not answer for minutes, StudyFileError where there is no such study.
        """
        study = folder.load()
        return cls(
            folder=folder,
            study=study,
            queue=TrialQueue.open(folder.provenance().store, study, patient=True),
            worker=worker,
            env=env,
            code=find_snapshot(folder, code),
            job_end=JobEnd(deadline, limit_s=limit_s, ask=ask_times, ask_loss=ask_loss),
            requeue_cause=requeue_cause,
            now=now,
        )

    def run(self, *, trials: int | None = None) -> WorkerResult:
        """Evaluate trials until the study is over, `trials` are done, the job's time is out, or a signal asks to end.

        Raises: StoreError when the storage does not answer for minutes, HpotuneError when the disk is full for minutes.
        """
        self._stop.handle_signals()
        started = float(self._env.get("HPOTUNE_JOB_START") or time.time())
        with suppress(OSError):
            self._heartbeat.start(now=started)
        context = TrialContext(config=self._study.config, env=self._env, stop=self._stop)
        with open_objective(context) as evaluate:
            self._requeue_earlier_trials()
            with self._monitor.running():
                done = self._run_trials(evaluate, trials=trials, started=started)
        self._stop.ignore_pause_signal()
        if stop_reason(self._config, self._queue.rows(), now=self._now()):
            env = {**self._env, **self._config.env.vars}
            release_copies(self._config.env.stage, env, study=self._folder.path, say=log)
        self._heartbeat.end(now=time.time())
        broken = self._broken_node(self._queue.rows()) is not None
        return WorkerResult(trials=done, broken_node=broken, ended_by=self._ended_by(done, trials))

    def _ended_by(self, done: int, trials: int | None) -> Literal["trials", "time", "signal", "nothing left"]:
        if self._stop.signal is not None and self._stop.signal != PAUSE_SIGNAL:
            return "signal"
        if self._stop.signal == PAUSE_SIGNAL or self._out_of_time:
            return "time"
        return "trials" if trials is not None and done >= trials else "nothing left"

    @property
    def _config(self) -> StudyConfig:
        """The config with the budget as it was when the loop last read it: budgets may be extended meanwhile."""
        return self._queue.config

    def _left_s(self) -> float | None:
        """Seconds until Slurm asks the job to end; None: not known."""
        if (end := self._job_end.known) is None:
            return None
        warning_s = self._config.resources.signal_delay_s if self._worker.job != LOCAL else 0
        return end - time.time() - warning_s

    def _requeue_earlier_trials(self) -> None:
        """Requeue the trials that this job ran before it was requeued, or that stale workers of this machine ran."""
        with requeue_lock(self._folder) as held:
            if held:  # else another process requeues now
                self._requeue_own()

    def _requeue_own(self) -> None:
        read_output = output_reader(self._folder)
        if self._worker.job == LOCAL:
            stale = stale_on_host(self._worker.host)
            self._queue.requeue_stale(
                lambda row: stale(row.worker) if row.worker else None, read_output=read_output
            )
        else:
            self._queue.requeue_own(
                self._worker,
                is_running=self._is_running_beside,
                read_output=read_output,
                cause=self._requeue_cause,
            )

    def _is_running_beside(self, other: Worker) -> bool:
        """Whether another worker runs on this host, started by the same batch script."""
        return (
            other.host == self._worker.host and other.pid != self._worker.pid and is_worker_process(other.pid)
        )

    def _run_trials(self, evaluate: Evaluate, *, trials: int | None, started: float) -> int:
        """Evaluate trials one after the other; returns how many."""
        done, since, phase = 0, started, "start"
        while trials is None or done < trials:
            claim = self._claim()
            if claim is None:
                break
            self._timeline.add_span(phase, since)
            done += 1
            self._mark_job_useful()
            claimed = time.time()
            with self._monitor.watching(claim):
                result = self._evaluate(claim, evaluate)
            self._record(claim, result)
            self._timeline.add_span("trial", claimed, trial=claim.row.number)
            if result.failure is not None and result.failure.cause == "store":
                self._wait_for_disk_space()
            since, phase = time.time(), "idle"
        if trials is not None and done >= trials:  # else the last claim has done it
            self._delete_large_files(self._queue.rows())
        return done

    def _claim(self) -> Claim | None:
        """Claim the next trial, waiting if necessary. Returns None, and logs why, when the worker is to stop."""
        while True:
            self._queue.config = self._folder.current_config(self._study)
            rows = self._queue.rows()
            self._delete_large_files(rows)
            write_leader(self._folder, self._config, rows)
            if self._is_over(rows):
                return None
            claim = self._queue.claim(
                self._worker, fits=partial(fits, self._config, rows, left_s=self._left_s())
            )
            if isinstance(claim, Claim):
                if reason := self._beyond_budget(claim):
                    self._queue.pause(claim.trial_id, owner=self._worker)
                    log(f"trial {claim.row.number} is not started: {reason.text}")
                    return None
                return claim
            if isinstance(claim, Wait) and claim.why == "time":
                if self._job_end.ask():  # it was raised: the trial may fit now
                    continue
                log("no trial fits into the rest of this job's time")
                self._out_of_time = True
                return None
            self._mark_job_useful()  # other workers were quicker, which says nothing against this job
            if claim is None:
                log("no trial is left to start")
                return None
            self._wait_for_others(rows)

    def _is_over(self, rows: Sequence[TrialRow]) -> bool:
        """Whether this worker has nothing more to do; the log says why."""
        if self._stop.signal is not None:
            log(f"asked to end (signal {self._stop.signal})")
        elif reason := stop_reason(self._config, rows, now=self._now()):
            self._mark_job_useful()
            log(f"the study is over: {reason.text}")
        elif self._worker.job == LOCAL and self._folder.cancelled.exists():
            log("the study was cancelled")
        elif (why := self._broken_node(rows)) is not None:
            log(f"trials fail because of this node ({self._worker.host}), so this worker ends: {why.text}")
        else:
            return False
        return True

    def _broken_node(self, rows: Sequence[TrialRow]) -> BadNode | None:
        """Why trials fail because of this worker's node; None where they do not, and on this machine, outside Slurm."""
        if self._worker.job == LOCAL:
            return None
        return bad_nodes(rows, since=self._folder.nodes_tried_again).get(self._worker.host)

    def _beyond_budget(self, claim: Claim) -> StopReason | None:
        """Why a claimed trial may not start: several were claimed at once, and the first use up the budget."""
        if self._config.budget.gpu_hours is None:
            return None
        own = (claim.row.start or 0.0, claim.row.number)
        before = [
            row
            for row in self._queue.rows()
            if row.number != claim.row.number
            and not (row.state == "running" and (row.start or 0.0, row.number) > own)
        ]
        return stop_reason(self._config, before, now=self._now())

    def _wait_for_others(self, rows: Sequence[TrialRow]) -> None:
        """Wait for the other trials of the round; requeue those whose worker sends no heartbeat."""
        time.sleep(look_s(expected_s(self._config, rows)))
        silent = [
            row for row in self._queue.rows() if row.state == "running" and self._others.stale_failure(row)
        ]
        if not silent:
            self._queue.requeue_stale(lambda _: None, read_output=output_reader(self._folder))
            return
        with requeue_lock(self._folder) as held:
            if held:
                self._queue.requeue_stale(self._others.stale_failure, read_output=output_reader(self._folder))

    def _wait_for_disk_space(self) -> None:
        """Wait until the study's folder is writable: the next trial would fail as the last one did."""
        wait_for_disk_space(
            self._folder.path,
            patience_s=DISK_PATIENCE_S,
            pause_s=DISK_POLL_S,
            say=log,
            stop=lambda: self._stop.signal is not None,
        )

    def _mark_job_useful(self) -> None:
        """Record that this job claimed a trial; on a full disk do nothing."""
        with suppress(OSError):
            touch(self._folder.took_trial(self._worker.job))

    def _evaluate(self, claim: Claim, evaluate: Evaluate) -> TrialResult:
        """The trial's result, with the seconds and GPU-hours that it took."""
        row, started = claim.row, time.time()
        aim = "" if row.rung is None else f", to rung {row.rung + 1}"
        if row.lineage is not None:
            aim = f", generation {row.generation + 1}, from trial {row.lineage.parent}"
        # reporting/views/why.py finds the trial's part of the log by "trial N starts: "
        log(f"trial {row.number} starts: {dict(row.params) or row.kind}{aim}")
        result = self._evaluate_safely(claim, evaluate)
        seconds = time.time() - started
        # where the trial's own processes have not counted the GPU-hours
        cost = {"gpu_hours": seconds / 3600 * gpus_per_job(self._config)}
        return result.model_copy(update={"metrics": {**cost, **result.metrics, "seconds": round(seconds, 3)}})

    def _evaluate_safely(self, claim: Claim, evaluate: Evaluate) -> TrialResult:
        """The trial's result; any error here (a point that breaks a rule, a full disk) becomes its failure."""
        spec = base_spec(claim.row, self._study, self._folder, home=self._home)
        try:
            spec = spec_at_point(spec, claim.row, self._study, code=self._code)
            make_trial_folder(spec, self._folder)
            return evaluate([spec])[0]
        except Exception as error:  # the worker's edge: it continues with the next trial
            with suppress(OSError):  # the log may be on a full disk
                traceback.print_exc()
            return failed_result(spec, error_cause(error), f"{type(error).__name__}: {error}")

    def _record(self, claim: Claim, result: TrialResult) -> None:
        """Record the outcome of a trial in the storage and in the log."""
        loss = None if result.state == "finished" or result.failure is not None else self._job_loss()
        outcome = record_outcome(self._queue, self._folder, claim, result, job_loss=loss)
        log(f"trial {claim.row.number} {outcome_text(outcome)}")

    def _job_loss(self) -> Failure | None:
        """Why the cluster ended the job of a paused trial; None if a user stopped it."""
        if self._stop.signal is None:
            return None
        warned = self._stop.signal == PAUSE_SIGNAL
        asked_s = time.monotonic() - (self._stop.since or time.monotonic())
        return self._job_end.loss(self._worker, warned=warned, left_s=self._left_s, asked_s=asked_s)

    def _delete_large_files(self, rows: Sequence[TrialRow]) -> None:
        """Delete adapters and whole models beyond `keep.best`, and checkpoints that no trial continues from.

        Two workers may do so at once.
        """
        keep = adapters_kept(self._config)
        unwanted = {"checkpoint": checkpoints_to_delete(rows)}
        if keep != "all":
            left = self._adapters.left(rows, self._deleted["adapter"])
            unwanted["adapter"] = adapters_to_delete(
                self._config.score.objective, left, self._config.best, keep=keep
            )
        for kind, numbers in unwanted.items():
            for number in numbers:
                if number not in self._deleted[kind]:
                    delete_folders(self._folder.trial(number), kind)
                    self._deleted[kind].add(number)


def this_worker(env: Mapping[str, str], *, host: str) -> Worker:
    """This process as a worker, by the variables of Slurm or HyperQueue if it is in a job."""
    task = f"{env.get('SLURM_STEP_ID', '')}.{env.get('SLURM_PROCID', '')}"
    return Worker(job=job_id(env), host=env.get("SLURMD_NODENAME", host), pid=os.getpid(), task=task)
