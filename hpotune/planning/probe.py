"""A short copy of the study that measures what a plan stands on: a few trials, a job each, and a follow-up step.

The wait in the queue, the start of a job, loading, the trial, the untouched model, the turn from one job to the next,
and what a step takes. A fine-tuning is cut after some optimizer steps, and its time drawn out to the whole training.
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
from typing import Any

from hpotune.checks.study_file import Checked, check
from hpotune.config.load import build_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import ClusterError, HpotuneError
from hpotune.launch.cancel import cancel_study
from hpotune.launch.follow_up import follow_up
from hpotune.launch.run_local import run_study
from hpotune.planning.estimate import GIVEN, Measured, as_numbers
from hpotune.planning.measured_times import measured, submissions
from hpotune.planning.study_plan import probe_file
from hpotune.records.trial import TrialRow
from hpotune.schedule.rounds import width
from hpotune.slurm.commands import require_slurm
from hpotune.slurm.jobs import query_jobs
from hpotune.storage import TrialQueue
from hpotune.storage.backends import connect
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.code_snapshot import snapshot_code
from hpotune.workspace.folder import StudyFolder, make_folder

AT_ONCE = 4
"""Jobs of a probe at once, at most: many that start together are slower than one. One more comes after them."""
STEPS = 20
"""Optimizer steps of a fine-tuning's probe."""
PATIENCE_S = 3600
"""How long a probe may take, the queue counted."""
POLL_S = 2.0
"""How often the probe's own files are looked at."""
ASK_S = 30.0
"""How often Slurm is asked whether its jobs still live."""
Say = Callable[[str], None]


def probe(
    target: Path, folder: StudyFolder, *, data_root: str | None, say: Say, patience_s: float = PATIENCE_S
) -> dict[str, float]:
    """Runs the probe on Slurm, or here where there is none; returns the figures and keeps them for later plans.

    Raises: HpotuneError where the copy does not run, or does not end in time; nothing of it is left.
    """
    checked = check(target, data_root=data_root)
    parent = folder.path.parent
    parent.mkdir(parents=True, exist_ok=True)
    hidden = tempfile.TemporaryDirectory(
        dir=parent, prefix=f".{folder.path.name}-probe-", ignore_cleanup_errors=True
    )
    with hidden as scratch:
        place = StudyFolder(path=Path(scratch) / "probe")
        store, config = _made(place, checked)
        _run(place, store, config, say=say, until=time.monotonic() + patience_s)
        rows = store.rows()
        found = as_numbers(_whole(place, checked.study.config, rows, measured(place, rows)))
    told = {"probed": datetime.now().isoformat(timespec="seconds"), **found}
    write_atomic(probe_file(folder), json.dumps(told, indent=1) + "\n")
    if not folder.resolved_file.is_file():
        lines = ", ".join(f"{name}: {found[name]:g}" for name in GIVEN if name in found)
        say(f"probed; kept in {probe_file(folder)}, or write into the study file: plan: {{{lines}}}")
    return found


def short(values: Mapping[str, Value], *, at_once: int) -> dict[str, Value]:
    """The study's values as the probe runs them: so many jobs of a trial at once, one after them."""
    copy: dict[str, Value] = {key: value for key, value in values.items() if key not in ("store", "retry")}
    copy["name"] = f"{str(values['name'])[:57]}-probe"
    copy["budget"] = {"trials": at_once + 1, "parallel": at_once, "max_failed": 0}
    copy["execution"] = {"mode": "async", "trials_per_job": 1}
    copy["search"] = {"algorithm": "random"}  # and no rungs: whole trials are timed
    if values.get("model") is not None:
        copy["keep"] = {"best": 0}
        train = values.get("train")
        copy["train"] = {**(train if isinstance(train, dict) else {}), "max_steps": STEPS}
    return copy


def _made(place: StudyFolder, checked: Checked) -> tuple[TrialQueue, StudyConfig]:
    values = short(checked.study.source.values, at_once=min(width(checked.study.config), AT_ONCE))
    source = replace(checked.study.source, values=values)
    study = build_study(source)
    url, _ = connect.choose("auto", place.path)
    make_folder(place, source, home=checked.home, store_url=url)
    snapshot_code(place, values, home=checked.home)
    return TrialQueue.create(url, study, folder=str(place.path)), study.config


def _run(place: StudyFolder, store: TrialQueue, config: StudyConfig, *, say: Say, until: float) -> None:
    """All its trials, and the step after them."""
    try:
        require_slurm()
    except ClusterError:
        say("no Slurm here: the probe runs on this machine")
        run_study(place, store, config, show=lambda: None)
        _check(place, store)
        return
    try:
        done = follow_up(place, store, config, now=datetime.now())
        say(
            f"submitted the probe as job {', '.join(done.submitted)}; it waits in the queue like the study's own"
        )
        _wait(place, store, config, say=say, until=until)
    finally:
        with suppress(HpotuneError):
            cancel_study(place, store)


