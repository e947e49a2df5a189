"""Submits workers as tasks of HyperQueue: one job of one task a worker, with a script like that of a Slurm job.

The job's number in the study's folder is hpotune's own, since a server that starts anew counts from 1 again. It is
recorded before it is submitted, under a name with a token, so that it is never submitted twice: one that the server
does not know has ended.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from pathlib import Path
from shlex import join, quote

from hpotune.config.schema.resources import ResourcesConfig
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import ClusterError, HpotuneError
from hpotune.records.jobs import JobSpec
from hpotune.records.trial import HYPERQUEUE_TASK
from hpotune.slurm.commands import NoAnswer
from hpotune.slurm.hyperqueue.hq_commands import HQ, hq_json, jobs_by_name, require_hq, server_version
from hpotune.slurm.job_script import job_python, setup_lines, worker_command
from hpotune.slurm.job_time import ALLOCATION_END
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

_MIB = {"K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}
_SCRIPT = """\
#!/bin/bash
# A worker of the study {study}, as a task of HyperQueue.
exec 2>&1
{setup}
export {task}={job}_$HQ_TASK_ID
[ -z "$SLURM_JOB_END_TIME" ] || export {end}=$SLURM_JOB_END_TIME
unset "${{!SLURM@}}" "${{!SRUN@}}"  # of the job in which HyperQueue's worker runs
{command} &
worker=$!
trap 'kill -TERM $worker 2>/dev/null' TERM INT
wait $worker; code=$?
while kill -0 $worker 2>/dev/null; do wait $worker; code=$?; done  # a signal ends a wait
if [ $code -gt 128 ]; then  # killed: what a follow-up job does on Slurm
    touch {mark}-$HQ_TASK_ID
    env -u {task} {follow_up}
fi
exit $code
"""


def check_reachable() -> None:
    """Raises: ClusterError where `hq` is not installed, or no server answers."""
    require_hq()
    server_version()


def submit_tasks(
    folder: StudyFolder, config: StudyConfig, spec: JobSpec, record: dict[str, object], *, code: str | None
) -> str:
    """Submit workers and record them in the study's folder; returns hpotune's number of the job.

    `record`: what job.json says of it, without its id. Only while no other process submits.

    Raises: ClusterError where `hq` is missing, no server answers, or it refuses; NoAnswer where it is not known whether
        the server has the job: it is recorded then.
    """
    require_hq()
    job = _next_number(folder.jobs)
    name = f"{config.name}-{job}-{uuid.uuid4().hex[:8]}"
    own = folder.jobs / job
    own.mkdir(parents=True)
    script = own / f"{job}_submission.sh"
    script.write_text(task_script(folder, config, spec, job=job, code=code), encoding="utf-8")
    write_atomic(own / "job.json", json.dumps({"id": job, **record, "hq_name": name}) + "\n")
    try:
        hq_json(*submit_arguments(folder, config, spec, job=job, name=name))
    except NoAnswer as error:
        if not _is_known(name, error):
            shutil.rmtree(own)
            raise ClusterError(f"{error}; the server does not have the job") from None
    except HpotuneError:
        shutil.rmtree(own)
        raise
    return job


def _is_known(name: str, error: NoAnswer) -> bool:
    """Raises: NoAnswer where the server cannot be asked."""
    try:
        return name in jobs_by_name()
    except ClusterError as silent:
        raise NoAnswer(f"{error}; and whether the server has the job cannot be asked ({silent})") from None


def _next_number(jobs: Path) -> str:
    return str(max((int(path.name) for path in jobs.glob("*") if path.name.isdecimal()), default=0) + 1)


def tasks_text(folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, code: str | None = None) -> str:
    """What `submit` would submit: the command, and the script that it names."""
    job = _next_number(folder.jobs)
    arguments = submit_arguments(folder, config, spec, job=job, name=f"{config.name}-{job}")
    script = task_script(folder, config, spec, job=job, code=code)
    return f"# {join([HQ, *arguments])}\n{script}"


def submit_arguments(
    folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, job: str, name: str
) -> list[str]:
    """The arguments of `hq` that submit the script of a job."""
    minutes, own = config.resources.walltime_min, folder.jobs / job
    return [
        "submit",
        *("--name", name),
        *("--array", f"0-{spec.count - 1}"),
        *_requests(config.resources),
        *("--time-limit", f"{minutes // 60:02}:{minutes % 60:02}:00"),
        *(
            "--crash-limit",
            "unlimited",
        ),  # a lost worker of HyperQueue: retry says how often a trial is repeated
        *("--cwd", str(folder.path)),
        *("--stdout", str(own / f"{job}_%{{TASK_ID}}_%{{INSTANCE_ID}}_log.out")),
        *("--stderr", "none"),
        "bash",
        str(own / f"{job}_submission.sh"),
    ]


def _requests(resources: ResourcesConfig) -> list[str]:
    """What a worker needs of the node, by HyperQueue's names of it."""
    gpus = resources.gpus_per_node
    cpus = resources.cpus or (resources.cpus_per_gpu or 0) * gpus or 1
    found = ["--cpus", str(cpus)]
    if gpus:
        maker = "amd" if (resources.gpu_type or "").lower().startswith("mi") else "nvidia"
        found += ["--resource", f"gpus/{maker}={gpus}"]
    for memory, times in ((resources.mem, 1), (resources.mem_per_gpu, gpus), (resources.mem_per_cpu, cpus)):
        if memory is not None:
            found += ["--resource", f"mem={_mebibytes(memory) * times}"]
    return found


def _mebibytes(text: str) -> int:
    """Slurm's `64G`, `500M` or `2000` (MiB) in MiB, at least 1."""
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.upper())
    assert match is not None, "the config has checked it"
    return max(1, round(int(match[1]) * _MIB[match[2] or "M"]))


def task_script(
    folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, job: str, code: str | None
) -> str:
    """The script of a worker. It stays until the worker has ended, and passes on the signals that end it."""
    setup = setup_lines(config)
    if server := os.environ.get("HQ_SERVER_DIR"):
        setup.append(f"export HQ_SERVER_DIR={quote(str(Path(server).absolute()))}")
    if found := shutil.which(HQ):  # the worker submits what is missing when it ends
        setup.append(f"export PATH=$PATH:{quote(str(Path(found).parent))}")
    return _SCRIPT.format(
        study=config.name,
        setup="\n".join(setup),
        task=HYPERQUEUE_TASK,
        job=job,
        end=ALLOCATION_END,
        command=worker_command(folder, config, spec, code=code),
        mark=quote(str(folder.jobs / job / "ended")),
        follow_up=join([job_python(config), "-m", "hpotune", "follow-up", str(folder.path)]),
    )
