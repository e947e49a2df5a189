"""Folders, disks, stores and clusters that are missing or refuse: one error and the right exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpotune.launch.prepare import prepare
from tests.fixtures.wrong_studies import valid_study


def test_missing_study_file(folder, refused):
    error = refused("check", folder / "stduy.yaml", code=2)
    assert "stduy.yaml: no such file; `hpotune init` lists templates to start from" in error


@pytest.mark.parametrize("verb", ["check", "run", "submit", "status", "best", "trials", "cancel"])
def test_folder_without_a_study(verb, folder, refused):
    assert "holds no study (no resolved.yaml); `hpotune run` or `submit` makes one" in refused(
        verb, folder / "folder", code=2
    )


def test_unreadable_study_file(folder, refused):
    error = refused("check", folder / "rows.jsonl" / "study.yaml", code=2)
    assert "cannot be read (Not a directory); needs a file that you can read" in error


def test_folder_that_cannot_be_made(folder, refused):
    error = refused("run", valid_study(folder), "--folder", folder / "rows.jsonl" / "here", code=4)
    assert "cannot be written (Not a directory); free space, or choose another with --folder" in error


@pytest.mark.parametrize("verb", ["run", "status", "report"])
def test_folder_in_a_circle(verb, folder, refused):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    error = refused(verb, valid_study(folder), "--folder", folder / "a", code=2)
    assert error == f"{folder / 'a'}: is a circle of symbolic links; give another path"


def test_missing_store_says_what_helps(folder, hpotune):
    prepared = prepare(valid_study(folder), chosen=None, data_root=None)
    Path(prepared.store_url.partition(":///")[2]).unlink()
    for verb in ("run", "status", "resume"):
        code, (line,) = hpotune(verb, prepared.folder.path)
        assert code == 4
        assert line.endswith(
            "the study's store is missing; put it back, or remove the study's folder to start over"
        )


def test_folder_without_permission(folder):
    study = valid_study(folder)
    (folder / "folder").chmod(0o500)
    # root may write everywhere, unless that right is taken from it
    as_others = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    run = [sys.executable, "-m", "hpotune", "run", study, "--folder", folder / "folder" / "a"]
    done = subprocess.run([*as_others, *run], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, "cannot be written (Permission denied)" in line) == (4, True), line
    assert list((folder / "folder").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    disk = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mount is not allowed here; run the tests as root outside of a sandbox")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk(small_disk, folder, refused):
    error = refused("run", valid_study(folder), "--folder", small_disk / "here", code=4)
    assert "cannot be written (No space left on device); free space" in error
    assert list(small_disk.iterdir()) == []


def test_unreachable_postgres(folder, refused):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"postgresql://me@127.0.0.1:{closed.getsockname()[1]}/db"
        error = refused("run", valid_study(folder, "+", f"store: {url}"), code=4)
    assert error.startswith(f"{url}: cannot be opened (")
    assert "check host, port, database and PGPASSWORD or ~/.pgpass" in error


@pytest.mark.parametrize("url", ["sqlite:////absent/folder/a.db", "journal:////absent/folder/a.journal"])
def test_store_in_missing_folder(url, folder, refused):
    error = refused("run", valid_study(folder, "+", f"store: {url}"), code=4)
    assert error.startswith(f"{url}: cannot be opened (")
    assert "check that the folder exists and is writable" in error


def test_other_study_in_the_folder(folder, refused, hpotune):
    study = prepare(valid_study(folder), chosen=None, data_root=None).folder.path
    valid_study(folder, "x:", "x: {float: [-4, 3]}")
    error = refused("run", folder / "study.yaml", code=2)
    assert error.startswith(f"{study}: holds a study whose `params` differs from this file's")


def test_folder_with_other_files(folder, refused):
    (folder / "wrong").mkdir()
    (folder / "wrong" / "letter.txt").write_text("mine", encoding="utf-8")
    assert "holds other files and no study; rename the study (name:)" in refused(
        "run", valid_study(folder), code=2
    )
    assert (folder / "wrong" / "letter.txt").read_text(encoding="utf-8") == "mine"


def test_missing_slurm(folder, refused, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    error = refused("submit", valid_study(folder), code=3)
    assert (
        error == "sbatch and srun not found: Slurm is not installed here; use a login node, or `hpotune run`"
    )


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm_cluster")
def test_missing_partition(folder, refused):
    error = refused("submit", valid_study(folder, "+", "resources: {partition: a10}"), code=3)
    assert error.startswith("resources.partition='a10' is not on this cluster; did you mean 'a100'? valid: ")
