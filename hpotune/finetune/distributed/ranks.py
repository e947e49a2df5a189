"""The ranks of one trial: which rank this process is, and the collectives that a trial needs.

`HPOTUNE_RANKS` (slurm, torchrun, single) names the launcher; whoever starts the ranks sets it. Without it torchrun's
variables take precedence over Slurm's. A single process inside a Slurm step sees the step's SLURM_NTASKS; `single`
makes it ignore them. torchrun's variables are removed, so that no library reads them: the ranks meet by rendezvous.py.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from hpotune.finetune.distributed.rendezvous import LOOPBACK, join_rendezvous, open_rendezvous

T = TypeVar("T")

RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT_MIN = 60  # longer than the slowest item of a benchmark takes on one rank


@dataclass(frozen=True, kw_only=True, slots=True)
class RankInfo:
    """What the environment says about this process: its rank, and where the ranks meet."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """The rank among the processes of its node."""
    host: str = LOOPBACK
    """Name of rank 0's node, or 127.0.0.1 if all ranks are on one node."""
    attempt: str = ""
    """Names this start of the ranks: no other start of the trial has the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """The processes of one trial, seen from one of them. Every method is a collective: all ranks must call it."""

    rank: int
    world_size: int
    device: torch.device
    store: dist.Store | None = None
    """Where the ranks have met; None: a single process."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum the tensor over the ranks (it is overwritten) and return it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Overwrite the tensor with rank 0's and return it."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def broadcast_object(self, value: T) -> T:
        """Rank 0's value (any picklable object), on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather_object(self, value: T) -> list[T]:
        """The value (any picklable object) of every rank, in the order of the ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        box: list[T] = [value] * self.world_size
        dist.all_gather_object(box, value)
        return box

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on at least one rank."""
        return any(self.all_gather_object(flag))

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        if self.world_size > 1:
            dist.barrier()


def read_rank_info(env: Mapping[str, str]) -> RankInfo:
    """This process's rank, where rank 0 is, and the name of this start of the ranks.

    Raises: KeyError if HPOTUNE_RANKS names a launcher whose variables are missing.
    """
    launcher = env.get("HPOTUNE_RANKS") or _launcher(env)
    if launcher == "torchrun":
        return RankInfo(
            rank=int(env["RANK"]),
            world_size=int(env["WORLD_SIZE"]),
            local_rank=int(env.get("LOCAL_RANK", "0")),
            host=LOOPBACK if env.get("LOCAL_WORLD_SIZE") == env["WORLD_SIZE"] else env["MASTER_ADDR"],
            attempt=_attempt(env, "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
        )
    if launcher == "slurm":
        nodes = env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]
        return RankInfo(
            rank=int(env["SLURM_PROCID"]),
            world_size=_slurm_tasks(env),
            local_rank=int(env["SLURM_LOCALID"]),
            host=first_host(nodes) if re.search(r"[,\[]", nodes) else LOOPBACK,
            attempt=_attempt(env, "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
        )
    return RankInfo()


def init_ranks(info: RankInfo, env: MutableMapping[str, str], *, folder: Path) -> Ranks:
    """Initialise the process group (gloo on CPUs, NCCL on GPUs; none for a single process) and return the ranks.

    The ranks meet through a file in `folder`, the trial's.
    Raises: TrialError if they do not find each other, or one does not know the file's secret.
    """
    device = _select_device(info.local_rank)
    for name in RENDEZVOUS:
        env.pop(name, None)
    store: dist.Store | None = None
    if info.world_size > 1:
        if info.host == LOOPBACK:
            env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo would listen at the host name's address
        timeout = timedelta(minutes=TIMEOUT_MIN)
        store = _meet(info, folder)
        store.set_timeout(timeout)
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "nccl",
            store=store,
            rank=info.rank,
            world_size=info.world_size,
            timeout=timeout,
            device_id=None if device.type == "cpu" else device,
        )
    return Ranks(rank=info.rank, world_size=info.world_size, device=device, store=store)


def destroy_ranks(ranks: Ranks) -> None:
    """Destroy the process group."""
    if ranks.world_size > 1:
        dist.destroy_process_group()


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: `n[3-5,8],m1` gives `n3`, `r[01-02]c[7-9]` gives `r01c7`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodelist)
    assert first is not None, "the pattern matches the empty string too"
    return re.sub(r"\[([^\]]*)\]", lambda match: re.split(r"[,-]", match[1])[0], first[0])


def _launcher(env: Mapping[str, str]) -> str:
    if all(name in env for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return "torchrun"
    # A batch script has SLURM_PROCID and SLURM_NTASKS too, but only srun sets the tasks of a step.
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_LOCALID" in env:
        return "slurm"
    return "single"


def _slurm_tasks(env: Mapping[str, str]) -> int:
    return int(env.get("SLURM_STEP_NUM_TASKS") or env["SLURM_NTASKS"])


def _attempt(env: Mapping[str, str], *names: str) -> str:
    return ".".join(re.sub(r"[^\w-]", "_", env.get(name) or "0") for name in names)


def _meet(info: RankInfo, folder: Path) -> dist.Store:
    if info.rank > 0:
        return join_rendezvous(folder, info.attempt, rank=info.rank)
    names = (info.host,) if info.host == LOOPBACK else (info.host, socket.gethostname())
    return open_rendezvous(folder, info.attempt, names=names, ranks=info.world_size)


def _select_device(local_rank: int) -> torch.device:
    # Modulo: if Slurm binds one GPU to each task, every task sees its own GPU as device 0.
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
