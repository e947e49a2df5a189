"""The worker: claim, evaluate, tell, until nothing is left to start. The only writer of trials' ends; one a job."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from signal import SIGTERM

from hpotune.errors import HpotuneError, StoreError
from hpotune.objective.process import PAUSE, Stop
from hpotune.objective.registry import open_objective
from hpotune.objective.socket import Evaluate, Setting, failed
from hpotune.plan.budget import dropped, gpus_of, stop_reason
from hpotune.plan.faults import bad_nodes
from hpotune.plan.lifetime import MARGIN_S, fits
from hpotune.store import Claim, Store, Wait, alive, dead_here, results_in, silent, written
from hpotune.study.config import StudyConfig
from hpotune.study.diary import Diary
from hpotune.study.folder import StudyFolder, check_writable
from hpotune.study.load import Study
from hpotune.study.snapshot import Code, code_of
from hpotune.study.trial import LOCAL, Cause, Failure, TrialResult, TrialRow, TrialSpec, Worker

Now = Callable[[], datetime]
PATIENCE_S = 120
"""How long a worker waits for a disk that is full."""
BEATS = 5
"""Signs of life in the time of one lease."""
ROUND_POLL_S = 5.0
"""How often a worker that waits for the others of its round looks into the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a worker came to."""

    taken: int
    """Trials."""
    broken_node: bool
    """Whether its node breaks what runs on it."""


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
    deadline: float | None
    """When its job ends, in Unix seconds; None: nobody knows."""
    code: Code | None = None
    """The snapshot of the study's code that it runs."""
    holding: Claim | None = None
    """The trial that it evaluates."""
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
    store = Store.open(str(folder.provenance()["store"]), study, patient=True)
    stop = Stop()
    stop.listen()
    diary = Diary(folder=folder, me=me, started=float(env.get("HPOTUNE_JOB_START") or time.time()))
    shift = Shift(
        folder=folder, study=study, store=store, me=me, stop=stop, diary=diary, now=now, deadline=deadline,
        code=code_of(folder, code),
    )  # fmt: skip
    diary.begin()
    _sweep_own(shift, requeued)
    with open_objective(Setting(config=study.config, env=env, stop=stop)) as evaluate, _watched(shift):
        taken = _take_turns(shift, evaluate, trials=trials)
    stop.go_deaf()
    diary.end()
    return Done(taken=taken, broken_node=me.job != LOCAL and me.host in bad_nodes(store.rows()))


def _sweep_own(shift: Shift, requeued: Cause) -> None:
    """Settles what this job, or this machine, left running in an earlier life."""
    left = results_in(shift.folder)
    if shift.me.job == LOCAL:
        dead = dead_here(shift.me.host)
        shift.store.sweep(lambda row: dead(row.worker) if row.worker else None, left=left)
    else:
        alive = partial(_beside, shift.me)
        shift.store.put_back(shift.me, alive=alive, left=left, cause=requeued)


def _take_turns(shift: Shift, evaluate: Evaluate, *, trials: int | None) -> int:
    """Trial after trial; returns how many were taken."""
    taken, since, phase = 0, shift.diary.started, "start"
    while trials is None or taken < trials:
        shift.store.config = shift.folder.config_now(shift.study)
        rows = shift.store.rows()
        if _over(shift, rows):
            break
        enough = partial(fits, shift.config, rows, left_s=shift.left_s)
        claim = shift.store.claim(shift.me, fits=enough)
        if claim is None or (isinstance(claim, Wait) and claim.why == "round"):
            _mark_useful(shift)  # that others were quicker is no fault of the job's
        if isinstance(claim, Wait) and claim.why == "round":
            _wait(shift)
            continue
        if not isinstance(claim, Claim):
            _say("no trial fits into what is left of this job" if claim else "no trial is left to start")
            break
        if reason := _beyond_budget(shift, claim):
            shift.store.pause(claim.trial_id, owner=shift.me)
            _say(f"trial {claim.row.number} is left: {reason}")
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
    return taken


def _beyond_budget(shift: Shift, claim: Claim) -> str | None:
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


