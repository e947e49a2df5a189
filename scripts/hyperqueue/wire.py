"""HyperQueue's protocol between client and server, as version 0.27 speaks it: bincode in frames, without encryption.

The server that the Python package starts has no keys, so its messages are plain. Only what `hq` beside this file asks
is here: submit, cancel, lists of jobs, tasks and workers, information, stop.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
UNITS = 10_000
"""Fractions of one unit of a resource; also of a weight of 1."""
(SUBMIT, CANCEL, _, JOB_DETAIL, JOB_INFO, GET_LIST, _, _, STOP, _, SERVER_INFO) = range(11)
"""Messages to the server, by their numbers."""
ERROR = 13
"""The server's message of an error."""
TASK_STATES = ("waiting", "running", "finished", "failed", "canceled", "aborted")


class HqError(Exception):
    """What the server answers, or why it does not."""


class Reader:
    """Reads values of bincode (fixed integers, little-endian) one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, form: str = "I") -> int:
        """B: 8 bits, H: 16, I: 32, Q: 64; i: 32 with a sign; f: 32, a float cut to a whole number."""
        (found,) = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(form)
        return int(found)

    def text(self) -> str:
        size = self.number("Q")
        self._at += size
        return self._data[self._at - size : self._at].decode(errors="replace")

    def maybe(self, read: Callable[[], T]) -> T | None:
        return read() if self.number("B") else None

    def many(self, read: Callable[[], T]) -> list[T]:
        return [read() for _ in range(self.number("Q"))]

    def duration(self) -> float:
        return float(self.number("Q")) + float(self.number()) / 1e9


def number(value: int, form: str = "I") -> bytes:
    return struct.pack(f"<{form}", value)


def text(value: str) -> bytes:
    raw = value.encode()
    return number(len(raw), "Q") + raw


def many(items: Sequence[bytes]) -> bytes:
    return number(len(items), "Q") + b"".join(items)


def maybe(value: bytes | None) -> bytes:
    return b"\0" if value is None else b"\1" + value


def id_ranges(numbers: Sequence[int]) -> bytes:
    """An IntArray, a range of one for each."""
    return many([number(one) + number(1) + number(1) for one in numbers])


def selector(jobs: Sequence[int] | None) -> bytes:
    """Jobs by their numbers; None: all."""
    return number(0) if jobs is None else number(2) + id_ranges(jobs)


class Session:
    """A client's connection to the server whose folder is given."""

    def __init__(self, folder: Path) -> None:
        current = folder / "hq-current"
        access = (current if current.is_dir() else folder) / "access.json"
        if not access.is_file():
            raise HqError(f"No running instance of HQ found at {str(folder)!r}.")
        found = json.loads(access.read_text())["client"]
        if found["secret_key"] is not None:
            raise HqError("the server encrypts: use the hq program of its own version")
        where = f"{found['host']}:{found['port']}"
        try:
            self._socket = socket.create_connection((found["host"], found["port"]), timeout=20)
            self._send(number(0) + text("hq-client") + number(0))
            self._receive()
            self._send(number(0))
            if Reader(self._receive()).number() != 0:
                raise HqError("the server refuses the connection")
        except OSError:
            raise HqError(f"Access token found but HQ server {where} is unreachable.") from None

    def ask(self, message: bytes) -> Reader:
        """The server's answer, after its number."""
        try:
            self._send(message)
            answer = Reader(self._receive())
        except OSError as error:
            raise HqError(f"HQ server is unreachable: {error}") from None
        if answer.number() == ERROR:
            raise HqError(answer.text())
        return answer

    def tell(self, message: bytes) -> None:
        """Send a message that has no answer."""
        self._send(message)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(number(len(data)) + data)

    def _receive(self) -> bytes:
        return self._read(int.from_bytes(self._read(4), "little"))

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self._socket.recv(size - len(found))
            if not part:
                raise ConnectionResetError("the connection was closed")
            found += part
        return found


def submit_message(
    *,
    name: str,
    tasks: Sequence[int],
    args: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    stdout: str | None,
    resources: Mapping[str, int],
    time_limit_s: float | None,
    crash_limit: int | None,
    submit_dir: str,
) -> bytes:
    """A job of one array. `crash_limit`: lost workers after which a task fails; None: any number."""
    variables = [text(key) + text(value) for key, value in env.items()]
    output = number(0) if stdout is None else number(1) + text(stdout) + number(0)
    program = many([text(arg) for arg in args]) + many(variables) + output + number(0) + many([]) + text(cwd)
    limit = None if time_limit_s is None else number(int(time_limit_s), "Q") + number(0)
    crashes = number(2) if crash_limit is None else number(1) + number(crash_limit, "H")
    task = number(0) + program + number(0) + b"\0" + maybe(limit) + number(0, "i") + crashes
    wanted = [text(key) + number(0) + number(value * UNITS, "Q") for key, value in resources.items()]
    request = many([number(0) + many(wanted) + number(0, "Q") + number(0) + number(UNITS)])
    array = number(0) + id_ranges(tasks) + maybe(None) + request + task
    job = text(name) + maybe(None)
    return number(SUBMIT) + job + array + text(submit_dir) + maybe(None) + maybe(None) + maybe(None)


