"""Whole files or none, and whether a folder is writable."""

from __future__ import annotations

import os

import pytest

from hpotune.errors import HpotuneError
from hpotune.workspace.atomic_files import check_writable, write_atomic


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
