"""Several processes that prepare one study at one moment, and preparations that were interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from hpotune.errors import HpotuneError, StoreError, StudyFileError
from hpotune.launch.prepare import prepare
from hpotune.workspace import folder as folders
from hpotune.workspace.folder import StudyFolder
from tests.conftest import FILE, FUNCTION

STORES = ["sqlite", "journal", pytest.param("postgres", marks=pytest.mark.postgres)]
ROUNDS = 3


@pytest.fixture(scope="module")
def passwords(tmp_path_factory) -> Path:
    """A file of PostgreSQL's passwords that stands before there is a server."""
    file = tmp_path_factory.mktemp("passwords") / "pgpass"
    file.touch(mode=0o600)
    return file


@pytest.fixture(params=STORES)
def store(request, passwords) -> str:
    """What `store:` says in the study file."""
    if request.param != "postgres":
        return request.param
    passwords.write_text(f"*:*:*:*:{request.getfixturevalue('server').password}\n")
    return request.getfixturevalue("postgres")


@pytest.fixture(params=STORES[::2])
def shared(request, passwords, tmp_path) -> str:
    """A store that is in no study's folder."""
    if request.param != "postgres":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    passwords.write_text(f"*:*:*:*:{request.getfixturevalue('server').password}\n")
    return request.getfixturevalue("postgres")


class Preparer:
    """A process of tests/launch/preparer.py."""

    def __init__(self, *words: str, passwords: Path) -> None:
        command = [sys.executable, "-m", "tests.launch.preparer", *words]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = {name: value for name, value in os.environ.items() if name != "PGPASSWORD"}
        env["PGPASSFILE"] = str(passwords)
        self.process = subprocess.Popen(command, text=True, env=env, **pipes)

    def __enter__(self) -> Preparer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hears(self, line: object) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def says(self) -> str:
        return self.process.stdout.readline().strip()

    def answer(self) -> dict:
        return json.loads(self.says())


@pytest.fixture(scope="module")
def three(passwords) -> Iterator[list[Preparer]]:
    """Three of them, with all that they need imported."""
    with ExitStack() as stack:
        made = [stack.enter_context(Preparer(passwords=passwords)) for _ in range(3)]
        assert [one.says() for one in made] == ["ready"] * 3
        yield made


@pytest.fixture
def slow(passwords) -> Iterator[Preparer]:
    """One that waits before it writes the last files of a new study."""
    with Preparer("slow", passwords=passwords) as made:
        assert made.says() == "ready"
        yield made


def study(home: Path, **sections: object) -> Path:
    """A study of a function, in a folder of its own."""
    home.mkdir()
    (home / "own.py").write_text(FUNCTION)
    (home / "study.yaml").write_text(
        yaml.safe_dump({k: v for k, v in {**FILE, **sections}.items() if v is not None})
    )
    return home / "study.yaml"


def at_once(preparers: list[Preparer], *files: Path) -> list[dict]:
    """What each returned, all started at one moment; each with its own file, or all with one."""
    for number, one in enumerate(preparers):
        one.hears(files[number % len(files)])
    return [one.answer() for one in preparers]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_three_at_once_get_one_study(store, three, tmp_path):
    for number in range(ROUNDS):
        file = study(tmp_path / str(number), store=store, name=f"bowl{number}")
        answer = at_once(three, file)
        assert [one.get("rows") for one in answer] == [6, 6, 6], answer
        folder = StudyFolder(path=Path(answer[0]["folder"]))
        assert {one["store"] for one in answer} == {folder.provenance().store}
        assert names(file.parent) == {"own.py", "study.yaml", folder.path.name}


def test_a_third_folder_shares_the_store(shared, three, tmp_path):
    for number in range(ROUNDS):
        homes = [tmp_path / f"{number}-{name}" for name in "abc"]
        files = [study(home, store=shared, name=f"bowl{number}{home.name}") for home in homes]
        assert [one.get("rows") for one in at_once(three, *files)] == [6, 6, 6]


def test_one_folder_gets_the_name(shared, three, tmp_path):
    for number in range(ROUNDS):
        homes = [tmp_path / f"{number}-{name}" for name in "abc"]
        files = [study(home, store=shared, name=f"bowl{number}") for home in homes]
        answer = at_once(three, *files)
        assert sorted(one.get("rows", 0) for one in answer) == [0, 0, 6], answer
        for one, home in zip(answer, homes, strict=True):
            assert "rows" in one or "holds another study named" in one["error"]
            assert (home / f"bowl{number}").exists() == ("rows" in one)


def test_the_second_outlives_an_interrupted_first(store, slow, three, tmp_path):
    file = study(tmp_path / "home", store=store)
    slow.hears(file)
    assert slow.says() == "at the end"
    three[0].hears(file)
    while f"waiting for process {slow.process.pid} on " not in three[0].process.stderr.readline():
        pass
    slow.process.send_signal(signal.SIGINT)
    assert slow.process.wait(timeout=60) == 130
    answer = three[0].answer()
    assert answer.get("rows") == 6, answer
    folder = StudyFolder(path=Path(answer["folder"]))
    assert folder.load().config.budget.trials == 6
    assert answer["store"] == folder.provenance().store


