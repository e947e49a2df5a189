"""A throw-away PostgreSQL, and small studies of a Python function or a command in a folder of their own."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpotune.config.load import Study, load_study
from hpotune.workspace.folder import StudyFolder, make_folder
from tests.fixtures.postgres import Postgres

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = [
    "tests.fixtures.slurm_cluster",
    "tests.fixtures.hyperqueue_server",
    "tests.fixtures.slurm_commands",
    "tests.fixtures.trained_study",
    "tests.fixtures.student_account",
]
FUNCTION = "def bowl(x, **others):\n    return {'value': (x - 1) ** 2}\n"
FILE: dict[str, Any] = {
    "name": "bowl",
    "python": "own.py:bowl",
    "params": {"x": {"float": [-3.0, 3.0]}},
    "score": {"objective": {"metric": "value", "direction": "minimize"}},
    "budget": {"trials": 6, "parallel": 2},
}

# Processes that tests start find the checkout and its tests, wherever they run.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


class NoDatasets(pytest.skip.Exception):
    """A skip because datasets are not on this machine: nothing that scripts/test could install."""


class NoTorch(pytest.skip.Exception):
    """A skip because torch was left out (HPOTUNE_TEST_WITHOUT=torch)."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With HPOTUNE_NO_SKIP (scripts/test, which installs all) a skipped test of Slurm, PostgreSQL or mounts fails.

    Not so where only datasets are missing: they are not installed, and a clone alone has none; nor where torch was left
    out on purpose.
    """
    report = yield
    needs = [mark for mark in ("slurm", "postgres", "mounts") if item.get_closest_marker(mark)]
    allowed = call.excinfo is not None and isinstance(call.excinfo.value, (NoDatasets, NoTorch))
    if report.skipped and needs and not allowed and os.environ.get("HPOTUNE_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"needs {needs[0]}, and was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL server of Debian's package, with a password, on a free port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.skip("no PostgreSQL here; run `apt-get install postgresql`, or scripts/test")
    made = Postgres.make(found[-1].parent)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def postgres(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a fresh, empty database; its password is in PGPASSWORD, as a user would have it."""
    monkeypatch.setenv("PGPASSWORD", server.password)
    return server.database(f"d{secrets.token_hex(4)}")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """A study of a function in a file of its own; keyword arguments replace sections, None removes one."""

    def made(**sections: Any) -> Study:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        (home / "own.py").write_text(FUNCTION)
        values = {key: value for key, value in {**FILE, **sections}.items() if value is not None}
        (home / "study.yaml").write_text(yaml.safe_dump(values))
        return load_study(home / "study.yaml")

    return made


@pytest.fixture
def make_study_folder(tmp_path: Path) -> Callable[..., StudyFolder]:
    """The folder that jobs read, for a study and the URL of its store."""

    def made(study: Study, url: str, name: str = "study") -> StudyFolder:
        folder, home = StudyFolder(path=tmp_path / name), study.source.path.parent
        values = dict(study.source.values)
        if study.config.python:
            values["python"] = str(home / study.config.python)
        make_folder(folder, replace(study.source, values=values), home=home, store_url=url)
        return folder

    return made


def needs_torch() -> None:
    """Skip a test where torch was left out on purpose (scripts/test-on)."""
    if "torch" in os.environ.get("HPOTUNE_TEST_WITHOUT", "").split():
        raise NoTorch("torch was left out: HPOTUNE_TEST_WITHOUT")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real datasets as they lie on the Hugging Face hub (NAMESPACE/NAME)."""
    folder = Path(os.environ.get("HPOTUNE_TEST_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not folder.is_dir():
        raise NoDatasets(f"no datasets in {folder}; set HPOTUNE_TEST_DATA")
    return folder
