"""Studies of users who are not root, by the command line: one user's, and those that a group shares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NOBODY, SYNC, GROUP = 65534, 4, 65534
"""Two users of every Debian, and the group that both are in."""
AS = "setpriv --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search --no-new-privs"
"""Reading is allowed everywhere, since Python may lie in root's home; writing, and what is trusted, are the user's."""


def _can_become_another() -> bool:
    return (
        os.geteuid() == 0
        and not subprocess.run(
            [*AS.split(), f"--reuid={NOBODY}", f"--regid={GROUP}", "true"], check=False, capture_output=True
        ).returncode
    )


pytestmark = pytest.mark.skipif(not _can_become_another(), reason="only root can become another user")


@pytest.fixture
def home(make_study: Callable[..., object], tmp_path: Path) -> Path:
    """A study file that shares with the group, in a folder of nobody's with the mode 2775."""
    make_study(budget={"trials": 1}, shared_with="group", store="journal")
    home = tmp_path / "home"
    for path in (home, *home.iterdir()):
        os.chown(path, NOBODY, GROUP)
    home.chmod(0o2775)
    return home


def hpotune(user: int, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as another user, with a home and a cache of its own."""
    own = Path(str(words[1])).parent.parent / f"home-of-{user}"
    own.mkdir(exist_ok=True)
    test = next(path for path in own.parents if path.name.startswith("test_"))
    for path in (test, *test.parents[:2]):  # each time: another pytest that starts closes the folder of all
        path.chmod(0o755)
    os.chown(own, user, GROUP)
    command = [*AS.split(), f"--reuid={user}", f"--regid={GROUP}", sys.executable, "-m", "hpotune"]
    return subprocess.run(
        [*command, *map(str, words)],
        capture_output=True, text=True, check=False, umask=0o022,
        env={**os.environ, "HOME": str(own), "HPOTUNE_CACHE": str(own / "cache"), **env},
    )  # fmt: skip


def works(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder_exists", [False, True])
def test_new_shared_study_is_made(folder_exists: bool, home: Path) -> None:
    if folder_exists:
        (home / "bowl").mkdir()
        os.chown(home / "bowl", NOBODY, GROUP)
        (home / "bowl").chmod(0o2775)
    works(hpotune(NOBODY, "worker" if folder_exists else "run", home / "study.yaml"))
    assert (home / "bowl" / "trials" / "0").exists()


def test_members_use_a_shared_study(home: Path, tmp_path: Path) -> None:
    works(hpotune(NOBODY, "run", home / "study.yaml"))
    folder, own = home / "bowl", tmp_path / "theirs" / "study.yaml"
    works(hpotune(SYNC, "extend", folder, "--trials", "+1", HPOTUNE_SHARED_WITH="group"))
    works(hpotune(SYNC, "run", folder, HPOTUNE_SHARED_WITH="group"))
    refused = hpotune(SYNC, "status", folder)
    assert refused.returncode == 2
    assert "HPOTUNE_SHARED_WITH=group" in refused.stderr
    own.parent.mkdir()
    for name in ("study.yaml", "own.py"):
        shutil.copy(home / name, own.parent / name)
        os.chown(own.parent / name, SYNC, GROUP)
    works(hpotune(SYNC, "status", own, "--folder", folder))
    for name in ("resolved.yaml", "study.yaml"):
        os.chown(folder / name, SYNC, GROUP)
    works(hpotune(NOBODY, "status", folder))  # its creator, after a member has changed it