def _wait(shift: Shift) -> None:
    """For the others of the round; tells those that gave no sign of life."""
    shift.over.wait(ROUND_POLL_S if shift.me.job != LOCAL else 1.0)
    dead = silent(shift.config.execution.lease_s)
    shift.store.sweep(dead, left=results_in(shift.folder))


def _wait_for_room(shift: Shift) -> None:
    """Until the study's folder takes files again: the next trial would fail as this one did.

    Raises: HpotuneError when it does not for minutes.
    """
    until = time.monotonic() + PATIENCE_S
    while shift.stop.signal is None:
        try:
            check_writable(shift.folder)
            return
        except HpotuneError as error:
            if time.monotonic() >= until:
                raise
            _say(f"waiting: {error}")
        time.sleep(ROUND_POLL_S)


def _mark_useful(shift: Shift) -> None:
    """Says that this job was worth submitting; a full disk is the trial's to meet."""
    with suppress(OSError):
        shift.folder.took_trial(shift.me.job).touch()


def _beside(me: Worker, other: Worker) -> bool:
    """Whether another worker lives here: one batch script may start several by hand, all of one job and task."""
    return other.host == me.host and other.pid != me.pid and alive(other.pid)


def _over(shift: Shift, rows: Sequence[TrialRow]) -> bool:
    """Whether this worker has nothing more to do, and says why."""
    if shift.stop.signal is not None:
        _say(f"asked to end (signal {shift.stop.signal})")
        return True
    if reason := stop_reason(shift.config, rows, now=shift.now()):
        _mark_useful(shift)
        _say(f"the study is over: {reason}")
        return True
    if shift.me.job == LOCAL and shift.folder.cancelled.exists():
        _say("the study was cancelled")
        return True
    if shift.me.job != LOCAL and (why := bad_nodes(rows).get(shift.me.host)):
        _say(f"this node ({shift.me.host}) breaks what runs on it, so this worker ends: {why}")
        return True
    return False


@contextmanager
def _watched(shift: Shift) -> Iterator[None]:
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
        _say("the time of this job is nearly out: its trial is told to checkpoint")
        shift.stop.ask(PAUSE)
    shift.diary.beat()
    holding = shift.holding
    if holding is None:
        return
    if not shift.store.beat(holding.trial_id, owner=shift.me) and shift.holding is holding:
        _say(f"trial {holding.row.number} is somebody else's by now: it is ended here")
        shift.stop.abandon(kill=shift.abandoned == holding.trial_id)
        shift.abandoned = holding.trial_id
    if shift.config.budget.on_end == "cancel" and shift.stop.signal is None:
        config = shift.folder.config_now(shift.study)
        if reason := stop_reason(config, shift.store.rows(), now=shift.now(), starting=False):
            _say(f"the study is over: {reason}; its running trials are stopped (budget.on_end: cancel)")
            shift.stop.ask(SIGTERM)


def _until_look(shift: Shift, pause_s: float) -> float:
    """Seconds until the next look: at the end of the job at the latest."""
    if shift.left_s is None or shift.stop.signal is not None:
        return pause_s
    return min(pause_s, max(0.1, shift.left_s))


def _one(claim: Claim, shift: Shift, evaluate: Evaluate) -> TrialResult:
    number, begun = claim.row.number, time.time()
    _say(f"trial {number} starts: {dict(claim.row.params) or claim.row.kind}")
    shift.holding = claim
    result = _evaluated(claim, shift, evaluate)
    shift.holding = None
    seconds = time.time() - begun
    cost = {
        "gpu_hours": seconds / 3600 * gpus_of(shift.config)
    }  # where its own processes have not counted it
    result = result.model_copy(update={"metrics": {**cost, **result.metrics, "seconds": round(seconds, 3)}})
    _say(f"trial {number} {_told(claim, result, shift)}")
    if result.state == "finished":
        _drop_adapters(shift.store, shift.study, shift.folder)
    return result


