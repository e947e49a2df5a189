"""The section `resources` of a study file: what a job requests from Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator, model_validator

from hpotune.config.schema import Section
from hpotune.config.schema.walltime import WallTime, minutes
from hpotune.config.text_files import wrong_character

_TEXTS = ("partition", "account", "qos", "constraint", "reservation", "gpus", "exclude", "wckey")
"""Options of sbatch that are text: with a line break, the next line of the job script would be run by the shell."""
EXTRA_KEY = r"[a-z][a-z0-9_-]*"
_OWN_OPTIONS: dict[str, str] = {
    "array": "budget.parallel sets it",
    "dependency": "resources.follow_up sets it",
    "clusters": "hpotune asks one cluster for its jobs: start it on that cluster's login node",
    "cluster": "hpotune asks one cluster for its jobs: start it on that cluster's login node",
    "output": "hpotune sets it",
    "error": "hpotune sets it",
    "open-mode": "hpotune sets it",
    "job-name": "name sets it",
    "signal": "write resources.signal_delay_s",
    "wrap": "hpotune sets what a job runs",
    "parsable": "hpotune reads what sbatch prints",
    "test-only": "it submits nothing",
    "help": "it submits nothing",
    "usage": "it submits nothing",
    "version": "it submits nothing",
    "wait": "hpotune does not wait for its jobs",
    **{
        name.replace("_", "-"): f"write resources.{name}"
        for name in (
            "partition", "account", "qos", "constraint", "reservation", "nodes", "mem", "mem_per_gpu", "mem_per_cpu",
            "time", "exclude", "wckey",
        )
    },
    "cpus-per-task": "write resources.cpus",
    "gpus-per-node": "write resources.gpus",
}  # fmt: skip
"""Options of sbatch that hpotune writes itself -> what to do instead."""

MAX_GPUS = 128
"""GPUs of one node, MIG slices included; a larger number is a type without its number."""


MAX_THREADS = 4_096


class ResourcesConfig(Section):
    """What one job requests from Slurm. Options that are not set here are not written into the job script."""

    partition: str | None = None
    """null: the cluster's default."""
    account: str | None = None
    """null: your default account."""
    qos: str | None = None
    """null: the default quality of service."""
    constraint: str | None = None
    """Node features; null: any node."""
    reservation: str | None = None
    """null: none."""
    gpus: int | str = 0
    """GPUs per node: `4`, or with Slurm's name of their type: `"a100:4"`, `"2080ti:2"`, `"3090:1"`, `"1g.10gb:2"`.
    `auto`, `"a100:auto"`: the fewest of 1, 2, 4, 8 on which the largest trial fits, decided when the study is made.
    `hpotune doctor` lists the types; where only the case differs, the cluster's spelling is submitted."""
    gpu_memory_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Memory of a GPU as its maker calls it, such as `80`; null: by the name of its type (`a100`: 40). Read by the
    estimate of `plan` and by `gpus: auto`."""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How GPUs are requested: `--gpus-per-node=a100:4` or `--gres=gpu:a100:4`; clusters differ."""
    nodes: int = Field(default=1, ge=1, le=10_000)
    """Nodes per job."""
    processes: int | None = Field(default=None, ge=1, le=1_024)
    """Ranks of a trial per node; null: one per GPU, or one if there is no GPU."""
    cpus_per_gpu: int | None = Field(default=None, ge=1, le=4_096)
    """CPUs per GPU; null: the cluster's default."""
    cpus: int | None = Field(default=None, ge=1, le=4_096)
    """CPUs per node, instead of cpus_per_gpu; null: the cluster's default."""
    threads: Literal["auto"] | int | None = None
    """Threads of each rank of a trial on CPUs (OMP_NUM_THREADS). auto: `hpotune run` measures before its first trial
    how many trials, at most `budget.parallel`, do most side by side with how many threads each; a Slurm job uses all
    its CPUs. null: 1, or with GPUs all CPUs of the job."""
    mem: str | None = None
    """Memory per node in Slurm's format (`64G`); mem, mem_per_gpu and mem_per_cpu exclude each other. null: the
    cluster's default."""
    mem_per_gpu: str | None = None
    """Memory per GPU, such as `32G`."""
    mem_per_cpu: str | None = None
    """Memory per CPU, such as `4G`."""
    time: WallTime = "1:00:00"
    """Time limit of a job in Slurm's format: minutes, MM:SS, HH:MM:SS, D-HH:MM:SS."""
    exclude: str | None = None
    """Nodes that are not used, as a Slurm node list; null: none."""
    wckey: str | None = None
    """Workload characterization key of the job; null: none."""
    signal_delay_s: int = Field(default=180, ge=0, le=65_535)
    """Seconds before the job's time limit at which the job gets SIGUSR2 and its trial writes a checkpoint."""
    follow_up: bool | Literal["worker"] = True
    """What requeues lost trials and submits missing jobs. true: a follow-up job without GPUs that starts when the other
    jobs have ended. worker: the worker that ends last, for clusters that do not accept small jobs, and always with
    `execution.place: hyperqueue`. false: nothing; run `hpotune submit` again."""
    rehearsal: Literal["here", "job"] = "here"
    """Where `submit` rehearses the trials before it submits workers: here, on one core of the login node; or as a small
    job without GPUs, on whose success the workers depend."""
    extra: dict[str, str | int | bool] = Field(default={})
    """Other sbatch options by their long names, passed on unchanged (`{licenses: matlab, exclusive: true}`)."""

    @field_validator(*_TEXTS)
    @classmethod
    def _one_line(cls, value: object) -> object:
        if isinstance(value, str):
            check_line(value)
        return value

    @field_validator("extra")
    @classmethod
    def _options(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for name, option in value.items():
            if not re.fullmatch(EXTRA_KEY, name):
                rule = "needs the long name of an option of sbatch in small letters, such as licenses"
                raise ValueError(f"{name}: is no option; {rule}")
            own = _OWN_OPTIONS.get(name.replace("_", "-"))
            if own is not None:
                raise ValueError(f"{name}: cannot be given here; {own}")
            if isinstance(option, str):
                check_line(option, f"{name}: ")
        return value

    @field_validator("mem", "mem_per_gpu", "mem_per_cpu")
    @classmethod
    def _memory(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9]{1,12}[KMGT]?B?", value, re.IGNORECASE):
            raise ValueError("needs a number with K, M, G or T, such as 64G")
        return value

    @field_validator("threads")
    @classmethod
    def _any_thread(cls, value: Literal["auto"] | int | None) -> Literal["auto"] | int | None:
        if isinstance(value, int) and not 1 <= value <= MAX_THREADS:
            raise ValueError(f"needs auto, or a number of 1 to {MAX_THREADS}")
        return value

    @field_validator("gpus")
    @classmethod
    def _counted(cls, value: int | str) -> int | str:
        found = re.fullmatch(r"([A-Za-z0-9][\w.@+-]*:)?([0-9]{1,9}|auto)", str(value), re.ASCII)
        if not found:
            raise ValueError('needs a number of GPUs per node, or TYPE:NUMBER such as "a100:4"')
        if found[2] != "auto" and int(found[2]) > MAX_GPUS:
            raise ValueError(
                f'is too many for a node: needs at most {MAX_GPUS}; for a type write its number too: "3090:1"'
            )
        return value

    @model_validator(mode="after")
    def _exclusive(self) -> ResourcesConfig:
        memory = [key for key in ("mem", "mem_per_gpu", "mem_per_cpu") if getattr(self, key) is not None]
        if len(memory) > 1:
            raise ValueError(f"{memory[1]}: {' and '.join(memory)} exclude each other; keep one")
        if self.cpus is not None and self.cpus_per_gpu is not None:
            raise ValueError("cpus: cpus and cpus_per_gpu exclude each other; keep one")
        if self.threads == "auto" and (self.gpus_per_node or self.processes_per_node * self.nodes > 1):
            raise ValueError(
                "threads: auto is for trials of one process without GPUs; write a number, or remove it"
            )
        per_gpu = [key for key in ("cpus_per_gpu", "mem_per_gpu") if getattr(self, key) is not None]
        if per_gpu and not self.gpus_per_node:
            raise ValueError(f"{per_gpu[0]}: needs gpus; without GPUs write cpus, mem or mem_per_cpu")
        return self

    @property
    def gpu_type(self) -> str | None:
        """The type of the GPUs as the study file spells it; None: any, or no GPU."""
        return str(self.gpus).rpartition(":")[0] or None if self.gpus_per_node else None

    @property
    def gpus_per_node(self) -> int:
        """GPUs per node, without their type; 1 while `auto` is not decided (checks/auto_gpus.py)."""
        number = str(self.gpus).rpartition(":")[2]
        return 1 if number == "auto" else int(number)

    @property
    def processes_per_node(self) -> int:
        """Ranks of a trial per node."""
        return self.processes or max(1, self.gpus_per_node)

    @property
    def working_s(self) -> int:
        """Seconds from the start of a job until it is signalled to end."""
        return self.walltime_min * 60 - self.signal_delay_s

    @property
    def walltime_min(self) -> int:
        """`time` in minutes, rounded up."""
        return minutes(self.time)


def unfit_resources(resources: ResourcesConfig) -> Iterator[str]:
    """What tasks of HyperQueue cannot request: `key: why; what to do`."""
    if resources.nodes > 1:
        yield "nodes: a task of HyperQueue runs on one node here; write 1, or execution.place: slurm"
    if resources.rehearsal == "job":
        yield "rehearsal: job is a job of Slurm; write here, or execution.place: slurm"
    if resources.extra:
        yield "extra: holds options of sbatch, and HyperQueue has others; remove it"


def check_line(value: str, key: str = "") -> None:
    """Check that a text is one line that is not empty. `key`: what a message starts with.

    Raises: ValueError.
    """
    wrong = wrong_character(value, one_line=True)
    if wrong is not None:
        raise ValueError(
            f"{key}contains {wrong}; needs one line (a block text `|` ends in a line break: use quotes)"
        )
    if not value.strip():
        raise ValueError(f"{key}is empty; remove the line, or give a value")
