"""Hashes of models and data: read once, read again after a change; commits of the hub's cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hpotune.workspace.origin import content
from hpotune.workspace.origin.content import Content, content_of, hash_files, hub_commit, local_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights.safetensors").write_bytes(b"w" * 100)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("not read")
    return folder


def test_hash_is_of_names_and_contents(model: Path, tmp_path: Path) -> None:
    parts = {"config.json": b"{}", "sub/weights.safetensors": b"w" * 100}
    text = "".join(f"{name}\0{hashlib.sha256(data).hexdigest()}\n" for name, data in parts.items())
    assert hash_files(model, cache=tmp_path / "hashes") == (hashlib.sha256(text.encode()).hexdigest(), 102)


def test_files_are_read_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = content._sha256
    monkeypatch.setattr(content, "_sha256", lambda file: (read.append(file.name), original(file))[1])
    first = hash_files(model, cache=tmp_path / "hashes")
    assert hash_files(model, cache=tmp_path / "hashes") == first
    assert sorted(read) == ["config.json", "weights.safetensors"]
    weights = model / "sub" / "weights.safetensors"
    weights.write_bytes(b"v" * 100)
    os.utime(weights, ns=(1, 1))
    assert hash_files(model, cache=tmp_path / "hashes")[0] != first[0]
    assert read[2:] == ["weights.safetensors"]


def test_damaged_cache_is_made_again(model: Path, tmp_path: Path) -> None:
    first = hash_files(model, cache=tmp_path / "hashes")
    for file in (tmp_path / "hashes").iterdir():
        file.write_text('{"config.json": [2, "x"], "sub/weights.safetensors": 7}')
    assert hash_files(model, cache=tmp_path / "hashes") == first


def test_folder_below_data_root_wins(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "tatsu-lab" / "alpaca").mkdir(parents=True)
    (root / "tatsu-lab" / "alpaca" / "rows.json").write_text("[]")
    assert local_files("tatsu-lab/alpaca", data_root=str(root)) == root / "tatsu-lab" / "alpaca"
    assert local_files("tatsu-lab/alpaca", data_root=None) is None
    assert local_files(str(model), data_root=str(root)) == model
    assert local_files("package:optuna/version.py", data_root=None) is not None
    assert local_files("package:no_such_package/x", data_root=None) is None


def test_commit_of_the_hub_cache(tmp_path: Path) -> None:
    refs = tmp_path / "hub" / "models--a--b" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    env = {"HF_HOME": str(tmp_path)}
    assert hub_commit("a/b", kind="models", revision=None, env=env) == COMMIT
    assert hub_commit("a/b", kind="models", revision="v2", env=env) is None
    assert hub_commit("a/c", kind="models", revision=COMMIT, env=env) == COMMIT
    (refs / "main").write_text("nonsense")
    assert hub_commit("a/b", kind="models", revision=None, env=env) is None
    found = content_of("a/b", kind="models", revision=None, data_root=None, study=tmp_path, env=env)
    assert (found, found.identity) == (Content(path="a/b"), "")


def test_unreadable_folder_has_no_hash(model: Path, tmp_path: Path) -> None:
    (model / "sub" / "weights.safetensors").unlink()
    (model / "sub" / "weights.safetensors").symlink_to("/proc/self/mem")
    found = content_of(str(model), kind="models", revision=None, data_root=None, study=tmp_path)
    assert found.path == str(model)
    assert found.sha256 is None
