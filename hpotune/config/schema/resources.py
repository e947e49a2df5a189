"""The sections of a study file that say where it runs: what a job asks Slurm for, and what it sets up first."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from hpotune.config.schema import Section
from hpotune.config.schema.walltime import WallTime, minutes

SECRET = re.compile(
    r"PASSWORD$|PASSWD$|_PWD$|(^|_)(TOKEN|PASS|PASSPHRASE|CREDENTIALS?|SECRET|SECRET_.*KEY|"
    r"(API|ACCESS|PRIVATE|ACCOUNT|STORAGE)_?KEY)$",
    re.IGNORECASE,
)
"""Names of variables that hold secrets: PGPASSWORD, MYSQL_PWD, AWS_SECRET_ACCESS_KEY, HF_TOKEN; not PWD."""
ASSIGNED = re.compile(r"(?:^|[\s;&|])([A-Za-z_]\w*)=(?![\"']?[$`]|[\s;&|]|$)")
"""A variable set in a shell line to a text that stands there; `$(cat FILE)` keeps it elsewhere."""


class ResourcesConfig(Section):
    """What one job asks Slurm for. Only what you write here is emitted."""

    partition: str | None = None
    """null: the cluster's default."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    gpus: int | str = 0
    """A node: `4`, or typed `A100:4`."""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How the GPUs are asked for: `--gpus-per-node=A100:4` or `--gres=gpu:A100:4`; sites differ."""
    nodes: int = Field(default=1, ge=1)
    processes: int | None = Field(default=None, ge=1)
    """Ranks of a trial a node; null: one a GPU, or one without GPUs."""
    cpus_per_gpu: int | None = Field(default=None, ge=1)
    """CPUs for each GPU."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs a node, instead of cpus_per_gpu."""
    mem: str | None = None
    """A node, as Slurm writes it (`64G`); mem, mem_per_gpu, mem_per_cpu exclude each other; null: the cluster's
    default."""
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    time: WallTime = "1:00:00"
    """Wall time of a job, as Slurm writes it: minutes, MM:SS, HH:MM:SS, D-HH:MM:SS."""
    exclude: str | None = None
    """Nodes to avoid."""
    wckey: str | None = None
    """null: none is sent."""
    signal_delay_s: int = Field(default=180, ge=0)
    """Seconds before the end of a job at which its trial is told to checkpoint."""
    follow_up: bool | Literal["worker"] = True
    """Who tells dead trials and submits what is missing. true: a small job without GPUs that starts when others have
    ended. worker: the worker that ends last, for clusters without a place for small jobs. false: you, with
    `hpotune submit`."""
    extra: dict[str, str | int | bool] = Field(default={})
    """Other sbatch options, passed on letter by letter (`{licenses: matlab, exclusive: true}`)."""

    @field_validator("mem", "mem_per_gpu", "mem_per_cpu")
    @classmethod
    def _memory(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d+[KMGT]?B?", value, re.IGNORECASE):
            raise ValueError("needs a number with K, M, G or T, such as 64G")
        return value

    @field_validator("gpus")
    @classmethod
    def _counted(cls, value: int | str) -> int | str:
        if not re.fullmatch(r"([A-Za-z][^:]*:)?\d+", str(value)):
            raise ValueError("needs a number a node, or TYPE:NUMBER such as A100:4")
        return value

    @model_validator(mode="after")
    def _exclusive(self) -> ResourcesConfig:
        memory = [key for key in ("mem", "mem_per_gpu", "mem_per_cpu") if getattr(self, key) is not None]
        if len(memory) > 1:
            raise ValueError(f"{memory[1]}: {' and '.join(memory)} exclude each other; keep one")
        if self.cpus is not None and self.cpus_per_gpu is not None:
            raise ValueError("cpus: cpus and cpus_per_gpu exclude each other; keep one")
        per_gpu = [key for key in ("cpus_per_gpu", "mem_per_gpu") if getattr(self, key) is not None]
        if per_gpu and not self.gpus_per_node:
            raise ValueError(f"{per_gpu[0]}: needs gpus; without GPUs write cpus, mem or mem_per_cpu")
        return self

    @property
    def gpus_per_node(self) -> int:
        """The number in `gpus`."""
        return int(str(self.gpus).rpartition(":")[2])

    @property
    def processes_per_node(self) -> int:
        """Ranks of a trial on each node."""
        return self.processes or max(1, self.gpus_per_node)

    @property
    def working_s(self) -> int:
        """Seconds from the start of a job until it is told to end."""
        return self.walltime_min * 60 - self.signal_delay_s

    @property
    def walltime_min(self) -> int:
        """`time` in minutes, rounded up."""
        return minutes(self.time)


class EnvConfig(Section):
    """What a job sets up before it starts."""

    modules: list[str] = Field(default=[])
    """`module load` lines, in order."""
    venv: str | None = "auto"
    """A virtual environment to activate; auto: the one that runs hpotune now; null: none."""
    container: str | None = None
    """An apptainer image in which ranks, functions and commands run: a local file or an address (docker://…). hpotune
    must be installed in it, or stand under the same path inside as outside."""
    setup: list[str] = Field(default=[])
    """Shell lines run first, as they stand; never secrets."""
    vars: dict[str, str] = Field(default={})
    """Environment variables; never secrets, they stand readable in the job script."""
    offline: bool = True
    """Sets HF_HUB_OFFLINE in trials: without it a node without internet retries for minutes, unseen."""

    @field_validator("vars")
    @classmethod
    def _exportable(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                raise ValueError(f"{name}: is no name of a variable; needs letters, digits and _")
            if SECRET.search(name):
                raise ValueError(
                    f"{name}: is a secret, and job scripts are readable; export it in ~/.bashrc instead"
                )
        return value

    @model_validator(mode="after")
    def _no_secrets(self) -> EnvConfig:
        for name in (name for line in self.setup for name in ASSIGNED.findall(line)):
            if SECRET.search(name):  # between keys, so that the line itself is not shown
                raise ValueError(
                    f"setup: sets {name}, a secret, and job scripts are readable; export it in ~/.bashrc instead"
                )
        return self
