"""The built-in objective: ranks of `python -m hpotune.finetune`, in one process, under torchrun, or as Slurm tasks."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from signal import Signals

from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.schema.warm_trials import why_cold
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective.interface import (
    Evaluate,
    TrialContext,
    in_container,
    one_process_each,
    read_result,
    trial_env,
    write_spec,
)
from hpotune.worker.objective.process import PAUSE_SIGNAL, run_process
from hpotune.worker.objective.warm_process import WarmProcess

_STEP_VARIABLES = (
    "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS",
    "SLURM_DISTRIBUTION", "SLURM_CPU_BIND", "SLURM_CPU_BIND_TYPE", "SLURM_CPU_BIND_LIST", "SLURM_CPU_BIND_VERBOSE",
    "SLURM_CPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_MEM_PER_NODE",
    "SLURM_GPUS_PER_TASK", "SLURM_EXPORT_ENV", "SRUN_CPUS_PER_TASK",
)  # fmt: skip
"""Variables of the worker's own Slurm job step; an srun inside it would take them as its options."""

OF_TRIALS = (
    "HPOTUNE_TRIAL", "HPOTUNE_ATTEMPT", "HPOTUNE_WORKER_TASK", "HPOTUNE_SEED", "HPOTUNE_PARAM", "HPOTUNE_RUNG",
    "HPOTUNE_PARENT_DIR",
)  # fmt: skip
"""Beginnings of the variables that only trials have; those of a worker that runs inside a trial are of that one."""

TORCHRUN_ENV = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it torchrun opens a store of its own, at all addresses of the machine."""


def open_finetune(context: TrialContext) -> AbstractContextManager[Evaluate]:
    """The objective that trains trials in processes of their own: running out of memory ends them, not the worker.

    A trial is followed by the next one in the same processes, where `why_cold` has nothing against it.
    """
    if why_cold(context.config) is None:
        return warm_processes(context)
    return one_process_each(_evaluate, context)


@contextmanager
def warm_processes(context: TrialContext) -> Iterator[Evaluate]:
    """An objective that keeps the ranks of a trial for the next one, where nothing unusual has happened in them.

    A single rank is started at once, before there is a trial. Without one it ends again.
    """
    process = _early_process(context)
    reachable = True

    def evaluate(spec: TrialSpec) -> TrialResult:
        nonlocal process, reachable
        file = write_spec(spec)
        env = trial_env(context, spec)
        command, env = rank_command(context.config, ["--serve", str(file.parent)], env)
        exit_ = process.run(file, env) if process is not None and process.is_idle() else None
        if exit_ is None and reachable:  # there is no process, or this trial needs a new one
            if process is not None:
                process.end()
            process = _start(context, command, file.parent, env)
            exit_ = process.run_first(file, env) if process is not None else None
        if exit_ is None:
            reachable = False
            return _evaluate(spec, context)
        return read_result(spec, exit_, stop=context.stop)

    try:
        yield lambda specs: [evaluate(spec) for spec in specs]
    finally:
        if process is not None:
            process.end()


def _early_process(context: TrialContext) -> WarmProcess | None:
    """The process of a single rank for the first trial: it imports what it needs while the worker claims that one.

    None: a trial has several ranks, which meet in its folder, or the process cannot be started now.
    """
    offline = "offline" if context.config.env.offline else "online"
    env = {**context.env, **context.config.env.vars, "HPOTUNE_EARLY": offline}
    env = {name: value for name, value in env.items() if not name.startswith(OF_TRIALS)}
    command, env = rank_command(context.config, ["--serve", os.curdir], env)
    return _start(context, command, None, env) if env["HPOTUNE_RANKS"] == "single" else None


def _start(
    context: TrialContext, command: Sequence[str], log_folder: Path | None, env: Mapping[str, str]
) -> WarmProcess | None:
    """The ranks; None: they cannot be started now, as where there is no room for their socket."""
    copy_log = env["HPOTUNE_RANKS"] != "single"
    with suppress(OSError):
        return WarmProcess(
            command,
            log_folder=log_folder,
            env=env,
            stop=context.stop,
            warning=_warning(env),
            copy_log=copy_log,
        )
    return None


def _evaluate(spec: TrialSpec, context: TrialContext) -> TrialResult:
    file = write_spec(spec)
    command, env = rank_command(context.config, [str(file)], trial_env(context, spec))
    exit_ = run_process(
        command, folder=file.parent, env=env, cwd=None, stop=context.stop, warning=_warning(env)
    )
    return read_result(spec, exit_, stop=context.stop)


def _warning(env: Mapping[str, str]) -> Signals:
    """The signal that asks the ranks for a checkpoint.

    torchrun ends on PAUSE_SIGNAL but forwards SIGTERM to its ranks; srun forwards PAUSE_SIGNAL and kills on SIGTERM.
    """
    return signal.SIGTERM if env["HPOTUNE_RANKS"] == "torchrun" else PAUSE_SIGNAL


def rank_command(
    config: StudyConfig, arguments: Sequence[str], env: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command that starts all ranks of a trial from this process, and its environment.

    `arguments`: of each rank, `python -m hpotune.finetune`.
    """
    nodes, each = config.resources.nodes, config.resources.processes_per_node
    module = ["-m", "hpotune.finetune", *arguments]
    cpus = max(1, _cpus(env) // each)
    threads = env.get("OMP_NUM_THREADS") or str(_threads(config, cpus, in_job="SLURM_JOB_ID" in env))
    env = {**env, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    if nodes * each == 1:
        return in_container(config, [sys.executable, *module]), {**env, "HPOTUNE_RANKS": "single"}
    if "SLURM_JOB_ID" in env:
        shape = [f"--nodes={nodes}", f"--ntasks={nodes * each}", f"--ntasks-per-node={each}"]
        shape += [f"--cpus-per-task={cpus}", *(["--overcommit"] if _cpus(env) < each else [])]
        # --mem=0: all memory of the job, shared with the worker's own job step, which holds it
        srun = ["srun", "--overlap", "--kill-on-bad-exit=1", "--mem=0", "--distribution=block", *shape]
        clean = {key: value for key, value in env.items() if key not in _STEP_VARIABLES}
        return [*srun, *in_container(config, [sys.executable, *module])], {**clean, "HPOTUNE_RANKS": "slurm"}
    return in_container(config, [sys.executable, *torchrun(each), *module]), {
        **env,
        **TORCHRUN_ENV,
        "HPOTUNE_RANKS": "torchrun",
    }


def _threads(config: StudyConfig, cpus: int, *, in_job: bool) -> int:
    """Threads of a rank that may use so many CPUs; with `auto`, `hpotune run` has set OMP_NUM_THREADS itself."""
    given = config.resources.threads
    if isinstance(given, int):
        return given
    return cpus if config.resources.gpus_per_node or (given == "auto" and in_job) else 1


def torchrun(processes: int) -> list[str]:
    """The arguments of python that start this many ranks on this machine; torchrun itself opens no port.

    It keeps what it notes in a temporary file of this user, and its random id names this start of the ranks.
    """
    rendezvous = ["--rdzv-backend=c10d", "--rdzv-conf=store_type=file", f"--rdzv-id={secrets.token_hex(8)}"]
    return [
        "-m",
        "torch.distributed.run",
        *rendezvous,
        "--local-addr=127.0.0.1",
        f"--nproc-per-node={processes}",
    ]


def _cpus(env: Mapping[str, str]) -> int:
    return int(env.get("SLURM_CPUS_ON_NODE") or os.cpu_count() or 1)
