"""`plan --probe`: a short copy of the study that measures times: a few trials, one a job, and a follow-up.

Measured: time in the queue, start of a job, loading, trial, baseline, gap between jobs, follow-up. A fine-tuning stops
after some optimizer steps; its time is extrapolated to the whole training.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, cast

from hpotune.checks.study_file import Checked, check
from hpotune.config.json_file import DamagedFileError, decoding, read_regular
from hpotune.config.load import build_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import ClusterError, HpotuneError
from hpotune.launch.cancel import cancel_study
from hpotune.launch.follow_up import follow_up
from hpotune.launch.run_local import run_study
from hpotune.planning.estimate import PLAN_KEYS, MeasuredTimes, probe_values, stored_name
from hpotune.planning.measured_times import measured_times, submissions
from hpotune.planning.study_plan import probe_file
from hpotune.records.trial import TrialRow
from hpotune.schedule.rounds import width
from hpotune.slurm.commands import require_slurm
from hpotune.slurm.study_jobs import query_jobs
from hpotune.storage import TrialQueue
from hpotune.storage.backends import connect
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.code_snapshot import snapshot_code
from hpotune.workspace.folder import StudyFolder, make_folder

AT_ONCE = 4
"""Jobs of a probe that run at the same time, at most: many that start together are slow. One more runs after them."""
STEPS = 20
"""Optimizer steps of a trial of the probe."""
PATIENCE_S = 3600
"""Time limit of a probe, in seconds, with its time in the queue."""
POLL_S = 2.0
"""Interval, in seconds, at which the probe's files are read."""
ASK_S = 30.0
"""Interval, in seconds, at which Slurm is asked for the states of its jobs."""
Say = Callable[[str], None]


def probe(
    target: Path, folder: StudyFolder, *, data_root: str | None, say: Say, patience_s: float = PATIENCE_S
) -> dict[str, float]:
    """Run the probe, on Slurm or on this machine, and write its file for later plans. Returns the values by name.

    Raises: HpotuneError where the copy fails or does not end in time; its folder is deleted.
    """
    checked = check(target, data_root=data_root)
    if checked.study.config.execution.place == "hyperqueue":
        raise ClusterError(
            f"{target}: --probe measures jobs of Slurm, and execution.place is hyperqueue; write plan.trial_s instead"
        )
    parent = folder.path.parent
    parent.mkdir(parents=True, exist_ok=True)
    hidden = tempfile.TemporaryDirectory(
        dir=parent, prefix=f".{folder.path.name}-probe-", ignore_cleanup_errors=True
    )
    with hidden as scratch:
        copy_folder = StudyFolder(path=Path(scratch) / "probe")
        store, config = _make_study(copy_folder, checked)
        _run(copy_folder, store, config, say=say, until=time.monotonic() + patience_s)
        rows = store.rows()
        found = probe_values(
            _whole(copy_folder, checked.study.config, rows, measured_times(copy_folder, rows))
        )
    values = {stored_name(name): value for name, value in found.items()}
    stored = {"probed": datetime.now().isoformat(timespec="seconds"), **values}
    write_atomic(probe_file(folder), json.dumps(stored, indent=1) + "\n")
    if not folder.resolved_file.is_file():
        lines = ", ".join(f"{name}: {found[name]:g}" for name in PLAN_KEYS if name in found)
        say(f"probed; kept in {probe_file(folder)}, or write into the study file: plan: {{{lines}}}")
    return found


def probe_values_of(values: Mapping[str, Value], *, at_once: int) -> dict[str, Value]:
    """The study file of the probe: `at_once` jobs of one trial at the same time, and one after them."""
    copy: dict[str, Value] = {key: value for key, value in values.items() if key not in ("store", "retry")}
    copy["name"] = f"{str(values['name'])[:57]}-probe"
    copy["budget"] = {"trials": at_once + 1, "parallel": at_once, "max_failed": 0}
    copy["execution"] = {"mode": "async", "trials_per_job": 1}
    copy["search"] = {"algorithm": "random"}  # and no rungs: whole trials are timed
    if values.get("model") is not None and values.get("data") is not None:
        copy["keep"] = {"best": 0}
        train = values.get("train")
        copy["train"] = {**(train if isinstance(train, dict) else {}), "max_steps": STEPS}
    return copy


def _make_study(folder: StudyFolder, checked: Checked) -> tuple[TrialQueue, StudyConfig]:
    values = probe_values_of(checked.study.source.values, at_once=min(width(checked.study.config), AT_ONCE))
    source = replace(checked.study.source, values=values)
    study = build_study(source)
    url, _ = connect.choose("auto", folder.path)
    make_folder(folder, source, home=checked.home, store_url=url)
    snapshot_code(folder, values, home=checked.home)
    return TrialQueue.create(url, study, folder=str(folder.path)), study.config


def _run(folder: StudyFolder, store: TrialQueue, config: StudyConfig, *, say: Say, until: float) -> None:
    """Run its trials and the follow-up."""
    try:
        require_slurm()
    except ClusterError:
        say("Slurm not found: the probe runs on this machine")
        run_study(folder, store, config, show=lambda: None)
        _check(folder, store)
        return
    try:
        done = follow_up(folder, store, config, now=datetime.now())
        say(
            f"submitted the probe as job {', '.join(done.submitted)}; it waits in the queue like the study's own"
        )
        _wait(folder, store, config, say=say, until=until)
    finally:
        with suppress(HpotuneError):
            cancel_study(folder, store)


