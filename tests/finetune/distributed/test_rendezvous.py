"""Ranks find each other through a file that only they can read; who does not know its secret is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from hpotune.finetune.distributed.rendezvous import (
    LOOPBACK,
    join_rendezvous,
    open_rendezvous,
    rendezvous_file,
)
from hpotune.finetune.trial_errors import TrialError
from tests.fixtures.tiny_trials import ENV

PATIENCE_S = 60.0
RANK = """
import os, sys
from pathlib import Path
import torch
from hpotune.finetune.distributed.ranks import destroy_ranks, init_ranks, read_rank_info
ranks = init_ranks(read_rank_info(os.environ), os.environ, folder=Path(sys.argv[1]))
print(sys.argv[2], ranks.all_gather_object(sys.argv[2]), ranks.all_reduce_sum(torch.ones(1)).item())
destroy_ranks(ranks)
"""
Opened = Callable[..., "Future[dist.Store]"]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Starts rank 0 of a trial with two ranks in a thread."""
    with ThreadPoolExecutor() as pool:

        def start(attempt: str = "7.0.0", folder: Path = tmp_path, names: tuple[str, ...] = (LOOPBACK,)):
            return pool.submit(open_rendezvous, folder, attempt, names=names, ranks=2, patience_s=PATIENCE_S)

        yield start


def written(folder: Path, attempt: str = "7.0.0") -> dict:
    """What rank 0 wrote, once it is there."""
    file = rendezvous_file(folder, attempt)
    while not file.exists():
        time.sleep(0.01)
    assert file.stat().st_mode & 0o777 == 0o600
    return json.loads(file.read_text())


def join(folder: Path, attempt: str = "7.0.0", *, patience_s: float = PATIENCE_S) -> dist.Store:
    return join_rendezvous(folder, attempt, rank=1, patience_s=patience_s)


def plant(folder: Path, attempt: str = "7.0.0", **endpoint: object) -> None:
    """A file of this name with a port where nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    values = {"host": LOOPBACK, "port": port, "secret": "0" * 64, **endpoint}
    rendezvous_file(folder, attempt).write_text(json.dumps(values))


def addresses(port: int) -> list[str]:
    """Where this machine listens at the port, as /proc has it (hexadecimal)."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
    ]
    return [line[1].split(":")[0] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")]


def test_trials_at_once_have_own_ports(opened: Opened, tmp_path: Path) -> None:
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
    servers = [opened(folder=folder) for folder in folders]
    ports = [written(folder)["port"] for folder in folders]
    assert ports[0] != ports[1]
    assert [addresses(port) for port in ports] == [["0100007F"], ["0100007F"]]
    for folder, server in zip(folders, servers, strict=True):
        joined = join(folder)
        joined.set("key", folder.name)
        assert server.result().get("key").decode() == folder.name
        assert list(folder.iterdir()) == []


def test_several_nodes_use_host_name(opened: Opened, tmp_path: Path) -> None:
    server = opened(names=(socket.gethostname(),))
    joined = join(tmp_path)
    joined.set("key", "value")
    assert server.result().get("key") == b"value"


def test_file_of_earlier_attempt_is_ignored(opened: Opened, tmp_path: Path) -> None:
    plant(tmp_path, "7.0.0")
    with pytest.raises(TrialError, match="rank 0 has not written it"):
        join(tmp_path, "7.1.0", patience_s=0.2)
    server = opened("7.1.0")
    join(tmp_path, "7.1.0")
    server.result()
    assert list(tmp_path.iterdir()) == []


def test_left_file_is_replaced(opened: Opened, tmp_path: Path) -> None:
    plant(tmp_path)
    with pytest.raises(TrialError, match="nobody answers at 127.0.0.1"):
        join(tmp_path, patience_s=0.2)
    with ThreadPoolExecutor() as pool:
        joined = pool.submit(join, tmp_path)
        opened().result()
        joined.result()


def test_server_without_secret_is_refused(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    server = opened(folder=tmp_path / "other")
    plant(tmp_path, port=written(tmp_path / "other")["port"])
    with pytest.raises(TrialError, match="^refused: who listens at .* does not know the secret in .*$"):
        join(tmp_path)
    meeting(written(tmp_path / "other")["port"]).set("answer", "enough")
    with pytest.raises(TrialError):
        server.result()


def test_rank_without_secret_is_refused(opened: Opened, tmp_path: Path) -> None:
    server = opened()
    meeting(written(tmp_path)["port"]).multi_set(["question", "answer"], ["0", "0" * 64])
    with pytest.raises(TrialError, match="^refused: who came as rank 1 does not know the secret in .*$"):
        server.result()
    assert list(tmp_path.iterdir()) == []


def meeting(port: int) -> dist.Store:
    """A client that found the port, but not the file."""
    limit = timedelta(seconds=PATIENCE_S)
    store = dist.TCPStore(LOOPBACK, port, is_master=False, timeout=limit, wait_for_workers=False)
    return dist.PrefixStore("meet/1", store)


def test_two_trials_at_once_keep_apart(tmp_path: Path) -> None:
    step = {"HPOTUNE_RANKS": "slurm", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    step |= {"SLURM_STEP_NODELIST": "n1"}
    processes = []
    for trial in ("a", "b"):
        (tmp_path / trial).mkdir()
        for rank in ("0", "1"):
            env = {**os.environ, **ENV, **step, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
            command = [sys.executable, "-c", RANK, str(tmp_path / trial), trial + rank]
            processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=300)[0].strip() for process in processes]
    assert said == [
        "a0 ['a0', 'a1'] 2.0",
        "a1 ['a0', 'a1'] 2.0",
        "b0 ['b0', 'b1'] 2.0",
        "b1 ['b0', 'b1'] 2.0",
    ]