def _wait(place: StudyFolder, store: TrialQueue, config: StudyConfig, *, say: Say, until: float) -> None:
    """Until its trials have ended and the step has spoken; looks at files, and at Slurm twice a minute.

    Raises: ClusterError where they do not end in time, or their jobs have ended without them.
    """
    asked = time.monotonic()
    while not _ended(place, store, config):
        time.sleep(POLL_S)
        if time.monotonic() > until:
            raise ClusterError(
                "the probe has not ended in its time; write what you know into the study file, e.g. "
                "plan: {trial_s: 600, queue_s: 3600}"
            )
        if time.monotonic() - asked > ASK_S:
            asked = time.monotonic()
            _look(place, store, config, say=say)
    _check(place, store)


def _look(place: StudyFolder, store: TrialQueue, config: StudyConfig, *, say: Say) -> None:
    """Says how its jobs are; raises where none of them lives and it has not ended."""
    rows = query_jobs(place, store.rows())
    states = ", ".join(sorted({row.state.lower() for row in rows}))
    waits = sorted({row.reason for row in rows if row.state == "PENDING" and row.kind == "worker"} - {""})
    say(f"the probe: {states} {' '.join(waits)}".rstrip())
    if not any(row.active for row in rows) and not _ended(place, store, config):
        raise ClusterError(
            f"the probe's jobs have ended without its trials; a job said: {_last_words(place)}"
        )


def _last_words(place: StudyFolder) -> str:
    """The last error in a job's log."""
    for log in sorted(place.jobs.glob("*/*.out")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.strip() for line in lines if "rror" in line and "srun" not in line]
        if said:
            return said[-1]
    return "nothing"


def _ended(place: StudyFolder, store: TrialQueue, config: StudyConfig) -> bool:
    rows = store.rows()
    if any(row.state == "failed" for row in rows):
        return True
    if sum(row.decided for row in rows) < config.budget.trials:
        return False
    lives = [life for job in submissions(place) for life in job.lives]
    if any(life.end is None for life in lives):
        return False
    return config.resources.follow_up is not True or step_spoke(place) is not None


def step_spoke(place: StudyFolder) -> float | None:
    """When the follow-up step had done its work, by the time of its log; None before."""
    for job in submissions(place, kind="follow-up"):
        for log in place.jobs.glob(f"{job.id}/*.out"):
            if "submitted:" in log.read_text(encoding="utf-8", errors="replace"):
                return log.stat().st_mtime
    return None


def _check(place: StudyFolder, store: TrialQueue) -> None:
    """Raises: HpotuneError with the reason where a trial of the probe has failed."""
    for row in store.rows():
        if row.state == "failed" and row.failure:
            log = place.trial(row.number) / "log.txt"
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


def _whole(place: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow], seen: Measured) -> Measured:
    """What was seen, a trial's training drawn out to its real length, and what the step took."""
    more = [drawn_out(place, config, row) for row in rows if row.kind == "trial" and row.state == "finished"]
    trials = tuple(seconds + extra for seconds, extra in zip(seen.trials, more, strict=True))
    steps = list(seen.steps)
    spoke = step_spoke(place)
    ends = [life.end for job in submissions(place) for life in job.lives if life.end is not None]
    if spoke is not None and ends:
        queue_s = median(seen.queues) if seen.queues else 0.0
        steps.append(max(0.0, spoke - max(ends) - queue_s))
    return replace(seen, trials=trials, steps=tuple(steps))


def drawn_out(place: StudyFolder, config: StudyConfig, row: TrialRow) -> float:
    """Seconds that the trial's whole training takes longer than the probe's few steps; 0 where none is trained."""
    steps, batch, rows = (row.metrics.get(key) for key in ("steps", "global_batch_size", "train_rows"))
    lines = _curve(place.trial(row.number) / "curve.jsonl")
    if not isinstance(steps, int) or not isinstance(batch, int) or not isinstance(rows, int) or not lines:
        return 0.0
    first, last = lines[0], lines[-1]
    if last["step"] > first["step"]:  # the first steps warm up
        each = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    else:
        each = last["seconds"] / last["step"]
    asked = int(config.train.get("max_steps", -1))
    epochs = float(config.train.get("num_train_epochs", 3))
    whole = asked if asked > 0 else math.ceil(epochs * math.ceil(rows / batch))
    return max(0, whole - steps) * float(each)


def _curve(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
