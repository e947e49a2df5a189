"""The dashboard over HTTP, on a study that a worker writes meanwhile."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from hpotune.config.load import Study
from hpotune.errors import StoreError, StudyFileError
from hpotune.reporting.dashboard import REFRESH_S, SnapshotApp, copy_of, dashboard_server

pytest.importorskip("optuna_dashboard")


def stored_study(url: str) -> optuna.Study:
    """A study with one finished trial in a store."""
    study = optuna.create_study(storage=storage_of(url), study_name="bowl", direction="minimize")
    study.optimize(bowl, n_trials=1)
    return study


def bowl(trial: optuna.Trial) -> float:
    return (trial.suggest_float("params.x", -3, 3) - 1) ** 2


def storage_of(url: str) -> Any:
    if url.startswith("journal"):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:///"))
        return optuna.storages.JournalStorage(backend)
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


class Browser:
    """A client with cookies."""

    def __init__(self) -> None:
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
        )

    def get(self, address: str, *, method: str = "GET") -> bytes:
        request = urllib.request.Request(address, method=method)
        with self.opener.open(request, timeout=60) as answer:
            return answer.read()


@pytest.fixture
def study_file(make_study: Callable[..., Study]) -> Study:
    return make_study()


@pytest.fixture
def served(study_file: Study) -> Iterator[Callable[[str], str]]:
    """The address of the dashboard of a store."""
    servers: list[WSGIServer] = []

    def serve(url: str) -> str:
        server, address = dashboard_server(lambda: copy_of(url, study_file), host="127.0.0.1", port=0)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return address

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def check_dashboard(url: str, served: Callable[[str], str]) -> None:
    study = stored_study(url)
    address = served(url)
    base, browser = address.partition("/?")[0], Browser()
    assert b"<html" in browser.get(address).lower()
    (listed,) = json.loads(browser.get(f"{base}/api/studies"))["study_summaries"]
    assert listed["study_name"] == "bowl"
    found = json.loads(browser.get(f"{base}/api/studies/{listed['study_id']}?after=0"))
    assert [trial["state"] for trial in found["trials"]] == ["Complete"]
    study.optimize(bowl, n_trials=2)  # the store is written while the dashboard is open
    with pytest.raises(urllib.error.HTTPError, match="405"):
        browser.get(f"{base}/api/studies/{listed['study_id']}", method="DELETE")
    assert len(study.get_trials()) == 3


def test_sqlite_study_is_served(tmp_path: Path, served: Callable[[str], str]) -> None:
    check_dashboard(f"sqlite:///{tmp_path / 'store.db'}", served)


def test_journal_study_is_served(tmp_path: Path, served: Callable[[str], str]) -> None:
    check_dashboard(f"journal:///{tmp_path / 'store.journal'}", served)


@pytest.mark.postgres
def test_postgres_study_is_served(postgres: str, served: Callable[[str], str]) -> None:
    check_dashboard(postgres, served)


def test_address_without_token_is_refused(tmp_path: Path, served: Callable[[str], str]) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    stored_study(url)
    base = served(url).partition("/?")[0]
    for path in ("/", "/api/studies", "/dashboard/?token=guess"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            Browser().get(base + path)


def test_copy_follows_the_study(tmp_path: Path, study_file: Study) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    study = stored_study(url)
    now = [0.0]
    app = SnapshotApp(lambda: copy_of(url, study_file), token="t", clock=lambda: now[0])

    def count() -> int:
        environ = {
            "PATH_INFO": "/api/studies/0",
            "QUERY_STRING": "after=0",
            "HTTP_COOKIE": "hpotune-dashboard=t",
        }
        setup_testing_defaults(environ)
        return len(json.loads(b"".join(app(environ, lambda *_: None)))["trials"])

    assert count() == 1
    study.optimize(bowl, n_trials=1)
    assert count() == 1
    now[0] += REFRESH_S
    assert count() == 2


@pytest.mark.parametrize("url", ["sqlite:///{}/store.db", "journal:///{}/store.journal"])
def test_store_is_unchanged(tmp_path: Path, study_file: Study, url: str) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    stored_study(url.format(folder))
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert len(copy_of(url.format(folder), study_file).get_all_trials(0)) == 1
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_taken_port_is_named(tmp_path: Path, study_file: Study) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    stored_study(url)
    first, _ = dashboard_server(lambda: copy_of(url, study_file), host="127.0.0.1", port=0)
    with pytest.raises(
        StudyFileError, match=f"--port {first.server_port}: .* cannot be opened .*another --port"
    ):
        dashboard_server(lambda: copy_of(url, study_file), host="127.0.0.1", port=first.server_port)
    first.server_close()


def test_missing_store_is_one_line(tmp_path: Path, study_file: Study) -> None:
    with pytest.raises(StoreError):
        copy_of(f"sqlite:///{tmp_path / 'none.db'}", study_file)
    assert not (tmp_path / "none.db").exists()
