"""How often a real Slurm is asked, and studies without its commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpotune.records.jobs import JobSpec
from hpotune.reporting.wait_reasons import explain
from hpotune.slurm.job_script import dependency_option
from hpotune.slurm.study_jobs import cached_jobs, query_jobs
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.cluster_studies import RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes commands off PATH, here and in the jobs that are submitted from here."""

    def take_off(*names: str) -> None:
        folder = tmp_path / "path"
        folder.mkdir()
        for study_folder in map(Path, os.environ["PATH"].split(":")):
            for path in study_folder.iterdir() if study_folder.is_dir() else ():
                if path.name not in names and not (folder / path.name).is_symlink():
                    (folder / path.name).symlink_to(path)
        monkeypatch.setenv("PATH", str(folder))

    return take_off


@pytest.mark.parametrize(
    ("names", "each"),
    [
        (("sacct",), 1),
        (("squeue",), 1),
        (("squeue", "sacct"), 1),
        (("squeue", "scontrol"), 1),
        (("squeue", "sacct", "scontrol"), 1),
        (("squeue", "sacct", "scontrol"), "auto"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else str(value),
)
def test_killed_worker_without_commands(
    slurm_cluster: Path, tmp_path: Path, without: Callable[..., None], names: tuple[str, ...], each: int | str
) -> None:
    without(*names)
    mark = tmp_path / "mark"  # made once, by the first trial, which then sleeps; it names the worker
    once = (
        f"try:\n        os.symlink(str(os.getppid()), {str(mark)!r})\n        time.sleep(600)\n"
        "    except FileExistsError:\n        pass"
    )
    file = function_study(tmp_path, once, f"execution: {{trials_per_job: {each}, lease_s: 30}}\n{RESOURCES}")
    hpotune("submit", file)
    wait(file, lambda result: mark.is_symlink())
    os.kill(int(os.readlink(mark)), signal.SIGKILL)
    result = wait(file, lambda result: result["state"] == "done")
    assert result["trials"]["finished"] == 4
    assert result["trials"]["running"] == result["trials"]["lost"] == 0
    assert sorted(row["number"] for row in hpotune("trials", file) if row["state"] == "finished") == [
        0,
        1,
        2,
        3,
    ]


def test_cancel_without_queries(slurm_cluster: Path, tmp_path: Path, without: Callable[..., None]) -> None:
    without("squeue", "sacct", "scontrol")
    gate = tmp_path / "open"
    slow = f"while not os.path.exists({str(gate)!r}):\n        time.sleep(0.2)"
    file = function_study(tmp_path, slow, f"execution: {{trials_per_job: 1}}\n{RESOURCES}")
    hpotune("submit", file)
    wait(file, lambda result: result["trials"]["running"] == 2)
    hpotune("cancel", file)
    wait(file, lambda result: result["state"] == "cancelled" and result["trials"]["running"] == 0)
    gate.touch()
    assert hpotune("submit", file)["submitted"] != []
    assert wait(file, lambda result: result["state"] == "done")["trials"]["finished"] == 4


def batch(script: str, *options: str) -> str:
    """sbatch of a shell line; its job id."""
    command = ["sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def jobs() -> Iterator[Callable[..., str]]:
    """`batch`, whose jobs are cancelled at the end."""
    made: list[str] = []

    def submit(script: str, *options: str) -> str:
        made.append(batch(script, *options))
        return made[-1]

    yield submit
    subprocess.run(["scancel", "--quiet", *made], check=False)


def recorded(folder: Path, *jobs: tuple[str, int]) -> StudyFolder:
    """A study's folder that knows these arrays."""
    study_folder = StudyFolder(path=folder)
    for id_, count in jobs:
        write_atomic(
            study_folder.jobs / id_ / "job.json", f'{{"id": "{id_}", "kind": "worker", "count": {count}}}'
        )
    return study_folder


def settled(study_folder: StudyFolder, until: Callable[[dict], bool]) -> dict:
    """The rows by id once they are so."""
    deadline = time.monotonic() + 60
    while not until(rows := {row.id: row for row in query_jobs(study_folder, [])}):
        assert time.monotonic() < deadline, rows
        time.sleep(0.5)
    return rows


def test_waiting_jobs_have_reasons(slurm_cluster: Path, tmp_path: Path, jobs: Callable[..., str]) -> None:
    wide = ("--nodes=4", "--exclusive", "--time=10")
    first, second = jobs("sleep 300", *wide), jobs("sleep 300", *wide, "--array=0-0")
    late, bound = (
        jobs("true", "--begin=now+1hour", "--array=0"),
        jobs("true", f"--dependency=afterany:{first}", "--array=0"),
    )
    study_folder = recorded(tmp_path, (second, 1), (late, 1), (bound, 1))
    rows = settled(
        study_folder, lambda rows: rows[f"{second}_0"].estimate and rows[f"{second}_0"].reason == "Resources"
    )
    assert rows[f"{second}_0"].state == "PENDING"
    assert rows[f"{late}_0"].reason == "BeginTime"
    assert rows[f"{late}_0"].estimate > rows[f"{second}_0"].estimate
    assert (rows[f"{bound}_0"].reason, rows[f"{bound}_0"].estimate) == ("Dependency", "")
    assert all(explain(row.reason) not in ("", row.reason) for row in rows.values())


@pytest.mark.parametrize(
    "names", [(), ("squeue",), ("squeue", "scontrol")], ids=["squeue", "scontrol", "sacct"]
)
def test_commands_agree_on_arrays(
    slurm_cluster: Path,
    tmp_path: Path,
    jobs: Callable[..., str],
    without: Callable[..., None],
    names: tuple[str, ...],
) -> None:
    body = "case $SLURM_ARRAY_TASK_ID in 0) true;; 1) exit 3;; *) sleep 300;; esac"
    job = jobs(body, "--array=0-7%3")
    study_folder = recorded(tmp_path / "study", (job, 8))
    subprocess.run(["scancel", f"{job}_6"], check=True)
    without(*names)
    states = ["COMPLETED", "FAILED", "RUNNING", "RUNNING", "RUNNING", "PENDING", "GONE", "PENDING"]
    rows = settled(
        study_folder,
        lambda rows: (
            [rows[f"{job}_{n}"].state for n in range(8)] == states and rows[f"{job}_1"].exit_code != ""
        ),
    )
    assert rows[f"{job}_1"].exit_code == "3:0"


def test_dependency_on_any_job(slurm_cluster: Path, tmp_path: Path, jobs: Callable[..., str]) -> None:
    job = jobs("[ $SLURM_ARRAY_TASK_ID = 1 ] || sleep 300", "--array=0-2")
    after = tuple(f"{job}_{n}" for n in range(3))
    any_, all_ = (
        jobs(
            "true",
            "--array=0",
            f"--dependency={dependency_option(JobSpec(kind='follow-up', count=1, throttle=1, after=after, any_of=x))}",
        )
        for x in (True, False)
    )
    study_folder = recorded(tmp_path, (any_, 1), (all_, 1))
    rows = settled(study_folder, lambda rows: rows[f"{any_}_0"].state == "COMPLETED")
    assert rows[f"{all_}_0"].state == "PENDING"


def test_many_readers_ask_once(
    slurm_cluster: Path, tmp_path: Path, jobs: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HPOTUNE_POLL_S", raising=False)
    study_folder = recorded(tmp_path / "study", (jobs("sleep 60", "--array=0"), 1))
    (tmp_path / "bin").mkdir()
    real, log = subprocess.check_output(["which", "squeue"], text=True).strip(), tmp_path / "calls"
    (tmp_path / "bin" / "squeue").write_text(f'#!/bin/sh\necho x >> {log}\nsleep 1\nexec {real} "$@"\n')
    (tmp_path / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    code = (
        "import sys; from pathlib import Path; from hpotune.slurm.study_jobs import cached_jobs; "
        "from hpotune.workspace.folder import StudyFolder; "
        "print(cached_jobs(StudyFolder(path=Path(sys.argv[1])), []).rows[0].state)"
    )
    readers = [
        subprocess.Popen([sys.executable, "-c", code, study_folder.path], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    states = {reader.communicate()[0].strip() for reader in readers}
    assert len(states) == 1
    assert states <= {"PENDING", "RUNNING"}
    assert log.read_text().split() == ["x"]
    assert cached_jobs(study_folder, []).age_s > 0
