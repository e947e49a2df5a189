"""Which of how many processes this one is, and the few collectives a trial needs.

`HPOTUNE_RANKS` (slurm, torchrun, single), set by whoever starts the ranks, decides; without it torchrun's
variables win over Slurm's. A process of its own inside a Slurm step sees the SLURM_NTASKS of that step: `single`
says not to believe it. After the rendezvous the variables are taken away: no library shall judge by them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, PORTS = 15_000, 15_000  # below Linux's ephemeral ports, where others listen by chance
TIMEOUT_MIN = 60  # longer than the slowest item of a benchmark keeps one rank


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the environment says this process stands."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """The processes of one trial, seen from one of them. Every method is a collective: all ranks call it."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first_one(self) -> bool:
        """True on the rank that writes files."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, summed over the ranks in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor of rank 0, in place."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def first(self, value: T) -> T:
        """Rank 0's value (anything picklable), on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value (anything picklable), in the order of the ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        box: list[T] = [value] * self.world_size
        dist.all_gather_object(box, value)
        return box

    def any(self, flag: bool) -> bool:
        """True on every rank where it is true on one."""
        return any(self.gather(flag))

    def wait(self) -> None:
        """Returns when all ranks are here."""
        if self.world_size > 1:
            dist.barrier()


def place(env: Mapping[str, str], *, number: int) -> Place:
    """Where this process stands, read from `env`; `number` (the trial's) keeps two trials of a job apart.

    Raises: KeyError where HPOTUNE_RANKS names a launcher whose variables are missing.
    """
    launcher = env.get("HPOTUNE_RANKS") or _launcher(env)
    if launcher == "torchrun":
        return Place(
            rank=int(env["RANK"]),
            world_size=int(env["WORLD_SIZE"]),
            local_rank=int(env.get("LOCAL_RANK", "0")),
            address=env["MASTER_ADDR"],
            port=int(env["MASTER_PORT"]),
        )
    if launcher == "slurm":
        return Place(
            rank=int(env["SLURM_PROCID"]),
            world_size=_slurm_tasks(env),
            local_rank=int(env["SLURM_LOCALID"]),
            address=first_host(env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]),
            port=_port(env, number),
        )
    return Place()


def start(where: Place, env: MutableMapping[str, str]) -> Ranks:
    """The ranks, met: gloo on CPUs, NCCL on GPUs. A process alone meets nobody."""
    device = _device(where.local_rank)
    if where.world_size > 1:
        env.update(
            RANK=str(where.rank),
            WORLD_SIZE=str(where.world_size),
            LOCAL_RANK=str(where.local_rank),
            MASTER_ADDR=where.address,
            MASTER_PORT=str(where.port),
        )
        backend = "gloo" if device.type == "cpu" else "nccl"
        bound = None if device.type == "cpu" else device
        dist.init_process_group(backend, timeout=timedelta(minutes=TIMEOUT_MIN), device_id=bound)
    for name in RENDEZVOUS:
        env.pop(name, None)
    return Ranks(rank=where.rank, world_size=where.world_size, device=device)


def stop(ranks: Ranks) -> None:
    """Lets the process group go."""
    if ranks.world_size > 1:
        dist.destroy_process_group()


def first_host(nodelist: str) -> str:
    """The first name of a Slurm node list: `n[3-5,8],m1` gives `n3`, `r[01-02]c[7-9]` gives `r01c7`."""
    head = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodelist)
    assert head is not None, "the pattern matches the empty string too"
    return re.sub(r"\[([^\]]*)\]", lambda match: re.split(r"[,-]", match[1])[0], head[0])


def _launcher(env: Mapping[str, str]) -> str:
    if all(name in env for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return "torchrun"
    # A batch script has SLURM_PROCID and SLURM_NTASKS too, but only srun sets the tasks of a step.
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_LOCALID" in env:
        return "slurm"
    return "single"


def _slurm_tasks(env: Mapping[str, str]) -> int:
    return int(env.get("SLURM_STEP_NUM_TASKS") or env["SLURM_NTASKS"])


def _port(env: Mapping[str, str], number: int) -> int:
    key = f"{env.get('SLURM_JOB_ID', '')}.{env.get('SLURM_STEP_ID', '')}.{number}"
    return FIRST_PORT + zlib.crc32(key.encode()) % PORTS


def _device(local_rank: int) -> torch.device:
    # Modulo: where Slurm binds one GPU to a task, every task sees its own as device 0.
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
