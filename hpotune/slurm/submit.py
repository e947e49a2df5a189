"""Submits job arrays: within limits on queued jobs, recorded in the study's folder."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.config.schema.resources import ResourcesConfig
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.schema.walltime import TIME, minutes
from hpotune.errors import ClusterError, nearest
from hpotune.records.jobs import JobSpec
from hpotune.slurm.cluster_limits import (
    SubmitLimitReached,
    free_submit_slots,
    limits_are_enforced,
    local_cluster,
    named_limit,
    refusal_error,
)
from hpotune.slurm.command_process import Answer
from hpotune.slurm.command_tables import query_table
from hpotune.slurm.commands import CommandMissing, NoAnswer, command_answer, error_line, require_slurm
from hpotune.slurm.hyperqueue.task_submission import check_reachable, submit_tasks
from hpotune.slurm.job_arrays import max_array_size, split_array
from hpotune.slurm.job_script import clean_environment, command_executor, sbatch_text, worker_command
from hpotune.slurm.partitions import query_partitions, unknown_type, with_types_here, with_types_of
from hpotune.slurm.study_jobs import invalidate_cache, submitted_jobs
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder


def submit(folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, code: str | None = None) -> str:
    """Submit an array and record it in the study's folder; returns its job id. `code`: the snapshot that it runs.

    Raises: ClusterError with Slurm's own message when it refuses; SubmitLimitReached where fewer elements might be
        accepted.
    """
    _check_one_place(folder, config)
    if config.execution.place == "hyperqueue":
        job_id = submit_tasks(
            folder,
            config,
            spec,
            _job_record(spec, time_min=config.resources.walltime_min, code=code),
            code=code,
        )
        invalidate_cache(folder)
        return job_id
    spec = replace(spec, exclude=_known_nodes(spec.exclude))
    config = with_types_here(config) if spec.kind == "worker" else config
    command = worker_command(folder, config, spec, code=code)
    with clean_environment():
        record = _job_record(spec, time_min=config.resources.walltime_min, code=code)
        job_id = command_executor(folder, config, spec).submit_array(command, count=spec.count, record=record)
    if spec.kind == "worker":
        _record_changes(folder, config.resources, job_id)
    invalidate_cache(folder)
    return job_id


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmitResult:
    """What Slurm accepted of an array."""

    id: str
    count: int
    """Elements; fewer than requested where a limit allows no more."""
    limit: str = ""
    """The limit that allows no more; empty where all were accepted."""


def submit_within_limits(
    folder: StudyFolder,
    config: StudyConfig,
    spec: JobSpec,
    *,
    code: str | None = None,
    last_resort: bool = True,
) -> SubmitResult:
    """Submit an array, or as many of its elements as limits on queued jobs allow, with room for the follow-up job.

    `last_resort`: submit one element also where it takes the follow-up's room.

    Raises: ClusterError as `submit`; with the limit explained where not even one element is accepted.
    """
    if config.execution.place == "hyperqueue":
        return SubmitResult(id=submit(folder, config, spec, code=code), count=spec.count)
    reserve = 1 if config.resources.follow_up is True and spec.kind == "worker" else 0
    refused = None
    if reserve and limits_are_enforced():
        refused = _no_room(folder, config, replace(spec, count=spec.count + reserve))
    if refused is None:
        try:
            return SubmitResult(id=submit(folder, config, spec, code=code), count=spec.count)
        except SubmitLimitReached as error:
            refused = error
    fewer = _smaller_sizes(spec.count, spare=reserve, free=free_submit_slots(config.resources))
    for count, spare in [*((count, reserve) for count in fewer), *([(1, 0)] if last_resort else [])]:
        part = replace(spec, count=count, throttle=min(spec.throttle, count))
        if _no_room(folder, config, replace(part, count=count + spare)) is not None:
            continue
        try:
            job_id = submit(folder, config, part, code=code)
        except SubmitLimitReached:
            continue
        return SubmitResult(id=job_id, count=count, limit=refused.limit if count < spec.count else "")
    raise refused


def _smaller_sizes(count: int, *, spare: int, free: int | None) -> list[int]:
    """Sizes to try, largest first: the free slots, where known, then halves."""
    sizes = [free - spare] if free is not None else []
    half = count // 2
    while half:
        sizes.append(half)
        half //= 2
    return [size for size in dict.fromkeys(sizes) if 0 < size < count]


def _no_room(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> SubmitLimitReached | None:
    """The limit that keeps sbatch from accepting so many elements; it is asked without submitting anything."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch, "job.sh")
        script.write_text(sbatch_text(StudyFolder(path=Path(scratch)), config, spec), encoding="utf-8")
        with clean_environment():
            answer = _test_only(script)
    refused = refusal_error(answer.err) if answer.code else None
    return refused if isinstance(refused, SubmitLimitReached) else None


def _known_nodes(names: Sequence[str]) -> tuple[str, ...]:
    """Those that are nodes of this cluster: sbatch refuses a job that names an unknown node."""
    if not names:
        return ()
    try:
        known = {name for (name,) in query_table(["sinfo", "-N", "-o", "%N"], ("NODELIST",)).rows}
    except ClusterError:
        return tuple(names)
    return tuple(name for name in names if name in known)


