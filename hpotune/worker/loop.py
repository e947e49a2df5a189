"""The worker: claim, evaluate, tell, until nothing is left to start. The only writer of trials' ends; one a job."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from hpotune.objective.interface import Evaluate, TrialContext, failed_result
from hpotune.objective.process import PAUSE_SIGNAL, StopRequest
from hpotune.objective.registry import open_objective
from hpotune.records.stop_reason import StopReason
from hpotune.records.trial import LOCAL, Cause, Failure, TrialResult, TrialRow, Worker
from hpotune.schedule.failures import bad_nodes
from hpotune.schedule.gpu_hours import gpus_per_job
from hpotune.schedule.job_fit import MARGIN_S, expected_s, fits
from hpotune.schedule.retention import adapters_to_delete, checkpoints_to_delete
from hpotune.schedule.rounds import look_s
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.storage import (
    Claim,
    TrialQueue,
    Wait,
    is_worker_process,
    lease_expired,
    newest_write,
    output_reader,
    stale_on_host,
)
from hpotune.worker.monitor import Now, Shift, say, watched
from hpotune.worker.rival import surely_worse_than
from hpotune.worker.spec import spec_without_point, with_point
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder, wait_for_disk_space
from hpotune.workspace.timeline import Diary

PATIENCE_S = 120
"""How long a worker waits for a disk that is full."""
ROOM_POLL_S = 5.0
"""How often it looks whether there is room again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a worker came to."""

    taken: int
    """Trials."""
    broken_node: bool
    """Whether its node breaks what runs on it."""


def work(
    folder: StudyFolder,
    *,
    me: Worker,
    trials: int | None,
    env: Mapping[str, str],
    deadline: float | None = None,
    code: str | None = None,
    requeued: Cause = "preempted",
    now: Now = datetime.now,
) -> Done:
    """Evaluates trials until the study stops, `trials` have been taken, its time is out, or a signal asks to end.

    `deadline`: when its job ends, in Unix seconds. `code`: the snapshot to run; None: the newest.
    `requeued`: why Slurm started the job again, if it did.

    Raises: StoreError when the store is away for minutes, HpotuneError when the disk is full for minutes.
    """
    study = folder.load()
    provenance = folder.provenance()
    store = TrialQueue.open(str(provenance["store"]), study, patient=True)
    stop = StopRequest()
    stop.listen()
    diary = Diary(folder=folder, me=me, started=float(env.get("HPOTUNE_JOB_START") or time.time()))
    shift = Shift(
        folder=folder, study=study, store=store, me=me, stop=stop, diary=diary, now=now, deadline=deadline,
        home=str(provenance["home"]), code=find_snapshot(folder, code),
    )  # fmt: skip
    diary.begin()
    _sweep_own(shift, requeued)
    with open_objective(TrialContext(config=study.config, env=env, stop=stop)) as evaluate, watched(shift):
        taken = _take_turns(shift, evaluate, trials=trials)
    stop.go_deaf()
    diary.end()
    return Done(taken=taken, broken_node=me.job != LOCAL and me.host in bad_nodes(store.rows()))


def _sweep_own(shift: Shift, requeued: Cause) -> None:
    """Settles what this job, or this machine, left running in an earlier life."""
    left = output_reader(shift.folder)
    if shift.me.job == LOCAL:
        dead = stale_on_host(shift.me.host)
        shift.store.requeue_stale(lambda row: dead(row.worker) if row.worker else None, read_output=left)
    else:
        is_worker_process = partial(_beside, shift.me)
        shift.store.requeue_own(shift.me, is_running=is_worker_process, read_output=left, cause=requeued)


def _take_turns(shift: Shift, evaluate: Evaluate, *, trials: int | None) -> int:
    """Trial after trial; returns how many were taken."""
    taken, since, phase = 0, shift.diary.started, "start"
    while trials is None or taken < trials:
        shift.store.config = shift.folder.current_config(shift.study)
        rows = shift.store.rows()
        _drop_adapters(shift, rows)
        if _over(shift, rows):
            break
        enough = partial(fits, shift.config, rows, left_s=shift.left_s)
        claim = shift.store.claim(shift.me, fits=enough)
        if isinstance(claim, Wait) and claim.why == "time":
            say("no trial fits into what is left of this job")
            break
        if not isinstance(claim, Claim):
            _mark_useful(shift)  # that others were quicker is no fault of the job's
            if claim is None:
                say("no trial is left to start")
                break
            _wait(shift, rows)
            continue
        if reason := _beyond_budget(shift, claim):
            shift.store.pause(claim.trial_id, owner=shift.me)
            say(f"trial {claim.row.number} is left: {reason.text}")
            break
        shift.diary.span(phase, since)
        taken += 1
        _mark_useful(shift)
        begun = time.time()
        result = _one(claim, shift, evaluate)
        shift.diary.span("trial", begun, trial=claim.row.number)
        if result.failure is not None and result.failure.cause == "store":
            _wait_for_room(shift)
        since, phase = time.time(), "idle"
    if trials is not None and taken >= trials:  # else the last look has done it
        _drop_adapters(shift, shift.store.rows())
    return taken


def _beyond_budget(shift: Shift, claim: Claim) -> StopReason | None:
    """Why a trial that was just taken may not run: of several taken at once the first get the rest of the budget."""
    if shift.config.budget.gpu_hours is None:
        return None
    mine = (claim.row.start or 0.0, claim.row.number)
    before = [
        row
        for row in shift.store.rows()
        if row.number != claim.row.number
        and not (row.state == "running" and (row.start or 0.0, row.number) > mine)
    ]
    return stop_reason(shift.config, before, now=shift.now())


def _wait(shift: Shift, rows: Sequence[TrialRow]) -> None:
    """For the others of the round; tells those that gave no sign of life."""
    shift.over.wait(look_s(expected_s(shift.config, rows)))
    dead = lease_expired(shift.config.execution.lease_s)
    shift.store.requeue_stale(dead, read_output=output_reader(shift.folder))


def _wait_for_room(shift: Shift) -> None:
    """Until the study's folder takes files again: the next trial would fail as this one did."""
    wait_for_disk_space(
        shift.folder, patience_s=PATIENCE_S, pause_s=ROOM_POLL_S, say=say,
        stop=lambda: shift.stop.signal is not None,
    )  # fmt: skip


