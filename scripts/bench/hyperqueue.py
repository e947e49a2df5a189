"""Many tiny evaluations: hpotune's own pool of workers, HyperQueue, one Slurm job a trial, and the ideal.

    python scripts/bench/hyperqueue.py [--evaluations 2000] [--measured 400] [--cold 200] [--slurm 60] [--slots 4]

The objective is a Python function that sleeps 0.1 s. pool: `hpotune run`, as in one allocation; with warm: false a new
interpreter calls the function each time. hyperqueue: `hpotune submit` with execution.place: hyperqueue; a server and a
worker of HyperQueue run already (scripts/hyperqueue/hq). one job a trial: trials_per_job: 1 on the throw-away Slurm
cluster, which needs root; --slurm 0 leaves it out. Wall seconds from the command to the end of the last trial, of
`measured` evaluations, and scaled to all; the ideal is evaluations x 0.1 s / slots. On a busy machine compare the CPU
seconds. Ends with exit code 1 where a study has not exactly its trials.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder

ROOT = Path(__file__).resolve().parents[2]
HQ = ROOT / "scripts" / "hyperqueue" / "hq"
SECONDS = 0.1
FUNCTION = f"import time\n\n\ndef f(x):\n    time.sleep({SECONDS})\n    return (x - 0.3) ** 2\n"
STUDY = """\
name: {name}
python: f.py:f
params: {{x: {{float: [0.0, 1.0]}}}}
score: {{objective: {{metric: value, direction: minimize}}}}
search: {{algorithm: random, seed: 1}}
budget: {{trials: {trials}, parallel: {slots}}}
{more}
"""
COLD = "execution: {warm: false}"
LIMIT_S = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One way to run them."""

    name: str
    trials: int
    wall_s: float
    load: float
    """Processes that wanted a processor at its end (of the last minute)."""
    cpu_s: float | None = None
    """Of all its processes; None: of Slurm's, not known."""

    def row(self, evaluations: int, ideal_s: float) -> str:
        """A line of the table."""
        whole_s = self.wall_s / self.trials * evaluations
        cpu = "" if self.cpu_s is None else f"{self.cpu_s / self.trials:.2f}"
        return (
            f"| {self.name} | {self.trials} | {self.wall_s:.0f} | {whole_s:.0f} | {whole_s / ideal_s:.1f} | {cpu} | "
            f"{self.load:.1f} |"
        )


def study(folder: Path, name: str, more: str, *, trials: int, slots: int) -> Path:
    """The study file of one way."""
    (folder / "f.py").write_text(FUNCTION)
    file = folder / f"{name}.yaml"
    file.write_text(STUDY.format(name=name, trials=trials, slots=slots, more=more))
    return file


def measure(file: Path, verb: str, env: dict[str, str], *, trials: int, name: str) -> Measured:
    """Wall time from the command to the last trial's end.

    Raises: RuntimeError where the study has not exactly its trials.
    """
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "hpotune", verb, file], env=env, check=True, stdout=subprocess.DEVNULL
    )
    folder = StudyFolder(path=file.parent / file.stem)
    store = TrialQueue.open(folder.provenance().store, folder.load(), read_only=True)
    while (done := sum(row.state == "finished" for row in store.rows())) < trials:
        if time.monotonic() - began > LIMIT_S:
            raise RuntimeError(f"{name}: {done} of {trials} after {LIMIT_S} s")
        time.sleep(0.5)
    wall_s = time.monotonic() - began
    if len(store.rows()) != trials:
        raise RuntimeError(f"{name}: {len(store.rows())} rows for {trials} trials")
    return Measured(name=name, trials=trials, wall_s=wall_s, load=os.getloadavg()[0])