def _job_record(spec: JobSpec, *, time_min: int, code: str | None) -> dict[str, object]:
    """What job.json says of a job, without its id."""
    return {
        "kind": spec.kind,
        "count": spec.count,
        "throttle": spec.throttle,
        "trials": spec.trials,
        "time_min": time_min,
        "code": code,
    }


_ACCEPTED = ("ARRAY_JOB_ID", "TIME_LIMIT", "PARTITION", "ACCOUNT")


def _record_changes(folder: StudyFolder, resources: ResourcesConfig, job_id: str) -> None:
    """Record where Slurm has another time limit, partition or account than was asked for: a site's plugin set it."""
    with suppress(ClusterError):
        query = ["squeue", "-t", "all", "-j", f"{job_id},{job_id}", "-o", "%F|%l|%P|%a"]
        rows = query_table(query, _ACCEPTED, is_row=lambda row: row[0] == job_id, answer_s=20).rows
        if not rows:
            return
        limit, has = rows[0][1], dict(zip(("partition", "account"), rows[0][2:], strict=True))
        changes = [
            f"{key} {asked} -> {has[key]}"
            for key, asked in (("partition", resources.partition), ("account", resources.account))
            if asked and has[key] and has[key] not in asked.split(",")
        ]
        record = optional_object(folder.jobs / job_id / "job.json") or {}
        limit_min = minutes(limit) if re.fullmatch(TIME, limit) else resources.walltime_min
        if limit_min != resources.walltime_min:
            changes.append(f"time limit {resources.walltime_min} -> {limit_min} minutes")
        if record and changes:
            record |= {"time_min": limit_min, "changed": ", ".join(changes)}
            write_atomic(folder.jobs / job_id / "job.json", json.dumps(record) + "\n")


def changed_settings(folder: StudyFolder, ids: Iterable[str]) -> str:
    """What Slurm has otherwise than the study file asked for, of jobs just submitted; empty where all is the same."""
    records = {id_: optional_object(folder.jobs / id_ / "job.json") or {} for id_ in ids}
    found = {id_: str(record["changed"]) for id_, record in records.items() if record.get("changed")}
    if not found:
        return ""
    return f"Slurm changed what job {' and '.join(found)} asked for ({next(iter(found.values()))})"


def check_submittable(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> None:
    """Ask Slurm whether it would accept the job, before anything is made. Limits on queued jobs are no refusal.

    Raises: ClusterError where Slurm is not installed or would refuse; for HyperQueue, where no server answers.
    """
    _check_one_place(folder, config)
    if config.execution.place == "hyperqueue":
        check_reachable()
        return
    require_slurm()
    _check_one_cluster(os.environ)
    spec = split_array(spec, at_most=max_array_size())[0]
    config = _checked_partition(config)
    with tempfile.TemporaryDirectory() as scratch, clean_environment():
        script = Path(scratch, "job.sh")
        script.write_text(sbatch_text(StudyFolder(path=Path(scratch)), config, spec), encoding="utf-8")
        answer = _test_only(script)
    if answer.code and not named_limit(answer.err):
        raise ClusterError(
            f"Slurm would refuse the job: {error_line(answer.err)}; see resources in the study file"
        )


def _check_one_place(folder: StudyFolder, config: StudyConfig) -> None:
    """Raises: ClusterError where the study has jobs of another place: their numbers would be taken for each other's."""
    other = {
        job.id
        for job in submitted_jobs(folder)
        if bool(job.hq_name) != (config.execution.place == "hyperqueue")
    }
    if other:
        raise ClusterError(
            f"execution.place: {config.execution.place}: the study has jobs elsewhere ({', '.join(sorted(other))}); a "
            "study keeps its place: change it back, or make another study"
        )


def _checked_partition(config: StudyConfig) -> StudyConfig:
    """The study with this cluster's spelling of its GPU type. Where sinfo cannot tell, sbatch will.

    Raises: ClusterError for partitions and GPU types that this cluster does not have.
    """
    named = config.resources.partition
    if not named and config.resources.gpu_type is None:
        return config
    try:
        found = query_partitions()
    except (CommandMissing, NoAnswer):
        return config
    if named and not set(named.split(",")) <= set(found):
        raise ClusterError(f"resources.partition={named!r} is not on this cluster; {nearest(named, found)}")
    if text := unknown_type(config, found):
        raise ClusterError(text)
    return with_types_of(config, found)


def _check_one_cluster(env: Mapping[str, str]) -> None:
    """Raises: ClusterError where the environment sends jobs to another cluster than this login node's.

    sacct does not follow SLURM_CLUSTERS, and a dependency holds within one cluster.
    """
    named = {key: env[key] for key in ("SLURM_CLUSTERS", "SBATCH_CLUSTERS") if env.get(key)}
    if not named:
        return
    local = local_cluster()
    for key, value in named.items():
        if value != local:
            raise ClusterError(
                f"{key}={value} sends jobs to other clusters than this one ({local or 'name unknown'}), and hpotune "
                f"asks one cluster for its jobs; unset {key}, or submit from a login node of the cluster that you mean"
            )


def _test_only(script: Path) -> Answer:
    return command_answer(["sbatch", "--test-only", str(script)])
