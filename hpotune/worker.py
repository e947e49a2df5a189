"""The worker: claim, evaluate, tell, until nothing is left to start. The only writer of trials' ends; one a job."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from hpotune.objective.process import Stop
from hpotune.objective.registry import open_objective
from hpotune.objective.socket import Evaluate, Setting, failed
from hpotune.plan.budget import dropped, stop_reason
from hpotune.store import Claim, Store, dead_here, results_in, written
from hpotune.study.folder import StudyFolder
from hpotune.study.load import Study
from hpotune.study.trial import LOCAL, TrialResult, TrialSpec, Worker

Now = Callable[[], datetime]


def work(
    folder: StudyFolder, *, me: Worker, trials: int | None, env: Mapping[str, str], now: Now = datetime.now
) -> int:
    """Evaluates trials until the study stops, `trials` have been taken, or a signal asks to end.

    Returns how many it took.

    Raises: StoreError when the store is away for minutes.
    """
    study = folder.load()
    store = Store.open(str(folder.provenance()["store"]), study, patient=True)
    stop = Stop()
    stop.listen()
    taken = 0
    if me.job == LOCAL:
        store.sweep(dead_here(me.host), left=results_in(folder))
    else:
        store.put_back(me, alive=lambda other: _beside(me, other), left=results_in(folder))
    with open_objective(Setting(config=study.config, env=env, stop=stop)) as evaluate:
        while (trials is None or taken < trials) and not _over(store, study, stop, now=now):
            claim = store.claim(me)
            if claim is None:
                _say("no trial is left to start")
                break
            taken += 1
            if folder.took_trial(me.job).parent.is_dir():
                folder.took_trial(me.job).touch()
            _one(claim, store, study, folder, evaluate)
    stop.go_deaf()
    return taken


def _beside(me: Worker, other: Worker) -> bool:
    """Whether another worker lives here: one batch script may start several by hand, all of one job and task."""
    return other.host == me.host and other.pid != me.pid and Path(f"/proc/{other.pid}").exists()


def _over(store: Store, study: Study, stop: Stop, *, now: Now) -> bool:
    if stop.signal is not None:
        _say(f"asked to end (signal {stop.signal})")
        return True
    reason = stop_reason(study.config.budget, study.config.score.objective, store.rows(), now=now())
    if reason:
        _say(f"the study is over: {reason}")
    return reason is not None


def _one(claim: Claim, store: Store, study: Study, folder: StudyFolder, evaluate: Evaluate) -> None:
    number, begun = claim.row.number, time.time()
    _say(f"trial {number} starts: {dict(claim.row.params) or claim.row.kind}")
    result = _evaluated(claim, study, folder, evaluate, home=str(folder.provenance()["home"]))
    seconds = time.time() - begun
    cost = {"gpu_hours": seconds / 3600 * _gpus(study)}  # where its own processes have not counted it
    result = result.model_copy(update={"metrics": {**cost, **result.metrics, "seconds": round(seconds, 3)}})
    if _told(claim, result, store, own=folder.trial(number)):
        _say(f"trial {number} {result.state}: {result.failure.message if result.failure else result.values}")
    else:
        _say(f"trial {number} {result.state}, but somebody else has ended it or runs it by now")
    if result.state == "finished":
        _drop_adapters(store, study, folder)


def _gpus(study: Study) -> int:
    """GPUs of one job."""
    return study.config.resources.nodes * study.config.resources.gpus_per_node


def _told(claim: Claim, result: TrialResult, store: Store, *, own: Path) -> bool:
    """Tells the result; of a failed trial the large files in its own folder go."""
    if result.state == "finished":
        return store.finish(claim.trial_id, result)
    if result.state == "paused":
        return store.pause(claim.trial_id, owner=claim.row.worker, checkpoint=written(own / "checkpoint"))
    assert result.failure is not None, "a failed result has its reason"
    told = store.fail(claim.trial_id, result.failure, metrics=result.metrics, owner=claim.row.worker)
    for name in ("checkpoint", "adapter") if told else ():
        shutil.rmtree(own / name, ignore_errors=True)
    return told


def _evaluated(
    claim: Claim, study: Study, folder: StudyFolder, evaluate: Evaluate, *, home: str
) -> TrialResult:
    """The trial's result; whatever goes wrong here (a point that breaks a rule, a full disk) is its failure."""
    spec = _spec_without_point(claim, study, folder, home=home)
    try:
        spec = trial_spec(claim, study, folder, home=home)
        Path(spec.folder).mkdir(parents=True, exist_ok=True)
        return evaluate([spec])[0]
    except Exception as error:  # the worker's edge: it lives on
        traceback.print_exc()
        cause = "user" if isinstance(error, ValueError) else "unknown"
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
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", file=sys.stderr, flush=True)  # noqa: T201 - a job's log
