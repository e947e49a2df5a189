"""The sbatch text of a job, through submitit: options, environment set-up and command. Submits nothing.

submitit defaults to a time limit of five minutes and `--wckey=submitit`, pickles what it runs, and passes this shell's
SLURM_* variables on. Here every option comes from the study file, and a job's last line is a command that a user can
type too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shlex import join, quote
from typing import Any

from submitit import SlurmExecutor
from submitit.slurm.slurm import _make_sbatch_string

from hpotune.config.built_environment import has_conda
from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.jobs import JobSpec
from hpotune.slurm.commands import require_slurm
from hpotune.slurm.submission import VARIABLE, submit_script
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.trust import SHARED

_KEPT_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS")
_SMALL_JOB_EXTRA = ("comment", "mail-type", "mail-user", "nice", "reservation")
"""Keys of resources.extra that also apply to follow-up and rehearsal jobs; the others ask for what they do not need."""
REHEARSAL_MIN = 60
"""Time limit of a rehearsal job, in minutes."""


class CommandExecutor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor for a command line instead of a pickled function."""

    def submit_array(self, command: str, *, count: int, record: Mapping[str, object]) -> str:
        """Submit `count` elements of one command and record them with `record`; returns the job id.

        submitit's own call ends sbatch where it prints bytes that are not UTF-8, and takes the first number after the
        word "job" for the id, which may be a site's banner.

        Raises: ClusterError as `submit_script`.
        """
        return submit_script(Path(self.folder).parent, partial(self.text, command, count=count), record)

    def text(self, command: str, token: str = "", *, count: int) -> str:
        """The text of the sbatch file that `submit_array` would submit. `token`: of the submission."""
        self.parameters["map_count"] = count
        lines = [f"export {VARIABLE}={token}"] if token else []
        setup = [*lines, *self.parameters["setup"]]
        return str(
            _make_sbatch_string(command=command, folder=self.folder, **{**self.parameters, "setup": setup})
        )


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
        return command_executor(folder, config, spec).text(command, count=spec.count)


def worker_command(
    folder: StudyFolder, config: StudyConfig, spec: JobSpec, *, code: str | None = None
) -> str:
    """The command that a job runs; it also works in a hand-written sbatch file. `code`: the worker's snapshot."""
    python = job_python(config)
    if spec.kind == "follow-up":
        # Slurm starts it when all these jobs have ended, which is how it knows their end
        ended = ["--ended", ",".join(spec.after)] if spec.after and not spec.any_of else []
        return join([python, "-m", "hpotune", "follow-up", str(folder.path), *ended])
    if spec.kind == "rehearsal":
        return join([python, "-m", "hpotune", "rehearse", str(folder.path)])
    options = ["--trials", str(spec.trials)] if spec.trials is not None else []
    options += ["--code", code] if code is not None else []
    options += ["--follow-up"] if config.resources.follow_up == "worker" else []
    return join([python, "-m", "hpotune", "worker", str(folder.path), *options])


def job_python(config: StudyConfig) -> str:
    """The interpreter that a job of the study runs."""
    venv = config.env.venv
    return sys.executable if venv == "auto" else f"{venv}/bin/python" if venv else "python"


def command_executor(folder: StudyFolder, config: StudyConfig, spec: JobSpec) -> CommandExecutor:
    require_slurm()
    executor = CommandExecutor(folder=folder.jobs / "%A")
    executor.update_parameters(**submitit_parameters(config, spec))
    return executor


def submitit_parameters(config: StudyConfig, spec: JobSpec) -> dict[str, Any]:
    """submitit's parameters of a job: the settings of the study file and nothing else."""
    resources = config.resources
    asked: dict[str, Any] = {
        "job_name": config.name if spec.kind == "worker" else f"{config.name}-{spec.kind}",
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "wckey": resources.wckey,
        "array_parallelism": spec.throttle,
        "ntasks_per_node": 1,
        "stderr_to_stdout": True,
        "srun_args": ["--export=ALL"],
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
    elif spec.kind == "rehearsal":
        asked |= {"time": REHEARSAL_MIN, "nodes": 1, "cpus_per_task": 1, "signal_delay_s": 30}
    else:
        asked |= _worker_parameters(config)
        asked["dependency"] = f"afterok:{spec.requires}" if spec.requires else None
        asked["exclude"] = ",".join(filter(None, [resources.exclude, *spec.exclude])) or None
    extra = dict(resources.extra) | ({"reservation": resources.reservation} if resources.reservation else {})
    if spec.requires:  # without it they would wait for ever after a rehearsal that failed
        extra["kill-on-invalid-dep"] = "yes"
    if spec.kind != "worker":
        extra = {key: value for key, value in extra.items() if key.replace("_", "-") in _SMALL_JOB_EXTRA}
    if asked.get("gres") and "gres" in extra:  # sbatch counts only the last --gres
        extra["gres"] = f"{asked.pop('gres')},{extra['gres']}"
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
            "--export=ALL",
            "--nodes=1",
            "--ntasks=1",
        ],  # the worker is one task on the first node; it starts the ranks on all nodes
    }


def setup_lines(config: StudyConfig) -> list[str]:
    """Shell lines before the job's command: modules, environment, the user's own lines.

    PYTHONSAFEPATH: the command imports nothing from the folder where sbatch was called. The value `hpotune` means that
    no user has set it; hpotune/__main__.py then removes it, so that trials do not inherit it.
    """
    env = config.env
    lines = [
        "export HPOTUNE_JOB_START=$(date +%s.%N)",
        # sbatch --export=NONE leaves this to srun, whose processes would see nothing of what is set here
        "unset SLURM_EXPORT_ENV SRUN_EXPORT_ENV",
        *(f"module load {quote(name)}" for name in env.modules),
    ]
    if env.venv == "auto":
        lines.append(f"export PATH={quote(str(Path(sys.executable).parent))}:$PATH")
    elif env.venv and has_conda(env.venv):
        lines += [
            f"export CONDA_PREFIX={quote(env.venv)} PATH={quote(env.venv)}/bin:$PATH",
            'for one in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do [ ! -r "$one" ] || . "$one"; done',
        ]
    elif env.venv:
        lines.append(f"source {quote(env.venv)}/bin/activate")
    lines += [f"export {key}={quote(value)}" for key, value in env.vars.items()]
    if config.shared_with is not None:
        lines.append(f"export {SHARED}={config.shared_with}")
    # srun no longer inherits it since Slurm 22.05: without this a step has one CPU
    lines.append('[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK')
    # after the user's own lines, which may set it, also to nothing; `-P` would be unknown to Python 3.10
    return [*lines, *env.setup, 'export PYTHONSAFEPATH="${PYTHONSAFEPATH-hpotune}"']
