"""Runs one command to its end: within a time limit and a limit of output, whatever bytes it prints.

Knows nothing of Slurm. A command that a site replaced by a script may leave children behind, print binary data, or
never end; it is ended with all that it started.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

NOTICE_S = 3.0
"""Seconds after which stderr names the command that is waited for."""
MAX_BYTES = 256 * 1024 * 1024
"""Bytes of output that are read; `scontrol show job` prints about 1 kB a job of the whole cluster."""
_CHUNK = 1 << 16
_LOOK_S = 0.2
"""Seconds without output after which it is checked whether the command has ended: its children may hold the pipe."""


class TooMuchOutput(Exception):
    """The command printed more than MAX_BYTES and was ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command printed. Bytes that are not UTF-8 are replaced, NUL is removed."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    out: str
    err: str


def communicate(command: Sequence[str], *, env: Mapping[str, str], answer_s: float) -> Answer:
    """Run the command without input. After NOTICE_S a line on stderr says what is waited for.

    Raises: FileNotFoundError, PermissionError and other OSError where it cannot be started, subprocess.TimeoutExpired
        after `answer_s` seconds, TooMuchOutput.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env),
        start_new_session=True,
    ) as child:
        try:
            out, err = _read(child, command[0], answer_s=answer_s)
            code = child.wait(timeout=answer_s)
        finally:
            if child.poll() is None:
                _end(child)
    return Answer(code=code, out=text_of(out), err=text_of(err))


def text_of(raw: bytes) -> str:
    """Printed bytes as text: `?` characters for what is not UTF-8, without NUL."""
    return raw.decode("utf-8", errors="replace").replace("\0", "")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the command and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _read(child: subprocess.Popen[bytes], name: str, *, answer_s: float) -> tuple[bytes, bytes]:
    """Its output until it closes both pipes, or has ended and its children are silent."""
    assert child.stdout is not None, "it was opened with a pipe"
    assert child.stderr is not None, "it was opened with a pipe"
    parts: dict[int, list[bytes]] = {child.stdout.fileno(): [], child.stderr.fileno(): []}
    started, size, noticed = time.monotonic(), 0, False
    with selectors.DefaultSelector() as selector:
        for fd in parts:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            taken = time.monotonic() - started
            if taken > answer_s:
                raise subprocess.TimeoutExpired(name, answer_s)
            if not noticed and taken > NOTICE_S:
                noticed = True
                _tell(name)
            ready = selector.select(timeout=min(_LOOK_S, answer_s))
            if not ready and child.poll() is not None:
                break
            for key, _ in ready:
                piece = os.read(key.fd, _CHUNK)
                if not piece:
                    selector.unregister(key.fd)
                parts[key.fd].append(piece)
                size += len(piece)
            if size > MAX_BYTES:
                raise TooMuchOutput
    out, err = parts.values()
    return b"".join(out), b"".join(err)


def _tell(name: str) -> None:
    with suppress(OSError, ValueError):  # a full disk or a closed stream is no reason to fail
        sys.stderr.write(f"waiting for {name} …\n")
        sys.stderr.flush()
