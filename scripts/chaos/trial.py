"""The trial that chaos strikes: two ranks that step together, write checkpoints, and go on from them.

Run as `python trial.py`: reads $HPOTUNE_PARAMS and $HPOTUNE_TRIAL_DIR, writes $HPOTUNE_RESULT. Its state is a chain of
hashes: a step left out, done twice or started from another trial's checkpoint gives another value. It sleeps, for a
step must not need a processor. Standard library only; `value` is also what the check compares with.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

STEP_S = 0.5
RANKS = 2
NODE_FAULT = "CUDA error: uncorrectable ECC error encountered"
Params = Mapping[str, float]


def steps(params: Params) -> int:
    """Steps of a trial: 9 to 14, by its point."""
    return 9 + int(params["x"] * 5.999)


def part(rank: int, step: int, state: int, params: Params) -> int:
    """What one rank adds to the state in one step."""
    text = f"{rank} {step} {state} {params['x']!r} {params['y']!r}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def value(params: Params) -> float:
    """The value of a point, in [0, 1): every step done once, in order."""
    state = 0
    for step in range(steps(params)):
        state = sum(part(rank, step, state, params) for rank in range(RANKS)) % 2**48
    return state / 2**48


class Asked(Exception):
    """Somebody asked the trial to end."""


def main() -> int:
    """Starts the ranks and waits for them; the exit code tells what ended one of them, 0 nothing."""
    params, folder = json.loads(os.environ["HPOTUNE_PARAMS"]), Path(os.environ["HPOTUNE_TRIAL_DIR"])
    up, down = os.pipe(), os.pipe()  # rank 1 tells rank 0 its part, rank 0 tells rank 1 the state
    ranks = {}
    for rank in range(RANKS):
        pid = os.fork()
        if pid == 0:
            os._exit(guarded(rank, params, folder, up, down))
        ranks[pid] = rank
    for end in (*up, *down):
        os.close(end)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the ranks hear it too: all of the process group does
    codes = []
    while ranks:
        pid, status = os.wait()
        rank, ended = ranks.pop(pid), os.waitstatus_to_exitcode(status)
        codes.append(ended)
        if ended < 0:
            print(f"rank {rank} was killed by signal {-ended}", flush=True)
        for other in ranks if ended else ():
            os.kill(other, signal.SIGTERM)
    killed = [128 - code for code in codes if code < 0]  # what struck one, not what the others made of it
    return next(iter([*killed, *filter(None, codes)]), 0)


def guarded(rank: int, params: Params, folder: Path, up: tuple[int, int], down: tuple[int, int]) -> int:
    """A rank's exit code."""

    def asked(*_: object) -> None:
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # a second one would be raised while the first one is handled
        raise Asked

    source, sink = (down[0], up[1]) if rank else (up[0], down[1])
    for end in {*up, *down} - {source, sink}:  # else the other's death would not be seen
        os.close(end)
    try:
        signal.signal(signal.SIGTERM, asked)
        state = train(rank, params, folder, source=source, sink=sink)
        if rank == 0:
            answer = Path(os.environ["HPOTUNE_RESULT"])
            write(answer, {"value": state / 2**48})
        return 0
    except Asked:
        return 128 + signal.SIGTERM
    except OSError as error:
        print(f"rank {rank}: OSError: {error}", flush=True)
        return 1


def train(rank: int, params: Params, folder: Path, *, source: int, sink: int) -> int:
    """The last state; every step's is checkpointed by rank 0."""
    file = folder / "checkpoint" / "state.json"
    done = json.loads(file.read_text()) if file.exists() else {"step": 0, "state": 0}
    step, state = done["step"], done["state"]
    if rank == 0:
        print(f"from step {step} on {os.environ.get('SLURMD_NODENAME', 'this machine')}", flush=True)
    while step < steps(params):
        fail_on_bad_node()
        time.sleep(STEP_S)
        mine = part(rank, step, state, params)
        if rank:
            os.write(sink, mine.to_bytes(8, "big"))
            state = received(source)
        else:
            state = (mine + received(source)) % 2**48
            os.write(sink, state.to_bytes(8, "big"))
        step += 1
        if rank == 0:
            file.parent.mkdir(exist_ok=True)
            write(file, {"step": step, "state": state})
    return state


def received(source: int) -> int:
    """The number that the other rank sent. Raises OSError if that rank is gone."""
    word = os.read(source, 8)
    if len(word) < 8:
        raise ConnectionResetError("the other rank is gone")
    return int.from_bytes(word, "big")


def write(file: Path, content: dict[str, float]) -> None:
    """The whole file or nothing."""
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(content))
    temporary.replace(file)


def fail_on_bad_node() -> None:
    """Ends the rank where the file $CHAOS_BAD_NODE names this node."""
    try:
        bad = Path(os.environ.get("CHAOS_BAD_NODE", "/nowhere")).read_text()
    except OSError:
        return
    if bad == os.environ.get("SLURMD_NODENAME"):
        print(f"RuntimeError: {NODE_FAULT}", flush=True)
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
