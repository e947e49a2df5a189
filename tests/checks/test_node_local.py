"""Which files of a study other nodes do not see."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.checks.node_local import node_local_findings, node_local_reason
from hpotune.config.schema.study_config import StudyConfig
from hpotune.workspace import mounts
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import config

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
tmpfs /mem tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
server:/tmp /shared/tmp nfs4 rw 0 0
/dev/sdb1 /local xfs rw 0 0
"""


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake) -> None:
    """A machine with Slurm and these mounts; folders that are not there count as there."""
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(mounts, "existing_folder", lambda folder: folder)
    fake("sbatch")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/tmp/s", "in /tmp, which each node has for itself"),
        ("/var/tmp/s", "in /var/tmp"),
        ("/local/job/s", "in /local/job"),
        ("/dev/shm/s", "in this machine's memory (tmpfs on /dev/shm)"),
        ("/mem/s", "in this machine's memory (tmpfs on /mem)"),
        ("/home/me/s", ""),
        ("/shared/tmp/s", ""),
        ("/opt/s", ""),
        ("/tmpfoo/s", ""),
    ],
)
def test_folders_of_the_node(path: str, why: str) -> None:
    found = node_local_reason(Path(path), env={"TMPDIR": "/shared/tmp", "LOCAL_SCRATCH": "/local/job"})
    assert (why in found) if why else (found == "")


def findings(study: StudyConfig, folder: str) -> list[str]:
    return [f.text for f in node_local_findings(study, StudyFolder(path=Path(folder)), env={})]


def test_each_needed_path_is_checked() -> None:
    study = config(
        resources={"partition": "a"},
        store="sqlite:////tmp/s.db",
        env={"venv": "/dev/shm/env"},
        data_root="/tmp/data",
    )
    assert findings(study, "/tmp/s") == [
        "the study's folder /tmp/s is in /tmp, which each node has for itself",
        "the store /tmp/s.db is in /tmp, which each node has for itself",
        "the environment /dev/shm/env is in this machine's memory (tmpfs on /dev/shm)",
        "data_root /tmp/data is in /tmp, which each node has for itself",
    ]
    assert findings(config(resources={"partition": "a"}, env={"venv": "/home/env"}), "/home/me/s") == []


def test_local_study_may_be_anywhere() -> None:
    assert findings(config(resources={"gpus": 1}), "/tmp/s") == []


def test_nothing_without_slurm(fake, tmp_path: Path) -> None:
    (tmp_path / "bin" / "sbatch").unlink()
    assert findings(config(resources={"partition": "a"}), "/tmp/s") == []
