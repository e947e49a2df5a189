"""How the ranks of a trial find each other: rank 0 opens a store, and a file in the trial's folder leads to it.

The port is one that the system chose. The file holds host, port and a secret, can be read by its owner only, is named
by the attempt and is removed once all ranks have met. Each rank and rank 0 prove to each other that they have read it.
torch's TCPStore itself knows no authentication: SECURITY.md says what that leaves open.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from hpotune.finetune.trial_errors import TrialError
from hpotune.workspace.atomic_files import write_atomic

PATIENCE_S = 15 * 60.0  # the first import of torch from a slow file system takes minutes on some ranks
CONNECT_S = 30
LOOPBACK = "127.0.0.1"
PREFIX = ".rendezvous-"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Endpoint:
    """Where rank 0 listens, and what proves that a process has read this file."""

    host: str
    port: int
    secret: str


def open_rendezvous(
    folder: Path, attempt: str, *, names: tuple[str, ...], ranks: int, patience_s: float = PATIENCE_S
) -> dist.Store:
    """Open the store on rank 0, which listens at the first of the host names that is this node's; wait for all ranks.

    Raises: TrialError if a rank does not come, or does not prove that it has read the file.
    """
    for old in folder.glob(f"{PREFIX}*"):
        old.unlink(missing_ok=True)
    file = rendezvous_file(folder, attempt)
    host, listener = _listen(names)
    endpoint = _Endpoint(host=host, port=listener.getsockname()[1], secret=secrets.token_hex(32))
    server = dist.TCPStore(
        endpoint.host,
        endpoint.port,
        is_master=True,
        timeout=timedelta(seconds=patience_s),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    write_atomic(file, json.dumps(asdict(endpoint)), mode=0o600)
    try:
        for rank in range(1, ranks):
            _check_rank(server, endpoint, rank, file=file)
    finally:
        file.unlink(missing_ok=True)
    return _private(server, endpoint)


def join_rendezvous(folder: Path, attempt: str, *, rank: int, patience_s: float = PATIENCE_S) -> dist.Store:
    """The store of rank 0, found through the file of this attempt once it is there.

    Raises: TrialError if there is no such file within the patience, nobody listens, or the listener does not prove
    that it wrote the file.
    """
    file = rendezvous_file(folder, attempt)
    until, pause_s, missing = time.monotonic() + patience_s, 0.05, "rank 0 has not written it"
    while True:
        endpoint = _read(file)
        if endpoint is not None:
            try:
                store = _connect(endpoint, patience_s=patience_s)
                _check_server(store, endpoint, rank, file=file)
                return _private(store, endpoint)
            except (OSError, dist.DistError):
                missing = f"nobody answers at {endpoint.host}, port {endpoint.port}"
        if time.monotonic() >= until:
            raise TrialError(f"rank {rank} did not find rank 0 through {file}: {missing}")
        time.sleep(pause_s)
        pause_s = min(1.0, 1.5 * pause_s)


def rendezvous_file(folder: Path, attempt: str) -> Path:
    """The file of this attempt: the name of an earlier one is another."""
    return folder / f"{PREFIX}{attempt}"


def _listen(names: tuple[str, ...]) -> tuple[str, socket.socket]:
    """A listener at an address of one of the names, and the host that leads to it.

    Where a name leads to this machine's own loopback only, as Debian's /etc/hosts has it, other nodes know it by
    another address: then at all addresses.
    """
    for name in names:
        for family, address in _addresses(name):
            own = ipaddress.ip_address(address.partition("%")[0])
            if name != LOOPBACK and (own.is_loopback or own.is_link_local):
                continue
            try:
                return address, socket.create_server((address, 0), family=family, backlog=socket.SOMAXCONN)
            except OSError:  # not an address of this node
                continue
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    listener = socket.create_server(("", 0), family=family, backlog=socket.SOMAXCONN, dualstack_ipv6=both)
    return names[0], listener


def _connect(endpoint: _Endpoint, *, patience_s: float) -> dist.Store:
    # torch retries a refused connection for the whole timeout: the file may have changed by then
    socket.create_connection((endpoint.host, endpoint.port), timeout=CONNECT_S).close()
    limit = timedelta(seconds=CONNECT_S)
    store = dist.TCPStore(
        endpoint.host, endpoint.port, is_master=False, timeout=limit, wait_for_workers=False
    )
    store.set_timeout(timedelta(seconds=patience_s))
    return store


def _addresses(name: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [(family, str(address[0])) for family, *_, address in found]


def _read(file: Path) -> _Endpoint | None:
    """What the file says; None if it is not there yet. Listing its folder makes an NFS client look again."""
    try:
        if file.name not in os.listdir(file.parent):
            return None
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as content:
            return _Endpoint(**json.loads(content.read()))
    except (
        OSError,
        ValueError,
        TypeError,
    ):  # removed meanwhile, a stale handle, or not whole yet for this client
        return None


def _check_rank(server: dist.Store, endpoint: _Endpoint, rank: int, *, file: Path) -> None:
    """Prove the secret to the rank, and let it prove it."""
    store = dist.PrefixStore(f"meet/{rank}", server)
    try:
        asked, own = store.get("question").decode(), secrets.token_hex(16)
        store.set("proof", f"{own} {_mac(endpoint, 'server', rank, asked, own)}")
        answer = store.get("answer").decode(errors="replace")
    except dist.DistError:
        raise TrialError(f"rank {rank} did not come to the rendezvous of {file} in time") from None
    if not hmac.compare_digest(answer.encode(), _mac(endpoint, "rank", rank, asked, own).encode()):
        raise TrialError(f"refused: who came as rank {rank} does not know the secret in {file}")


def _check_server(store: dist.Store, endpoint: _Endpoint, rank: int, *, file: Path) -> None:
    """Let the server prove that it knows the secret, then prove it."""
    own = secrets.token_hex(16)
    meeting = dist.PrefixStore(f"meet/{rank}", store)
    meeting.set("question", own)
    asked, _, proof = meeting.get("proof").decode(errors="replace").partition(" ")
    if not hmac.compare_digest(proof.encode(), _mac(endpoint, "server", rank, own, asked).encode()):
        raise TrialError(
            f"refused: who listens at {endpoint.host}, port {endpoint.port} does not know the secret in {file}"
        )
    meeting.set("answer", _mac(endpoint, "rank", rank, own, asked))


def _private(store: dist.Store, endpoint: _Endpoint) -> dist.Store:
    """The store under a prefix that follows from the secret, so that others cannot guess its keys."""
    return dist.PrefixStore(_mac(endpoint, "keys"), store)


def _mac(endpoint: _Endpoint, *parts: object) -> str:
    return hmac.new(endpoint.secret.encode(), " ".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()
