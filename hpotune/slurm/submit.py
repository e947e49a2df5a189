"""Writes sbatch files and submits job arrays, through submitit.

submitit defaults to a time limit of five minutes and `--wckey=submitit`, pickles what it runs, and passes this shell's
SLURM_* variables on. Here every option comes from the study file, and a job's last line is a command that a user can
type too.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import join, quote
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError, StudyFileError, nearest
from hpotune.records.jobs import JobSpec
from hpotune.slurm.commands import TIMEOUT_S, error_line, require_slurm, run_command
from hpotune.slurm.study_jobs import invalidate_cache
from hpotune.slurm.user_limits import (
    SubmitLimitReached,
    cluster_config,
    free_submit_slots,
    named_limit,
    refusal_error,
)
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

_KEPT_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS")
_FOLLOW_UP_EXTRA = ("comment", "mail-type", "mail-user", "nice", "reservation")
"""Keys of resources.extra that also apply to follow-up jobs; the others ask for resources that they do not need."""
_RESERVED_KEYS = {
    "array": "budget.parallel and execution.trials_per_job",
    "dependency": "resources.follow_up",
    "output": "nothing: logs are in the study's folder under jobs/",
    "error": "nothing: logs are in the study's folder under jobs/",
    "signal": "resources.signal_delay_s",
    "job-name": "name",
}
"""Keys that resources.extra must not hold, and what sets them."""


class _Executor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor for a command line instead of a pickled function."""

    def submit_array(self, command: str, *, count: int) -> str:
        """Submit `count` elements of one command; returns the job id."""
        self.parameters["map_count"] = count
        return str(self._submit_command(command).job_id)

    def text(self, command: str, *, count: int) -> str:
        """The text of the sbatch file that `submit_array` would submit."""
        self.parameters["map_count"] = count
        return str(self._make_submission_file_text(command, "text"))


@contextmanager
def clean_environment() -> Iterator[None]:
    """An environment without the variables of a surrounding job: its CPU binding alone can slow a new job threefold.

    SBATCH_* and SRUN_* are the user's own defaults, except the one that hpotune's job scripts export.
    """
    leaked = {k: v for k, v in os.environ.items() if k.startswith("SLURM_") and k not in _KEPT_VARIABLES}
    if "SLURM_JOB_ID" in os.environ and "SRUN_CPUS_PER_TASK" in os.environ:
        leaked["SRUN_CPUS_PER_TASK"] = os.environ["SRUN_CPUS_PER_TASK"]
    for key in leaked:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(leaked)


def sbatch_text(folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, code: str | None = None) -> str:
    """The job script that `submit` would submit."""
    command = worker_command(folder, config, spec, code=code)
    with clean_environment():
        return _executor(folder, config, spec).text(command, count=spec.count)


def submit(folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, code: str | None = None) -> str:
    """Submit an array and record it in the study's folder; returns its job id. `code`: the snapshot that it runs.

    Raises: ClusterError with Slurm's own message when it refuses; SubmitLimitReached where fewer elements might be
        accepted.
    """
    spec = replace(spec, exclude=_known_nodes(spec.exclude))
    command = worker_command(folder, config, spec, code=code)
    with clean_environment():
        try:
            job_id = _executor(folder, config, spec).submit_array(command, count=spec.count)
        except (FailedJobError, subprocess.CalledProcessError) as error:
            raise refusal_error(str(error)) from None
    _write_job_record(folder, job_id, spec, time_min=config.resources.walltime_min)
    invalidate_cache(folder)
    return job_id


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmitResult:
    """What Slurm accepted of an array."""

    id: str
    count: int
    """Elements; fewer than requested where a limit allows no more."""
    note: str = ""
    """What was not accepted, and why."""


def submit_within_limits(
    folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, code: str | None = None
) -> SubmitResult:
    """Submit an array, or as many of its elements as limits on queued jobs allow, with room for the follow-up job.

    Raises: ClusterError as `submit`; with the limit explained where not even one element is accepted.
    """
    try:
        return SubmitResult(id=submit(folder, config, spec, code=code), count=spec.count)
    except SubmitLimitReached as error:
        refused = error
    reserve = 1 if config.resources.follow_up is True and spec.kind == "worker" else 0
    fewer = _smaller_sizes(spec.count, spare=reserve, free=free_submit_slots(config.resources))
    for count, spare in [*((count, reserve) for count in fewer), (1, 0)]:
        part = replace(spec, count=count, throttle=min(spec.throttle, count))
        if not _is_accepted(folder, config, replace(part, count=count + spare)):
            continue
        try:
            job_id = submit(folder, config, part, code=code)
        except SubmitLimitReached:
            continue
        return SubmitResult(
            id=job_id, count=count, note=_limit_note(count, of=spec.count, limit=refused.limit)
        )
    raise refused


