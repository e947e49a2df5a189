"""Seconds from the start of a job to the first step of its trial, in a new process (cold).

    python scripts/bench/start.py --data-root DATA [--jobs 3] [--against OTHER] [--model MODEL] [--rows 4] [--items 8]

A study is made and rehearsed; then each job is `hpotune worker STUDY --trials 1`, as Slurm starts it. CPU seconds are
those of the worker and all its processes up to that moment; compare them where other work runs. `training`: until the
training phase begins. `step`: until the first step is in curve.jsonl. OTHER: another checkout of hpotune, such as a
`git worktree` of an older commit; its jobs run alternating with those of this one. Part (e) of scripts/bench/trials.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from study_files import SMOL, study_text, training_rows

ROOT = Path(__file__).parents[2]
POLL_S = 0.02
MOMENTS = ("training", "step")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Seconds from the start of a job's worker."""

    training_s: float
    training_cpu_s: float
    step_s: float
    step_cpu_s: float


def cold_starts(
    repositories: Sequence[Path],
    *,
    folder: Path,
    model: str,
    data_root: Path,
    rows: int,
    items: int,
    jobs: int,
) -> dict[Path, list[Start]]:
    """The starts of `jobs` jobs of each repository, alternating. `folder`: an empty one."""
    studies = {}
    for number, one in enumerate(repositories):
        home = folder / str(number)
        home.mkdir()
        text = study_text(
            home, model=model, rows=training_rows(data_root, rows), items=items, data_root=data_root,
            rates=[1e-4 * (1 + step) for step in range(jobs + 1)], batch=rows,
        )  # fmt: skip
        schema = "".join(file.read_text() for file in one.glob("hpotune/config/schema/*.py"))
        if "    warm:" not in schema:  # a checkout from before kept processes
            text = text.replace("warm: true, ", "")
        (home / "study.yaml").write_text(text)
        _hpotune(one, "worker", str(home / "study.yaml"), "--trials", "1")
        _hpotune(one, "rehearse", str(home / "trials"))
        studies[one] = home / "trials"
    found: dict[Path, list[Start]] = {one: [] for one in repositories}
    for number in range(1, jobs + 1):
        for one in repositories:
            found[one].append(_start(one, studies[one], number))
    return found


def _environment(repository: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _hpotune(repository: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "hpotune", *arguments]
    done = subprocess.run(command, env=_environment(repository), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _start(repository: Path, study: Path, number: int) -> Start:
    """Run the job of a trial to its end; returns when it got where."""
    trial = study / "trials" / str(number)
    command = [sys.executable, "-m", "hpotune", "worker", str(study), "--trials", "1"]
    began = time.perf_counter()
    with (study / f"job-{number}.log").open("wb") as log:
        job = subprocess.Popen(command, env=_environment(repository), stdout=log, stderr=log)
        times = []
        for name, text in (("log.txt", "phase: training"), ("curve.jsonl", "loss")):
            while not _holds(trial / name, text):
                if job.poll() is not None:
                    sys.exit(f"{' '.join(command)} ended early; see {log.name}")
                time.sleep(POLL_S)
            times += [time.perf_counter() - began, cpu_s(job.pid)]
        if job.wait() != 0:
            sys.exit(f"{' '.join(command)} failed; see {log.name}")
    return Start(training_s=times[0], training_cpu_s=times[1], step_s=times[2], step_cpu_s=times[3])


def _holds(file: Path, text: str) -> bool:
    try:
        return text in file.read_text(errors="replace")
    except OSError:
        return False


def cpu_s(root: int) -> float:
    """CPU seconds of a process, of all that it started and that still run, and of those that ended."""
    parents, used = dict[int, int](), dict[int, float]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid], used[pid] = int(fields[1]), sum(map(int, fields[11:15])) / TICKS

    def belongs(pid: int) -> bool:
        return pid == root or (pid in parents and belongs(parents[pid]))

    return sum(seconds for pid, seconds in used.items() if belongs(pid))


def report(
    *, model: str, data_root: Path, rows: int, items: int, jobs: int, against: Path | None = None
) -> list[str]:
    """The lines of part (e) of scripts/bench/trials.py."""
    with TemporaryDirectory() as folder:
        found = cold_starts(
            [ROOT, *([against.resolve()] if against else [])], folder=Path(folder), model=model,
            data_root=data_root, rows=rows, items=items, jobs=jobs,
        )  # fmt: skip
    every = [
        f"{one.name}: { ({name: round(value, 2) for name, value in asdict(start).items()}) }"
        for one, starts in found.items()
        for start in starts
    ]
    return [*every, *table(found)]


def table(found: dict[Path, list[Start]]) -> list[str]:
    """The lines of the report: medians, and the ratios of the first checkout's to those of the second."""
    medians = [
        {name: statistics.median(asdict(start)[name] for start in starts) for name in asdict(starts[0])}
        for starts in found.values()
    ]
    lines = [
        f"{name}: start of a job until "
        + ", ".join(
            f"{moment} {one[f'{moment}_cpu_s']:.1f} s of CPU ({one[f'{moment}_s']:.1f} s of wall time)"
            for moment in MOMENTS
        )
        for name, one in zip(("this checkout", "the other"), medians, strict=False)
    ]
    if len(medians) > 1:
        ratios = {name: medians[0][name] / medians[1][name] for name in medians[0]}
        lines.append("this / the other: " + ", ".join(f"{name} {one:.2f} x" for name, one in ratios.items()))
    return lines


def main() -> None:
    args = _arguments()
    lines = report(
        model=args.model, data_root=args.data_root, rows=args.rows, items=args.items, jobs=args.jobs,
        against=args.against,
    )  # fmt: skip
    print("\n".join(lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = os.environ.get("HPOTUNE_DATA_ROOT")
    parser.add_argument("--data-root", type=Path, default=root, required=root is None)
    parser.add_argument("--model", default=SMOL)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout of hpotune")
    return parser.parse_args()


if __name__ == "__main__":
    main()