def _told(claim: Claim, result: TrialResult, shift: Shift) -> str:
    """Tells the result and says what became of it; of a trial that has failed the large files in its folder go."""
    store, own = shift.store, shift.folder.trial(claim.row.number)
    checkpoint = written(own / "checkpoint")
    if result.state == "finished":
        done = store.finish(claim.trial_id, result)
        return f"finished: {result.values}" if done else "finished, but somebody else has ended it"
    failure = result.failure or _taken_away(shift)
    if failure is None:
        store.pause(claim.trial_id, owner=claim.row.worker, checkpoint=checkpoint)
        return "paused: it goes back in line"
    outcome = store.fail(
        claim.trial_id, failure, metrics=result.metrics, owner=claim.row.worker, checkpoint=checkpoint
    )
    if outcome == "failed":
        for name in ("checkpoint", "adapter"):
            shutil.rmtree(own / name, ignore_errors=True)
    words = {"failed": "failed", "again": "goes back in line", "": "failed, but somebody else runs it by now"}
    return f"{words[outcome]} ({failure.cause}): {failure.message}"


def _taken_away(shift: Shift) -> Failure | None:
    """Why the cluster took the job that a paused trial ran in; None where somebody asked for its end."""
    if shift.stop.signal != PAUSE:
        return None
    if shift.left_s is not None and shift.left_s > 2 * MARGIN_S:
        return Failure(
            cause="preempted", message=f"its job {shift.me.job} had to make room on {shift.me.host}"
        )
    return Failure(cause="timeout", message=f"the time of its job {shift.me.job} was out on {shift.me.host}")


def _evaluated(claim: Claim, shift: Shift, evaluate: Evaluate) -> TrialResult:
    """The trial's result; whatever goes wrong here (a point that breaks a rule, a full disk) is its failure."""
    home = str(shift.folder.provenance()["home"])
    spec = _spec_without_point(claim, shift.study, shift.folder, home=home)
    try:
        spec = trial_spec(claim, shift.study, shift.folder, home=home)
        Path(spec.folder).mkdir(parents=True, exist_ok=True)
        return evaluate([shift.code.applied(spec) if shift.code else spec])[0]
    except Exception as error:  # the worker's edge: it lives on
        with suppress(OSError):  # the log may lie on a full disk
            traceback.print_exc()
        cause = (
            "user" if isinstance(error, ValueError) else "store" if isinstance(error, OSError) else "unknown"
        )
        return failed(spec, cause, f"{type(error).__name__}: {error}")


def trial_spec(claim: Claim, study: Study, folder: StudyFolder, *, home: str) -> TrialSpec:
    """Everything the trial's process needs.

    Raises: ValueError for a point that breaks a rule of the study file only there.
    """
    blank = _spec_without_point(claim, study, folder, home=home)
    if claim.row.kind == "baseline":
        return blank
    return blank.model_copy(update={"point": study.point(claim.row.params)})


def _spec_without_point(claim: Claim, study: Study, folder: StudyFolder, *, home: str) -> TrialSpec:
    config = study.config
    return TrialSpec(
        study=config.name,
        number=claim.row.number,
        kind=claim.row.kind,
        seed=config.search.seed,
        folder=str(folder.trial(claim.row.number)),
        point=study.base(),
        checks=config.checks,
        data_root=config.data_root,
        offline=config.env.offline,
        python=config.python,
        command=config.command,
        home=home,
    )


def _drop_adapters(store: Store, study: Study, folder: StudyFolder) -> None:
    """Removes adapters that `keep` does not want; two workers doing so at once do no harm."""
    keep = study.config.keep.best
    if keep != "all":
        for number in dropped(study.config.score.objective, store.rows(), keep=keep):
            shutil.rmtree(folder.trial(number) / "adapter", ignore_errors=True)


def this_worker(env: Mapping[str, str], *, host: str) -> Worker:
    """Who this process is, by Slurm's variables where it is in a job."""
    job = env.get("SLURM_JOB_ID", LOCAL)
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    task = f"{env.get('SLURM_STEP_ID', '')}.{env.get('SLURM_PROCID', '')}"
    return Worker(job=job, host=env.get("SLURMD_NODENAME", host), pid=os.getpid(), task=task)


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk costs a line of the log, not the worker
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", file=sys.stderr, flush=True)  # noqa: T201 - a job's log
