"""Damage of a JSON file is one line that names the file, what is wrong and how to go on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.config.json_file import DamagedFileError, decoding, optional_object, read_object, read_regular

DAMAGES: dict[str, Callable[[Path], object]] = {
    "is missing": lambda file: None,
    "is damaged (it is empty)": lambda file: file.write_text(" \n"),
    "is damaged (no JSON: Expecting value, line 2)": lambda file: file.write_text('{"a":\n x}'),
    "is damaged (it is not UTF-8 text)": lambda file: file.write_bytes(b'{"a": "\xff"}'),
    "is damaged (it is nested too deeply)": lambda file: file.write_text('{"a":' * 100_000),
    "is damaged (it holds a list and no object)": lambda file: file.write_text("[]"),
    "is damaged (it holds nothing and no object)": lambda file: file.write_text("null"),
    "is damaged (Exceeds the limit": lambda file: file.write_text('{"a": ' + "9" * 5000 + "}"),
    "cannot be read (it is a folder)": lambda file: file.mkdir(),
    "cannot be read (it is a pipe or a device)": lambda file: os.mkfifo(file),
    "cannot be read (Too many levels of symbolic links)": lambda file: file.symlink_to(file.name),
}


@pytest.mark.parametrize("text", DAMAGES)
def test_damage_is_one_line(text, tmp_path):
    file = tmp_path / "job.json"
    DAMAGES[text](file)
    with pytest.raises(DamagedFileError) as caught:
        read_object(file, next_step="restore it")
    line = str(caught.value)
    assert line.startswith(f"{file}: {text}")
    assert line.endswith("; restore it")
    assert "\n" not in line
    assert optional_object(file) is None


def test_missing_key_is_named(tmp_path):
    file = tmp_path / "job.json"
    file.write_text("{}")
    with pytest.raises(DamagedFileError, match=r"job.json: is damaged .without 'id'.; restore it"):
        with decoding(file, next_step="restore it"):
            read_object(file, next_step="restore it")["id"]


def test_large_file_is_not_read(tmp_path):
    file = tmp_path / "job.json"
    with file.open("wb") as sparse:
        sparse.truncate(100_000_000)
    with pytest.raises(OSError, match="more than 64 MB"):
        read_regular(file)
