"""`resources.threads: auto`: how many trials `hpotune run` has side by side on a CPU, with how many threads each.

Measured before the first trial, by processes that train the study's own model on its own rows for some seconds: as many
trials of one thread as `budget.parallel` and the cores allow, against fewer trials of more threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from hpotune.config.load import Study
from hpotune.errors import HpotuneError
from hpotune.records.thread_choice import THREADS_FILE, Arrangement, ThreadChoice
from hpotune.records.trial import TrialSpec
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.fetched_lock import located, lock_file, read_lock
from hpotune.workspace.folder import StudyFolder

SECONDS = 4.0
"""Of each arrangement."""
READY_S = 600.0
"""How long the processes may take to import and to load the model."""
GAIN = 1.05
"""More trials side by side must train so many times as fast: each is proposed with fewer results known."""


def arrangements(*, cores: int, most: int) -> list[tuple[int, int]]:
    """Trials side by side and threads of each, fewest trials first. `most`: trials that may run at the same time."""
    largest = min(cores, most)
    counts = {2**k for k in range(largest.bit_length()) if 2**k <= largest} | {largest}
    return sorted({(trials, cores // trials) for trials in counts} | {(largest, 1)})


def chosen(measured: Sequence[Arrangement]) -> Arrangement:
    """The fastest; of those that are about as fast the one with the fewest trials, then the fewest threads."""
    best = max(one.tokens_per_s for one in measured)
    fast = [one for one in measured if one.tokens_per_s * GAIN >= best]
    return min(fast, key=lambda one: (one.trials, one.threads))


def probe_threads(
    folder: StudyFolder, study: Study, *, cores: int, most: int, seconds: float = SECONDS
) -> ThreadChoice:
    """What is fastest on this machine.

    Raises: HpotuneError where a process of the probe ends or does not answer in time.
    """
    ways = arrangements(cores=cores, most=most)
    with tempfile.TemporaryDirectory(prefix="hpotune-threads-") as scratch, ExitStack() as stack:
        spec = Path(scratch) / "spec.json"
        spec.write_text(_spec(folder, study, Path(scratch)).model_dump_json())
        count = max(trials for trials, _ in ways)
        probes = [
            stack.enter_context(_Process(study, spec, Path(scratch) / f"{number}.txt", cores=cores))
            for number in range(count)
        ]
        for probe in probes:
            probe.answer(READY_S)
        measured = tuple(
            _measured(probes[:trials], threads=threads, seconds=seconds) for trials, threads in ways
        )
    best = chosen(measured)
    return ThreadChoice(trials=best.trials, threads=best.threads, measured=measured)


def _measured(probes: Sequence[_Process], *, threads: int, seconds: float) -> Arrangement:
    """How fast these processes train at the same time."""
    for probe in probes:
        probe.say(f"{threads} {seconds}")
    found = [json.loads(probe.answer(READY_S)) for probe in probes]
    speed = sum(one["tokens"] / one["seconds"] for one in found)
    return Arrangement(trials=len(probes), threads=threads, tokens_per_s=round(speed, 3))


def _spec(folder: StudyFolder, study: Study, scratch: Path) -> TrialSpec:
    """A trial at the first value of every range."""
    config, lock = study.config, lock_file(folder.path)
    return TrialSpec(
        study=config.name,
        number=0,
        kind="trial",
        seed=config.search.seed,
        folder=str(scratch),
        point=located(study.base(), read_lock(lock)),
        data_root=config.data_root,
        offline=config.env.offline,
        fetched=str(lock) if lock is not None else None,
        prepared=str(folder.prepared),
    )


def write_choice(folder: Path, choice: ThreadChoice) -> None:
    """Keep the choice in the study's folder."""
    write_atomic(folder / THREADS_FILE, json.dumps(asdict(choice), indent=1) + "\n")


class _Process:
    """One process of the probe, ended with its context."""

    def __init__(self, study: Study, spec: Path, log: Path, *, cores: int) -> None:
        venv = study.config.env.venv
        python = sys.executable if venv in ("auto", None) else f"{venv}/bin/python"
        self._log = log
        self._process = subprocess.Popen(
            [python, "-m", "hpotune.finetune.speed_probe", str(spec)],
            env=_environment(study.config.env.vars, cores=cores),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("wb"),
            text=True,
        )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def say(self, line: str) -> None:
        """Give it an order."""
        assert self._process.stdin is not None, "opened with a pipe"
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise HpotuneError(self._why()) from None

    def answer(self, patience_s: float) -> str:
        """Its next line.

        Raises: HpotuneError if it ends, or says nothing for so long.
        """
        assert self._process.stdout is not None, "opened with a pipe"
        timer = threading.Timer(patience_s, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise HpotuneError(self._why())
        return line

    def _why(self) -> str:
        lines = [line for line in _lines(self._log) if line.strip()]
        return f"the probe of threads ended: {lines[-1] if lines else 'no output'}"


def _lines(file: Path) -> Iterator[str]:
    yield from file.read_text(errors="replace").splitlines()


def _environment(given: Mapping[str, str], *, cores: int) -> dict[str, str]:
    """The variables of the study's trials, without GPUs."""
    own = {"OMP_NUM_THREADS": str(cores), "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": "1"}
    return {**os.environ, **given, **own}
