"""Files of a throw-away Slurm cluster: its folder with the configuration, device nodes, and lines in /etc/hosts."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

from hpotune.errors import ClusterError
from hpotune.lab.throwaway_cluster import MARK, NODES, Cluster

HOSTS = Path("/etc/hosts")

SLURM_CONF = """\
# Written by slurm-cluster, removed by its stop. After an edit: scontrol reconfigure.
ClusterName=hpotune
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port_ctld}
SlurmUser=root
# cred_expire is also how long a requeued job waits before it may start again (otherwise 120 s).
AuthInfo=socket={munge},cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/spool/slurmctld
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
# No cgroups: containers rarely let us write them.
ProctrackType=proctrack/linuxproc
ReturnToService=2
SlurmdTimeout=30
BatchStartTimeout=30
KillWait=5
# Steps that end while slurmctld is away would drain their node otherwise.
UnkillableStepTimeout=300
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5,default_queue_depth=1000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=4000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port_dbd}
AccountingStoragePass={munge}
AccountingStorageTRES=gres/gpu,gres/gpu:a100
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=64 RealMemory=256000 Gres=gpu:a100:4
{nodes}
PartitionName=DEFAULT Nodes=ALL DefCpuPerGPU=16 DefMemPerGPU=64000 DefaultTime=01:00:00 MaxTime=7-00:00:00
PartitionName=a100 Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""

SLURMDBD_CONF = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port_dbd}
SlurmUser=root
AuthInfo=socket={munge}
StorageType=accounting_storage/mysql
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
"""


def write_folder(cluster: Cluster) -> None:
    """Write configuration, munge key and device nodes, in a folder that is new, or left by a cluster that died."""
    folder = cluster.folder
    if cluster.is_ours():
        remove(cluster)
    try:
        folder.mkdir(mode=0o755)
    except OSError as error:
        raise ClusterError(
            f"{folder}: {error.strerror}; needs a new folder: set HPOTUNE_CLUSTER_DIR"
        ) from None
    (folder / MARK).write_text(str(folder))
    for name in (
        "etc",
        "log",
        "run",
        "dev",
        "mariadb",
        "spool",
        "spool/slurmctld",
        *(f"spool/{n}" for n in NODES),
    ):
        (folder / name).mkdir(mode=0o755)
    port_ctld, port_dbd, *ports = free_ports(2 + len(NODES))
    host = socket.gethostname().split(".")[0]
    address = f"NodeHostname={host} NodeAddr=127.0.0.1"
    nodes = "\n".join(
        f"NodeName={node} {address} Port={port}" for node, port in zip(NODES, ports, strict=True)
    )
    values = {"folder": folder, "host": host, "munge": folder / "run/munge.socket", "nodes": nodes}
    values |= {"port_ctld": port_ctld, "port_dbd": port_dbd}
    for name, content in {
        "munge.key": os.urandom(128),
        "slurmdbd.conf": SLURMDBD_CONF.format(**values).encode(),
        "gres.conf": f"Name=gpu Type=a100 File={folder}/dev/nvidia[0-3]\n".encode(),
        "slurm.conf": SLURM_CONF.format(**values).encode(),
    }.items():
        (folder / "etc" / name).touch(mode=0o600 if name in ("munge.key", "slurmdbd.conf") else 0o644)
        (folder / "etc" / name).write_bytes(content)
    if lines := cgroup_conf(cluster.call("slurmctld", "-V").stdout):
        (folder / "etc/cgroup.conf").write_text(lines)
    for index in range(4):  # `File=` wants device nodes: these are /dev/null under another name
        try:
            os.mknod(folder / f"dev/nvidia{index}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            raise ClusterError(
                f"mknod in {folder}/dev is not permitted; needs the right to it (CAP_MKNOD)"
            ) from None


def cgroup_conf(version: str) -> str:
    """The text of cgroup.conf for the version that `slurmctld -V` prints; "" for none.

    From 24.05 on slurmd can do without cgroups, and must where /sys/fs/cgroup is empty or read-only, as in most
    containers. An older one does not start with this line.
    """
    found = re.search(r"(\d+)\.(\d+)", version)
    if not found:
        raise ClusterError(
            f"`slurmctld -V` says {version.strip()!r}; needs a version, such as slurm-wlm 24.11.5"
        )
    return "CgroupPlugin=disabled\n" if (int(found[1]), int(found[2])) >= (24, 5) else ""


def add_hosts(cluster: Cluster) -> None:
    """Add our line to /etc/hosts: the nodes, and this machine's own name where neither the file nor DNS knows it."""
    names = names_to_add(socket.gethostname(), address_of)
    try:
        if names:
            add_line(HOSTS, f"127.0.0.1 {' '.join(names)}{cluster.hosts_mark}")
    except OSError as error:
        raise ClusterError(
            f"{HOSTS}: {error.strerror}; needs to be writable: start adds {' '.join(names)}"
        ) from None


def address_of(name: str) -> str | None:
    """The address of a host's name; None where nothing knows it."""
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def names_to_add(own: str, address_of: Callable[[str], str | None]) -> list[str]:
    """Names that must mean this machine and do not yet, or may cease to when another cluster stops."""
    foreign = not (address_of(NODES[0]) or "127.").startswith("127.")
    nodes = [] if foreign else NODES  # a machine called n1 keeps its name
    return nodes + [name for name in dict.fromkeys([own, own.split(".")[0]]) if address_of(name) is None]


def add_line(path: Path, line: str) -> None:
    """Append a line with one write, so that readers see the file as it was or with the line."""
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another cluster may change it too
        file.seek(0)
        text = file.read()
        file.write((b"" if text.endswith(b"\n") or not text else b"\n") + line.encode() + b"\n")


def take_lines(path: Path, mark: str) -> None:
    """Remove the lines that end with the mark."""
    with open(path, "r+b") as file:  # the same file: a container lets nothing be moved over /etc/hosts
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = [line for line in file if not line.rstrip(b"\n").endswith(mark.encode())]
        file.seek(0)
        file.write(b"".join(kept))
        file.truncate()  # after the write: nobody reads an empty file


def free_ports(count: int) -> list[int]:
    """Ports that nobody holds, below those that the kernel hands out by itself."""
    lines = [line for file in Path("/proc/net").glob("tcp*") for line in file.read_text().splitlines()[1:]]
    held = {int(line.split()[1].rpartition(":")[2], 16) for line in lines}
    return random.sample(sorted(set(range(20000, 32000)) - held), count)


def remove(cluster: Cluster) -> None:
    """Kill what runs, then remove the folder: nothing in it needs a clean end."""
    until = time.monotonic() + 10
    while live := cluster.processes():
        if time.monotonic() > until:
            raise ClusterError(
                f"processes {live} do not die; see why with ps, then run `{cluster.program} stop` again"
            )
        cluster.call("kill", "-KILL", *map(str, live))
        time.sleep(0.1)
    if HOSTS.exists() and cluster.hosts_mark.encode() in HOSTS.read_bytes():
        take_lines(HOSTS, cluster.hosts_mark)
    shutil.rmtree(cluster.folder)