def _smaller_sizes(count: int, *, spare: int, free: int | None) -> list[int]:
    """Sizes to try, largest first: the free slots, where known, then halves."""
    sizes = [free - spare] if free is not None else []
    half = count // 2
    while half:
        sizes.append(half)
        half //= 2
    return [size for size in dict.fromkeys(sizes) if 0 < size < count]


def _limit_note(count: int, *, of: int, limit: str) -> str:
    return (
        f"{count} of {of} jobs were submitted: a limit allows no more at a time ({limit}); the others follow"
    )


def _is_accepted(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> bool:
    """Whether sbatch would accept so many elements; it checks limits without submitting anything."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch, "job.sh")
        script.write_text(sbatch_text(StudyFolder(path=Path(scratch)), config, spec), encoding="utf-8")
        with clean_environment():
            answer = _test_only(script)
    return answer.returncode == 0 or not named_limit(answer.stderr)


def _known_nodes(names: Sequence[str]) -> tuple[str, ...]:
    """Those that are nodes of this cluster: sbatch refuses a job that names an unknown node."""
    if not names:
        return ()
    try:
        known = set(run_command(["sinfo", "-h", "-N", "-o", "%N"]).split())
    except ClusterError:
        return tuple(names)
    return tuple(name for name in names if name in known)


def _write_job_record(folder: StudyFolder, job_id: str, spec: JobSpec, *, time_min: int) -> None:
    recorded = {
        "id": job_id,
        "kind": spec.kind,
        "count": spec.count,
        "throttle": spec.throttle,
        "trials": spec.trials,
        "time_min": time_min,
    }
    write_atomic(folder.jobs / job_id / "job.json", json.dumps(recorded) + "\n")


def check_submittable(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> None:
    """Ask Slurm whether it would accept the job, before anything is made. Limits on queued jobs are no refusal.

    Raises: ClusterError where Slurm is not installed or would refuse, StudyFileError for an option that hpotune sets.
    """
    _check_extra(config)
    require_slurm()
    spec = split_array(spec, at_most=max_array_size())[0]
    partition = config.resources.partition
    known = [name.rstrip("*") for name in run_command(["sinfo", "-h", "-o", "%R"]).split()]
    if partition and not set(partition.split(",")) <= set(known):
        raise ClusterError(
            f"resources.partition={partition!r} is not on this cluster; {nearest(partition, known)}"
        )
    with tempfile.TemporaryDirectory() as scratch, clean_environment():
        script = Path(scratch, "job.sh")
        script.write_text(sbatch_text(StudyFolder(path=Path(scratch)), config, spec), encoding="utf-8")
        answer = _test_only(script)
    if answer.returncode and not named_limit(answer.stderr):
        raise ClusterError(
            f"Slurm would refuse the job: {error_line(answer.stderr)}; see resources in the study file"
        )


def _test_only(script: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["sbatch", "--test-only", str(script)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"sbatch gave no answer in {TIMEOUT_S} s; try again later") from None


def _check_extra(config: StudyConfig) -> None:
    """Raises: StudyFileError for a key of resources.extra that something else sets."""
    reserved = [key for key in config.resources.extra if key.replace("_", "-") in _RESERVED_KEYS]
    if reserved:
        raise StudyFileError(
            *(
                f"resources.extra: {key} is set by hpotune; use instead: {_RESERVED_KEYS[key.replace('_', '-')]}"
                for key in reserved
            )
        )


def max_array_size() -> int | None:
    """The largest number of elements of an array here (MaxArraySize); None where unknown."""
    try:
        found = cluster_config().get("MaxArraySize", "")
    except ClusterError:
        return None
    return max(1, int(found)) if found.isdigit() else None


def split_array(spec: JobSpec, *, at_most: int | None) -> list[JobSpec]:
    """The same array as several that fit MaxArraySize, which share the throttle.

    With a throttle below their number only so many are returned: the follow-up job adds the rest.
    """
    if at_most is None or spec.count <= at_most:
        return [spec]
    parts = min(math.ceil(spec.count / at_most), spec.throttle)
    sizes = [min(at_most, spec.count - at_most * index) for index in range(parts)]
    shares = [spec.throttle // parts + (index < spec.throttle % parts) for index in range(parts)]
    return [
        replace(spec, count=size, throttle=min(size, share))
        for size, share in zip(sizes, shares, strict=True)
    ]


def worker_command(
    folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, code: str | None = None
) -> str:
    """The command that a job runs; it also works in a hand-written sbatch file. `code`: the worker's snapshot."""
    venv = config.env.venv
    python = sys.executable if venv == "auto" else f"{venv}/bin/python" if venv else "python"
    if spec.kind == "follow-up":
        # Slurm starts it when all these jobs have ended, which is how it knows their end
        ended = ["--ended", ",".join(spec.after)] if spec.after and not spec.any_of else []
        return join([python, "-m", "hpotune", "follow-up", str(folder.path), *ended])
    options = ["--trials", str(spec.trials)] if spec.trials is not None else []
    options += ["--code", code] if code is not None else []
    options += ["--follow-up"] if config.resources.follow_up == "worker" else []
    return join([python, "-m", "hpotune", "worker", str(folder.path), *options])


def _executor(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> _Executor:
    require_slurm()
    executor = _Executor(folder=folder.jobs / "%A")
    executor.update_parameters(**submitit_parameters(config, spec))
    return executor


def submitit_parameters(config: StudyConfig, spec: JobSpec) -> dict[str, Any]:
    """submitit's parameters of a job: the settings of the study file and nothing else."""
    resources = config.resources
    asked: dict[str, Any] = {
        "job_name": config.name if spec.kind == "worker" else f"{config.name}-follow-up",
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "wckey": resources.wckey,
        "array_parallelism": spec.throttle,
        "ntasks_per_node": 1,
        "stderr_to_stdout": True,
        "setup": setup_lines(config),
    }
    if spec.kind == "follow-up":
        asked |= {
            "time": 10,
            "nodes": 1,
            "cpus_per_task": 1,
            "dependency": dependency_option(spec),
            "signal_delay_s": 30,
        }
    else:
        asked |= _worker_parameters(config)
        asked["exclude"] = ",".join(filter(None, [resources.exclude, *spec.exclude])) or None
    extra = dict(resources.extra) | ({"reservation": resources.reservation} if resources.reservation else {})
    if spec.kind == "follow-up":
        extra = {key: value for key, value in extra.items() if key.replace("_", "-") in _FOLLOW_UP_EXTRA}
    return {
        **{key: value for key, value in asked.items() if value is not None},
        "wckey": resources.wckey,
        "additional_parameters": {key: value for key, value in extra.items() if value is not False},
    }


def dependency_option(spec: JobSpec) -> str:
    """sbatch's --dependency: after the end of all these jobs, or of any of them."""
    if spec.any_of:
        return "?".join(f"afterany:{job}" for job in spec.after)
    return "afterany:" + ":".join(spec.after)


def _worker_parameters(config: StudyConfig) -> dict[str, Any]:
    resources = config.resources
    gpus = resources.gpus if resources.gpus_per_node else None
    cpus = resources.cpus or (
        resources.cpus_per_gpu * resources.gpus_per_node if resources.cpus_per_gpu else None
    )
    return {
        "time": resources.walltime_min,
        "nodes": resources.nodes,
        "gpus_per_node": gpus if resources.gpu_option == "gpus-per-node" else None,
        "gres": f"gpu:{gpus}" if gpus and resources.gpu_option == "gres" else None,
        "cpus_per_task": cpus,
        "mem": resources.mem,
        "mem_per_gpu": resources.mem_per_gpu,
        "mem_per_cpu": resources.mem_per_cpu,
        "constraint": resources.constraint,
        "signal_delay_s": resources.signal_delay_s,
        "srun_args": [
            "--nodes=1",
            "--ntasks=1",
        ],  # the worker is one task on the first node; it starts the ranks on all nodes
    }


def setup_lines(config: StudyConfig) -> list[str]:
    """Shell lines before the job's command: modules, environment, the user's own lines."""
    env = config.env
    lines = [
        "export HPOTUNE_JOB_START=$(date +%s.%N)",
        *(f"module load {quote(name)}" for name in env.modules),
    ]
    if env.venv == "auto":
        lines.append(f"export PATH={quote(str(Path(sys.executable).parent))}:$PATH")
    elif env.venv:
        lines.append(f"source {quote(env.venv)}/bin/activate")
    lines += [f"export {key}={quote(value)}" for key, value in env.vars.items()]
    # srun no longer inherits it since Slurm 22.05: without this a step has one CPU
    lines.append('[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK')
    return [*lines, *env.setup]
