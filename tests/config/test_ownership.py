"""Which caches are trusted: a new one is closed to others, an open one is refused with the command that closes it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpotune.config import ownership
from hpotune.config.ownership import check_cache
from hpotune.errors import StudyFileError


@pytest.fixture(autouse=True)
def umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The umask of a shared study; no group is this user's own."""
    monkeypatch.setattr(ownership, "ROOT", -1)
    monkeypatch.setattr(ownership, "_is_own_group", lambda group, owner: False)
    before = os.umask(0o002)
    yield
    os.umask(before)


def test_new_cache_is_closed_and_usable(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    check_cache(root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    (root / "kept.json").write_text("{}")
    assert (root / "kept.json").stat().st_mode & stat.S_IWGRP
    check_cache(root, root / "kept.json")


def test_open_cache_names_the_command(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    with pytest.raises(StudyFileError, match=rf"may be changed by the group .*`chmod -R go-w {root}`"):
        check_cache(root)
    root.chmod(0o755)
    check_cache(root)