def job_info(read: Reader) -> dict[str, Any]:
    """A JobInfo, in the form of `hq job list`."""
    number_, name, count = read.number(), read.text(), read.number()
    words = ("running", "finished", "failed", "canceled", "aborted")
    stats = {word: read.number() for word in words}
    is_open, reason = bool(read.number("B")), read.maybe(read.text)
    read.many(read.number)
    stats["waiting"] = count - sum(stats.values())
    return {"id": number_, "name": name, "task_count": count, "is_open": is_open, "task_stats": stats,
            "cancel_reason": reason}  # fmt: skip


def _skip_stdio(read: Reader) -> None:
    if read.number() == 1:
        read.text()
        read.number()


def _skip_request(read: Reader) -> None:
    def entry() -> None:
        read.text()
        if read.number() != 5:  # all
            read.number("Q")

    def variant() -> None:
        read.number()
        read.many(entry)
        read.duration()
        read.number()

    read.many(variant)


def _skip_task(read: Reader) -> None:
    read.number()
    read.many(read.text)
    read.many(lambda: (read.text(), read.text()))
    _skip_stdio(read)
    _skip_stdio(read)
    read.text()  # stdin: bytes have the form of a text
    read.text()
    read.number()
    read.number("B")
    read.maybe(read.duration)
    read.number("i")
    if read.number() == 1:
        read.number("H")


def _skip_submit(read: Reader) -> None:
    read.text()

    def one() -> None:
        read.number()
        read.number()
        _skip_task(read)
        read.many(read.number)

    if read.number() == 0:
        read.many(lambda: (read.number(), read.number(), read.number()))
        read.maybe(lambda: read.many(read.text))
        _skip_request(read)
        _skip_task(read)
    else:
        read.many(lambda: _skip_request(read))
        read.many(one)
    read.text()
    read.maybe(read.text)


def _started(read: Reader) -> dict[str, Any]:
    at, instance = read.text(), read.number()
    workers = read.many(read.number)
    read.number("B")
    return {"started_at": at, "instance": instance, "worker": workers[0] if workers else None}


def _task(read: Reader) -> dict[str, Any]:
    found = {"id": read.number(), "state": TASK_STATES[read.number()]}
    if found["state"] == "waiting":
        return found
    if found["state"] in ("running", "finished"):
        found |= _started(read)
    else:
        found |= read.maybe(lambda: _started(read)) or {}
    if found["state"] != "running":
        found["finished_at"] = read.text()
    if found["state"] == "failed":
        found["error"] = read.text()
    return found


def job_detail(read: Reader) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A JobDetail: the job, and its tasks in the form of `hq task list`."""
    info = job_info(read)
    read.text()
    read.maybe(read.number)
    read.many(lambda: _skip_submit(read))
    tasks = read.many(lambda: _task(read))
    read.many(read.number)
    read.text()
    read.text()
    return info, sorted(tasks, key=lambda task: int(task["id"]))


def worker_info(read: Reader) -> dict[str, Any]:
    """A WorkerInfo, in the form of `hq worker list` as far as it is needed."""

    def kind() -> None:
        which = read.number()
        if which == 0:
            read.many(read.text)
        elif which == 1:
            read.many(lambda: read.many(read.text))
        elif which == 2:
            read.number(), read.number()
        else:
            read.number("Q")

    def coupling() -> None:
        for form in "BBBBH":
            read.number(form)

    id_ = read.number()
    read.many(lambda: (read.text(), kind()))
    read.many(coupling)
    read.text()
    host = read.text()
    read.text()
    read.text()
    read.duration()
    read.maybe(read.duration)
    read.many(read.number)
    read.maybe(read.duration)
    read.maybe(read.duration)
    read.duration()
    read.number()
    read.number("f")
    read.many(lambda: (read.text(), read.text()))
    read.text()
    ended = read.maybe(lambda: (read.text(), read.number())[0])

    def runtime() -> None:
        if read.number() == 0:
            read.number(), read.number(), read.number("B")
        else:
            read.number("B")

    read.maybe(runtime)
    read.maybe(lambda: (read.number(), read.number(), read.text()))
    return {"id": id_, "configuration": {"hostname": host}, "ended": ended}
