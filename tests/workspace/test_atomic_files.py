"""Whole files or none, and whether a folder is writable."""

from __future__ import annotations

import os

import pytest

from hpotune.errors import HpotuneError
from hpotune.workspace.atomic_files import (
    check_writable,
    copy_atomic,
    current_umask,
    open_append,
    write_atomic,
)


def test_written_file_is_readable_by_others(tmp_path):
    write_atomic(tmp_path / "a" / "file", "text")
    assert (tmp_path / "a" / "file").read_text() == "text"
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_failed_write_keeps_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "file", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_folder_is_tested_above(tmp_path):
    check_writable(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(HpotuneError, match="Not a directory"):
        check_writable(tmp_path / "file" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_appended_file_is_no_link(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / "fifo")
    for name in ("log", "fifo"):
        with pytest.raises(OSError, match=r"symbolic links|No such device"):
            open_append(tmp_path / name)
    with open_append(tmp_path / "a" / "log") as file:
        file.write(b"1")
    with open_append(tmp_path / "a" / "log") as file:
        file.write(b"2")
    assert (tmp_path / "a" / "log").read_text() == "12"
    assert (tmp_path / "precious").read_text() == "mine"


def test_copy_is_no_wider(tmp_path):
    (tmp_path / "private").write_text("mine")
    (tmp_path / "private").chmod(0o640)
    copy_atomic(tmp_path / "private", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine"
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o640 & ~current_umask()