def _mark_useful(shift: Shift) -> None:
    """Says that this job was worth submitting; a full disk is the trial's to meet."""
    with suppress(OSError):
        shift.folder.took_trial(shift.me.job).touch()


def _beside(me: Worker, other: Worker) -> bool:
    """Whether another worker lives here: one batch script may start several by hand, all of one job and task."""
    return other.host == me.host and other.pid != me.pid and is_worker_process(other.pid)


def _over(shift: Shift, rows: Sequence[TrialRow]) -> bool:
    """Whether this worker has nothing more to do, and says why."""
    if shift.stop.signal is not None:
        say(f"asked to end (signal {shift.stop.signal})")
        return True
    if reason := stop_reason(shift.config, rows, now=shift.now()):
        _mark_useful(shift)
        say(f"the study is over: {reason.text}")
        return True
    if shift.me.job == LOCAL and shift.folder.cancelled.exists():
        say("the study was cancelled")
        return True
    if shift.me.job != LOCAL and (why := bad_nodes(rows).get(shift.me.host)):
        say(f"this node ({shift.me.host}) breaks what runs on it, so this worker ends: {why}")
        return True
    return False


def _one(claim: Claim, shift: Shift, evaluate: Evaluate) -> TrialResult:
    number, begun = claim.row.number, time.time()
    way = "" if claim.row.rung is None else f", towards rung {claim.row.rung + 1}"
    if claim.row.lineage is not None:
        way = f", generation {claim.row.generation + 1}, from trial {claim.row.lineage.parent}"
    say(f"trial {number} starts: {dict(claim.row.params) or claim.row.kind}{way}")
    shift.holding = claim
    result = _evaluated(claim, shift, evaluate)
    shift.holding = None
    seconds = time.time() - begun
    cost = {
        "gpu_hours": seconds / 3600 * gpus_per_job(shift.config)
    }  # where its own processes have not counted it
    result = result.model_copy(update={"metrics": {**cost, **result.metrics, "seconds": round(seconds, 3)}})
    say(f"trial {number} {_told(claim, result, shift)}")
    return result


