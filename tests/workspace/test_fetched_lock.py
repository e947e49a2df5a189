"""The lock file of `hpotune fetch`: found in a study's folder, and applied to a point."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.json_file import DamagedFileError
from hpotune.config.schema.study_config import PointConfig
from hpotune.records.fetch_record import FetchedLock, FetchFile, FetchItem
from hpotune.workspace.fetched_lock import (
    VARIABLE,
    absent_files,
    located,
    lock_file,
    pinned_commit,
    read_lock,
    write_lock,
)

COMMIT, OTHER = "a" * 40, "b" * 40
FILES = [FetchFile(path="config.json", size=3)]


def lock() -> FetchedLock:
    model = FetchItem(kind="model", id="acme/tiny", revision="v1", commit=COMMIT, files=FILES)
    named = FetchItem(kind="model", id="acme/words", commit=OTHER, files=FILES)
    rows = FetchItem(kind="dataset", id="acme/rows", commit=OTHER, files=FILES)
    return FetchedLock(fetched="2026-11-01T00:00:00+00:00", items=[model, named, rows])


def point(**model: str) -> PointConfig:
    return PointConfig.model_validate(
        {
            "model": {"path": "acme/tiny", "revision": "v1", **model},
            "data": {"path": "acme/rows"},
            "score": {"objective": {"metric": "train_loss"}},
        }
    )


def test_point_gets_the_commits() -> None:
    found = located(point(), lock())
    assert found.model is not None
    assert found.data is not None
    assert (found.model.path, found.model.revision) == ("acme/tiny", COMMIT)
    assert found.data.revision == OTHER
    assert located(found, lock()) == found
    assert located(point(), None) == point()


def test_other_revisions_stay() -> None:
    found = located(point(revision="main"), lock())
    assert found.model is not None
    assert found.model.revision == "main"


def test_address_in_s3_becomes_a_file() -> None:
    rows = FetchItem(
        kind="s3", id="s3://lab/rows.jsonl", commit=OTHER, files=[FetchFile(path="rows.jsonl", size=3)],
        folder="/cache/s3/rows-1", is_file=True,
    )  # fmt: skip
    tree = FetchItem(kind="s3", id="s3://lab/tiny", commit=OTHER, files=FILES, folder="/cache/s3/tiny-1")
    asked = PointConfig.model_validate(
        {
            "model": {"path": "s3://lab/tiny", "tokenizer": "s3://lab/other"},
            "data": {"path": "s3://lab/rows.jsonl"},
            "score": {"objective": {"metric": "train_loss"}},
        }
    )
    found = located(asked, FetchedLock(fetched="2026-11-01T00:00:00+00:00", items=[rows, tree]))
    assert found.model is not None
    assert found.data is not None
    assert (found.model.path, found.data.path) == ("/cache/s3/tiny-1", "/cache/s3/rows-1/rows.jsonl")
    assert found.model.tokenizer == "s3://lab/other"  # not fetched: the trial says so
    assert [*absent_files(tree, hub=Path("/hub"))] == [(Path("/cache/s3/tiny-1/config.json"), "is missing")]


def test_trial_process_reads_the_commit(tmp_path: Path) -> None:
    env = {VARIABLE: str(write_lock(tmp_path, lock()))}
    assert pinned_commit("model", "acme/words", None, env) == OTHER
    assert pinned_commit("model", "acme/others", None, env) is None
    assert pinned_commit("model", "acme/words", None, {}) is None


def test_derived_study_has_its_studys_lock(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").touch()
    file = write_lock(tmp_path, lock())
    assert lock_file(tmp_path / "repeats") == file
    (tmp_path / "resolved.yaml").unlink()
    assert lock_file(tmp_path / "repeats") is None


def test_absent_and_cut_files_are_named(tmp_path: Path) -> None:
    item = lock().items[0]
    file = tmp_path / "models--acme--tiny" / "snapshots" / COMMIT / "config.json"
    assert [*absent_files(item, hub=tmp_path)] == [(file, "is missing")]
    file.parent.mkdir(parents=True)
    file.write_text("{")
    assert [*absent_files(item, hub=tmp_path)] == [(file, "has 1 bytes and not 3")]


def test_damaged_lock_names_the_next_step(tmp_path: Path) -> None:
    file = write_lock(tmp_path, lock())
    file.write_text(file.read_text()[:40])
    with pytest.raises(DamagedFileError, match="is damaged .*; remove it, then run `hpotune fetch "):
        read_lock(file)