def _wait(folder: StudyFolder, store: TrialQueue, config: StudyConfig, *, say: Say, until: float) -> None:
    """Wait until its trials and the follow-up have ended; reads files, and asks Slurm twice a minute.

    Raises: ClusterError where they do not end in time, or their jobs ended before the trials.
    """
    asked = time.monotonic()
    while not _ended(folder, store, config):
        time.sleep(POLL_S)
        if time.monotonic() > until:
            raise ClusterError(
                "the probe did not end in time; write known times into the study file, e.g. "
                "plan: {trial_s: 600, queue_s: 3600}"
            )
        if time.monotonic() - asked > ASK_S:
            asked = time.monotonic()
            _look(folder, store, config, say=say)
    _check(folder, store)


def _look(folder: StudyFolder, store: TrialQueue, config: StudyConfig, *, say: Say) -> None:
    """Report the states of its jobs.

    Raises: ClusterError where none is active and the probe has not ended.
    """
    rows = query_jobs(folder, store.rows())
    states = ", ".join(sorted({row.state.lower() for row in rows}))
    waits = sorted({row.reason for row in rows if row.state == "PENDING" and row.kind == "worker"} - {""})
    say(f"the probe: {states} {' '.join(waits)}".rstrip())
    if not any(row.active for row in rows) and not _ended(folder, store, config):
        raise ClusterError(
            f"the probe's jobs ended before its trials; the log of a job says: {_last_error(folder)}"
        )


def _last_error(folder: StudyFolder) -> str:
    """The last error in a job's log."""
    for log in sorted(folder.jobs.glob("*/*.out")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.strip() for line in lines if "rror" in line and "srun" not in line]
        if errors:
            return errors[-1]
    return "no error"


def _ended(folder: StudyFolder, store: TrialQueue, config: StudyConfig) -> bool:
    rows = store.rows()
    if any(row.state == "failed" for row in rows):
        return True
    if sum(row.decided for row in rows) < config.budget.trials:
        return False
    heartbeats = [beat for job in submissions(folder) for beat in job.heartbeats]
    if any(beat.end is None for beat in heartbeats):
        return False
    return config.resources.follow_up is not True or follow_up_finished_at(folder) is not None


def follow_up_finished_at(folder: StudyFolder) -> float | None:
    """When the first follow-up job ended, in Unix seconds by the file system's clock; None before."""
    jobs = submissions(folder, kind="follow-up")
    return next((beat.last_beat for job in jobs for beat in job.heartbeats if beat.end is not None), None)


def _check(folder: StudyFolder, store: TrialQueue) -> None:
    """Raise the failure of a trial of the probe.

    Raises: HpotuneError with the end of the trial's log.
    """
    for row in store.rows():
        if row.state == "failed" and row.failure:
            log = folder.trial(row.number) / "log.txt"
            tail = (
                log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:] if log.is_file() else []
            )
            raise HpotuneError(
                "\n".join(
                    [
                        f"the probe's trial {row.number} failed ({row.failure.cause}): {row.failure.message}",
                        *tail,
                    ]
                )
            )


def _whole(
    folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow], seen: MeasuredTimes
) -> MeasuredTimes:
    """The measured times, with training extrapolated to its whole length, and the time of the follow-up."""
    more = [
        extrapolated_s(folder, config, row) for row in rows if row.kind == "trial" and row.state == "finished"
    ]
    trials = tuple(seconds + extra for seconds, extra in zip(seen.trials, more, strict=True))
    steps = list(seen.follow_ups)
    spoke = follow_up_finished_at(folder)
    ends = [beat.end for job in submissions(folder) for beat in job.heartbeats if beat.end is not None]
    if spoke is not None and ends:
        queue_s = median(seen.queues) if seen.queues else 0.0
        steps.append(max(0.0, spoke - max(ends) - queue_s))
    return replace(seen, trials=trials, follow_ups=tuple(steps))


def extrapolated_s(folder: StudyFolder, config: StudyConfig, row: TrialRow) -> float:
    """Seconds that the whole training takes longer than the probe's steps; 0 where nothing is trained."""
    steps, batch, rows = (row.metrics.get(key) for key in ("steps", "global_batch_size", "train_rows"))
    lines = _curve(folder.trial(row.number) / "curve.jsonl")
    if not isinstance(steps, int) or not isinstance(batch, int) or not isinstance(rows, int) or not lines:
        return 0.0
    first, last = lines[0], lines[-1]
    if last["step"] > first["step"]:  # the first steps warm up
        each = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    else:
        each = last["seconds"] / last["step"]
    asked = int(cast(int, config.train.get("max_steps", -1)))
    epochs = float(cast(float, config.train.get("num_train_epochs", 3)))
    whole = asked if asked > 0 else math.ceil(epochs * math.ceil(rows / batch))
    return max(0, whole - steps) * float(each)


def _curve(file: Path) -> list[dict[str, Any]]:
    lines = list[dict[str, Any]]()
    with suppress(DamagedFileError), decoding(file, next_step=""):
        for text in read_regular(file).decode("utf-8", errors="replace").splitlines():
            line = json.loads(text)
            lines.append({**line, "step": int(line["step"]), "seconds": float(line["seconds"])})
    return lines
