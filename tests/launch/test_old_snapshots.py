"""Old code snapshots are removed once no job, worker or trial needs them; one of unknown state does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpotune.launch.prepare import PreparedStudy, prepare
from hpotune.records.trial import Worker
from hpotune.workspace import snapshot_users
from hpotune.workspace.code_snapshot import find_snapshot
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import exclusive_lock
from hpotune.workspace.snapshot_users import snapshot_names, using_snapshot

WAITING = "7_0|PENDING|Priority|N/A\n7_1|COMPLETED|None|N/A\n"
ENDED = "7_0|COMPLETED|None|N/A\n7_1|TIMEOUT|None|N/A\n"
TABLE = "JOBID|STATE|REASON|START_TIME\n"


class Versions:
    """A study whose code is edited and prepared again."""

    def __init__(self, file: Path) -> None:
        self.file, self.made = file, 0
        self.first = self.next()
        self.folder = self.first.folder

    def next(self) -> PreparedStudy:
        """Edit the code, and prepare the study as `run`, `submit` and `resume` do."""
        self.made += 1
        (self.file.parent / "own.py").write_text(f"def bowl(x): return x * {self.made}\n")
        return prepare(self.file, chosen=None, data_root=None)

    @property
    def kept(self) -> set[str]:
        return set(snapshot_names(self.folder))

    def submit(self, code: str | None, *, named: bool = True, script: str | None = None) -> Path:
        """What the submission of job 7 leaves. `named`: whether job.json names its snapshot."""
        job = self.folder.jobs / "7"
        job.mkdir(parents=True)
        record = {"id": "7", "kind": "worker", "count": 2, "throttle": 2, "trials": 1}
        (job / "job.json").write_text(json.dumps({**record, **({"code": code} if named else {})}))
        if script is not None:
            (job / "7_submission.sh").write_text(script)
        return job


@pytest.fixture
def versions(make_study, monkeypatch) -> Versions:
    monkeypatch.setenv("HPOTUNE_POLL_S", "0")
    return Versions(make_study(store="sqlite").source.path)


def test_newest_alone_is_kept(versions):
    second = versions.next()
    assert versions.kept == {second.code}
    (versions.folder.path / "code" / "notes").mkdir()
    (versions.folder.path / "code" / ("a" * 12)).mkdir()  # no snapshot.json
    third = versions.next()
    assert versions.kept == {third.code} == {find_snapshot(versions.folder).hash}
    assert {path.name for path in (versions.folder.path / "code").iterdir()} == {
        "newest", "notes", "a" * 12, third.code,
    }  # fmt: skip


@pytest.mark.parametrize("by", ["job.json", "script", "nothing"])
def test_waiting_job_keeps_its_snapshot(versions, fake, by):
    fake("squeue", TABLE + WAITING)
    first = versions.first.code
    script = f"srun python -m hpotune worker x --code {first}\n" if by == "script" else None
    versions.submit(first, named=by == "job.json", script=script)
    second, third = versions.next().code, versions.next().code
    unknown = {second} if by == "nothing" else set()  # it may be any
    assert versions.kept == {first, third} | unknown
    fake("squeue", TABLE + ENDED)
    fourth = versions.next().code
    assert versions.kept == {fourth}


@pytest.mark.parametrize("state", ["silent", "odd", "damaged"])
def test_unknown_job_keeps_its_snapshot(versions, fake, state):
    job = versions.submit(versions.first.code)
    if state == "silent":
        fake("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    else:
        fake("squeue", TABLE + ENDED.replace("TIMEOUT", "HIBERNATING"))
    if state == "damaged":
        (job / "job.json").write_text("{")
    third = [versions.next().code, versions.next().code][-1]
    assert {versions.first.code, third} <= versions.kept


def test_open_submission_keeps_its_snapshot(versions, no_slurm):
    versions.folder.jobs.mkdir(exist_ok=True)
    note = versions.folder.jobs / ".submission_file_ab.json"
    note.write_text(json.dumps({"kind": "worker", "count": 1, "throttle": 1, "code": versions.first.code}))
    third = [versions.next().code, versions.next().code][-1]
    assert versions.kept == {versions.first.code, third}
    note.unlink()
    fourth = versions.next().code
    assert versions.kept == {fourth}


def test_nothing_is_removed_during_submission(versions):
    with exclusive_lock(versions.folder.jobs / ".lock"):
        second = versions.next().code
    assert versions.kept == {versions.first.code, second}
    third = versions.next().code
    assert versions.kept == {third}


def test_running_trial_keeps_its_snapshot(versions, no_slurm):
    store = versions.first.store
    claim = store.claim(Worker(job="9", host="other", pid=1))
    trial = versions.folder.trial(claim.row.number)
    trial.mkdir(parents=True)
    (trial / "spec.json").write_text(json.dumps({"code": versions.first.code}))
    third = [versions.next().code, versions.next().code][-1]
    assert versions.kept == {versions.first.code, third}


def test_named_worker_keeps_its_snapshot(versions, no_slurm):
    """`worker --code HASH` by hand, between two trials of its own; the second time it was killed."""
    first, folder = versions.first.code, versions.folder
    text = (
        "import sys; from pathlib import Path; from hpotune.workspace.folder import StudyFolder\n"
        "from hpotune.workspace.snapshot_users import using_snapshot\n"
        "with using_snapshot(StudyFolder(path=Path(sys.argv[1])), sys.argv[2], job='local'):\n"
        "    print('in', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", text, str(folder.path), first]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdout.readline()
        versions.next()
        assert first in versions.kept
        worker.kill()
        worker.wait()
        assert versions.kept == {first, find_snapshot(folder).hash}
        third = versions.next().code
    assert versions.kept == {third}
    assert list(folder.path.glob("code/.users/*")) == []


@pytest.mark.parametrize(("job", "kept"), [("9", True), ("7_0", False), ("local", True)])
def test_worker_elsewhere_is_asked_of_slurm(versions, fake, monkeypatch, job, kept):
    versions.submit(None)
    fake(
        "squeue", TABLE + "7_1|TIMEOUT|None|N/A\n"
    )  # 7_0 and 9 are unknown to it; 9 may run on another cluster
    first = versions.first.code
    with using_snapshot(versions.folder, first, job=job):
        monkeypatch.setattr(snapshot_users, "machine_id", lambda: "another")
        versions.next()
        assert (first in versions.kept) == kept


def test_late_user_gets_snapshot_back(versions, monkeypatch):
    """A worker announces itself after the decision, and before the snapshot is gone."""
    folder, first = versions.folder, versions.first.code
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if path.name == first:
            using.__enter__()
        return rename(path, target)

    using = using_snapshot(folder, first, job="local")
    monkeypatch.setattr(Path, "rename", late)
    second = versions.next().code
    assert versions.kept == {first, second}
    assert find_snapshot(folder, first).hash == first
    using.__exit__(None, None, None)


def test_interrupted_removal_is_completed(versions):
    code = versions.folder.path / "code"
    os.rename(code / versions.first.code, code / f".removed-{versions.first.code}-0a")
    second = versions.next().code
    assert {path.name for path in code.iterdir()} == {"newest", second}


def test_worker_runs_named_snapshot(versions, no_slurm):
    folder: StudyFolder = versions.folder
    with using_snapshot(folder, versions.first.code, job="local"):
        versions.next()
    command = [sys.executable, "-m", "hpotune", "worker", str(folder.path), "--trials", "1"]
    done = subprocess.run(
        [*command, "--code", versions.first.code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((folder.trial(0) / "spec.json").read_text())["code"] == versions.first.code
    assert list(folder.path.glob("code/.users/*")) == []
    versions.next()
    assert versions.first.code not in versions.kept
    gone = subprocess.run(
        [*command, "--code", versions.first.code], capture_output=True, text=True, check=False
    )
    assert gone.returncode == 2
    assert "holds no such snapshot" in gone.stderr