def cpu_s() -> float:
    """CPU seconds of all processes that were started from here and have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_for_tasks(env: dict[str, str]) -> None:
    """Until no task runs: the workers submit what is missing before they end."""
    while (
        b'"running"'
        in subprocess.run([HQ, "task", "list", "1"], env=env, capture_output=True, check=True).stdout
    ):
        time.sleep(0.5)


@contextmanager
def hyperqueue(folder: Path, env: dict[str, str], *, slots: int) -> Iterator[dict[str, str]]:
    """The environment in which `hq` reaches a server with a worker of so many CPUs."""
    own = env | {"HQ_SERVER_DIR": str(folder / "server"), "PATH": f"{HQ.parent}:{env['PATH']}"}
    with (folder / "hq.log").open("wb") as log:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for words, ready in (
                (["server", "start"], ["server", "info"]),
                (["worker", "start", "--cpus", str(slots)], ["worker", "list"]),
            ):
                started.append(subprocess.Popen([HQ, *words], env=own, stdout=log, stderr=log))
                sign = b'"configuration"' if ready[0] == "worker" else b'"server_uid"'
                while (
                    sign not in subprocess.run([HQ, *ready], env=own, capture_output=True, check=False).stdout
                ):
                    time.sleep(0.2)
            yield own
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGKILL)
                process.wait()


@contextmanager
def slurm(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands reach the throw-away cluster."""
    script = ROOT / "scripts" / "slurm-cluster"
    was_up = subprocess.run([script, "status"], env=env, capture_output=True, check=False).returncode == 0
    done = subprocess.run([script, "start"], env=env, capture_output=True, text=True, check=True)
    try:
        yield env | {"SLURM_CONF": done.stdout.strip().removeprefix("export SLURM_CONF=")}
    finally:
        if not was_up:
            subprocess.run([script, "stop"], env=env, capture_output=True, check=False)


def show(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Runs all ways one after the other and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--measured", type=int, default=400, help="of pool and HyperQueue")
    parser.add_argument("--cold", type=int, default=200, help="of the pool with warm: false; 0: left out")
    parser.add_argument("--slurm", type=int, default=60, help="of one job a trial; 0: left out")
    parser.add_argument("--slots", type=int, default=4)
    options = parser.parse_args()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "HPOTUNE_POLL_S": "0"}
    ideal_s = options.evaluations * SECONDS / options.slots
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="hpotune-tiny-") as scratch:
        folder = Path(scratch)
        sizes = {"trials": options.measured, "slots": options.slots}
        pools = {"pool": ("", options.measured), "pool, warm: false": (COLD, options.cold)}
        for number, (name, (more, trials)) in enumerate(pools.items()):
            if trials:
                file = study(folder, f"pool{number}", more, trials=trials, slots=options.slots)
                before = cpu_s()
                one = measure(file, "run", env, trials=trials, name=name)
                found.append(replace(one, cpu_s=cpu_s() - before))
                show(found[-1].row(options.evaluations, ideal_s))
        file = study(folder, "hq", "execution: {place: hyperqueue}", **sizes)
        before = cpu_s()
        with hyperqueue(folder, env, slots=options.slots) as own:
            one = measure(file, "submit", own, trials=options.measured, name="hyperqueue")
            wait_for_tasks(own)
        found.append(replace(one, cpu_s=cpu_s() - before))
        show(found[-1].row(options.evaluations, ideal_s))
        if options.slurm:
            more = 'execution: {trials_per_job: 1}\nresources: {partition: a100, cpus: 1, mem: 1G, time: "10:00"}'
            file = study(folder, "jobs", more, trials=options.slurm, slots=options.slots)
            with slurm(env) as own:
                found.append(measure(file, "submit", own, trials=options.slurm, name="one Slurm job a trial"))
    show(f"\n{options.slots} slots\n")
    show(f"| way | measured | s | s for {options.evaluations} | x ideal | CPU s a trial | load |")
    show("|---|---|---|---|---|---|---|")
    for one in found:
        show(one.row(options.evaluations, ideal_s))
    show(f"| ideal | | | {ideal_s:.0f} | 1 | | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