def test_interrupted_preparation_spares_newer_folder(slow, three, tmp_path):
    file = study(tmp_path / "home")
    slow.hears(file)
    assert slow.says() == "at the end"
    shutil.rmtree(file.parent / "bowl")  # a user starts over
    (answer,) = at_once(three[:1], file)
    folder = Path(answer["folder"])
    before = names(folder)
    slow.process.send_signal(signal.SIGINT)
    assert slow.process.wait(timeout=60) == 130
    assert names(folder) == before
    assert at_once(three, file) == [answer] * 3


@pytest.mark.parametrize("stood", [False, True])
def test_an_interrupted_one_leaves_nothing(slow, tmp_path, stood):
    file = study(tmp_path / "home")
    folder = file.parent / "bowl"
    if stood:
        folder.mkdir()
    slow.hears(file)
    assert slow.says() == "at the end"
    assert names(folder) == {".hpotune-lock", "code", "store.db"}
    slow.process.send_signal(signal.SIGINT)
    assert slow.process.wait(timeout=60) == 130
    assert folder.exists() == stood
    assert not stood or names(folder) == set()


def killed(slow: Preparer, file: Path) -> None:
    """Makes a study but for its last files."""
    slow.hears(file)
    assert slow.says() == "at the end"
    slow.process.kill()
    slow.process.wait()


def test_killed_preparation_is_completed(store, slow, tmp_path):
    file = study(tmp_path / "home", store=store)
    killed(slow, file)
    with pytest.raises(StudyFileError, match="holds no study"):
        StudyFolder(path=file.parent / "bowl").load()
    ready = prepare(file, chosen=None, data_root=None)
    assert len(ready.store.rows()) == 6
    assert ready.folder.load().config.budget.trials == 6


def test_killed_preparation_is_redone(slow, tmp_path):
    file = study(tmp_path / "home", store="journal")
    killed(slow, file)
    (file.parent / "bowl" / "letter").touch()
    params = {"x": {"float": [0.0, 1.0]}}
    file.write_text(yaml.safe_dump({**FILE, "params": params, "store": "sqlite"}))
    with pytest.raises(StudyFileError, match="holds other files and no study"):
        prepare(file, chosen=None, data_root=None)
    assert names(file.parent / "bowl") == {"letter"}
    (file.parent / "bowl" / "letter").unlink()
    ready = prepare(file, chosen=None, data_root=None)
    assert ready.store_url == f"sqlite:///{file.parent}/bowl/store.db"


def test_a_lost_resolved_file_removes_nothing(tmp_path):
    file = study(tmp_path / "home")
    folder = prepare(file, chosen=None, data_root=None).folder
    before = names(folder.path)
    folder.resolved_file.unlink()
    with pytest.raises(StudyFileError, match="holds other files and no study"):
        prepare(file, chosen=None, data_root=None)
    assert names(folder.path) == before - {"resolved.yaml", ".hpotune-lock"}


def test_a_full_disk_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = study(tmp_path / "home")
    monkeypatch.setattr(folders, "write_atomic", full)
    with pytest.raises(HpotuneError, match=r"cannot be written \(No space left on device\); free space"):
        prepare(file, chosen=None, data_root=None)
    assert names(file.parent) == {"own.py", "study.yaml"}


def test_the_lock_follows_no_link(tmp_path):
    file = study(tmp_path / "home")
    (tmp_path / "precious").write_text("mine")
    folder = prepare(file, chosen=None, data_root=None).folder
    folder.lock_file.unlink()
    folder.lock_file.symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match=r"\.hpotune-lock: is a symbolic link"):
        prepare(file, chosen=None, data_root=None)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_that_is_being_made(slow, three, tmp_path):
    file = study(tmp_path / "home")
    slow.hears(file)
    assert slow.says() == "at the end"
    three[0].hears(file.parent / "bowl")
    time.sleep(0.5)
    slow.hears("")
    assert slow.answer() == three[0].answer()


def test_sixteen_workers_make_one_study(store, tmp_path):
    command = "echo {x}"
    file = study(
        tmp_path / "home", store=store, python=None, command=command,
        search={"algorithm": "random"}, budget={"trials": 16},
    )  # fmt: skip
    many = [sys.executable, "-m", "tests.launch.many_workers", "16", "0.5"]
    done = subprocess.run(many, cwd=file.parent, capture_output=True, text=True, check=False)
    logs = {path.name: path.read_text() for path in file.parent.glob("worker-*.log")}
    assert json.loads(done.stdout) == [0] * 16, [log for log in logs.values() if "error:" in log]
    rows = prepare(file, chosen=None, data_root=None).store.rows()
    assert [row.state for row in rows] == ["finished"] * 16