def _told(claim: Claim, result: TrialResult, shift: Shift) -> str:
    """Tells the result and says what became of it; of a trial that has failed the large files in its folder go."""
    store, own = shift.store, shift.folder.trial(claim.row.number)
    checkpoint = newest_write(own / "checkpoint")
    if result.state == "finished" and result.rung is not None:
        worse = partial(surely_worse_than, shift.folder, shift.config)
        reached = store.record_rung(
            claim.trial_id, result, owner=claim.row.worker, checkpoint=checkpoint, is_worse=worse
        )
        return f"{_REACHED[reached].format(rung=result.rung + 1)}: {result.values}"
    if result.state == "finished":
        done = store.complete(claim.trial_id, result)
        return f"finished: {result.values}" if done else "finished, but somebody else has ended it"
    failure = result.failure or _taken_away(shift)
    if failure is None:
        store.pause(claim.trial_id, owner=claim.row.worker, checkpoint=checkpoint)
        return "paused: it goes back in line"
    outcome = store.record_failure(
        claim.trial_id, failure, metrics=result.metrics, owner=claim.row.worker, checkpoint=checkpoint
    )
    if outcome == "failed":
        for name in ("checkpoint", "adapter"):
            shutil.rmtree(own / name, ignore_errors=True)
    words = {"failed": "failed", "again": "goes back in line", "": "failed, but somebody else runs it by now"}
    return f"{words[outcome]} ({failure.cause}): {failure.message}"


_REACHED = {
    "finished": "finished",
    "rung": "reached rung {rung}, where it rests until it may go on",
    "stopped": "reached rung {rung} and was stopped there, others were better",
    "": "reached rung {rung}, but somebody else runs it by now",
}


def _taken_away(shift: Shift) -> Failure | None:
    """Why the cluster took the job that a paused trial ran in; None where somebody asked for its end."""
    if shift.stop.signal != PAUSE_SIGNAL:
        return None
    if shift.left_s is not None and shift.left_s > 2 * MARGIN_S:
        return Failure(
            cause="preempted", message=f"its job {shift.me.job} had to make room on {shift.me.host}"
        )
    return Failure(cause="timeout", message=f"the time of its job {shift.me.job} was out on {shift.me.host}")


def _evaluated(claim: Claim, shift: Shift, evaluate: Evaluate) -> TrialResult:
    """The trial's result; whatever goes wrong here (a point that breaks a rule, a full disk) is its failure."""
    spec = spec_without_point(claim.row, shift.study, shift.folder, home=shift.home)
    try:
        spec = with_point(spec, claim.row, shift.study)
        Path(spec.folder).mkdir(parents=True, exist_ok=True)
        return evaluate([shift.code.applied(spec) if shift.code else spec])[0]
    except Exception as error:  # the worker's edge: it lives on
        with suppress(OSError):  # the log may lie on a full disk
            traceback.print_exc()
        cause = (
            "user" if isinstance(error, ValueError) else "store" if isinstance(error, OSError) else "unknown"
        )
        return failed_result(spec, cause, f"{type(error).__name__}: {error}")


def _drop_adapters(shift: Shift, rows: Sequence[TrialRow]) -> None:
    """Removes adapters that `keep` does not want; two workers doing so at once do no harm.

    Checkpoints of trials that were stopped at a rung go too, and those that nobody will go on from.
    """
    keep = shift.config.keep.best
    # one that was worse than `keep` others stays so: of thousands of trials only the rest is looked at again
    left = [row for row in rows if (row.number, "adapter") not in shift.dropped]
    gone = {
        "checkpoint": checkpoints_to_delete(rows),
        "adapter": [] if keep == "all" else adapters_to_delete(shift.config.score.objective, left, keep=keep),
    }
    for name, numbers in gone.items():
        for number in numbers:
            if (number, name) not in shift.dropped:
                shutil.rmtree(shift.folder.trial(number) / name, ignore_errors=True)
                shift.dropped.add((number, name))


def this_worker(env: Mapping[str, str], *, host: str) -> Worker:
    """Who this process is, by Slurm's variables where it is in a job."""
    job = env.get("SLURM_JOB_ID", LOCAL)
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    task = f"{env.get('SLURM_STEP_ID', '')}.{env.get('SLURM_PROCID', '')}"
    return Worker(job=job, host=env.get("SLURMD_NODENAME", host), pid=os.getpid(), task=task)
