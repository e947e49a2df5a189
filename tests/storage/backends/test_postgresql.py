"""PostgreSQL as sites run it: TLS with a certificate of their own, few connections, users without rights."""

from __future__ import annotations

import gc
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from hpotune.errors import StoreError
from hpotune.storage import TrialQueue
from hpotune.storage.backends import postgresql
from hpotune.storage.backends.connect import connect
from hpotune.storage.backends.postgresql import server_reason
from tests.fixtures.postgres import Postgres
from tests.fixtures.store_workers import worker

pytestmark = pytest.mark.postgres
CONNECTIONS = 8


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(server: Postgres) -> Path:
    """ca.crt, a server.crt that it signed, and other.crt, which signed nothing."""
    folder = server.folder / "tls"
    folder.mkdir()
    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        openssl(
            folder,
            "req",
            "-x509",
            *new,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.crt",
            "-subj",
            f"/CN={name}",
        )
    openssl(folder, "req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days",
        "2", "-extfile", "names", "-out", "server.crt",
    )  # fmt: skip
    (folder / "server.key").chmod(0o600)
    owner = server.folder.owner()
    for path in (folder, folder / "server.key", folder / "server.crt"):
        shutil.chown(path, owner)
    return folder


@pytest.fixture(scope="module")
def small_tls_server(server: Postgres, certificates: Path) -> Iterator[Postgres]:
    """The server with TLS and few connections."""
    server.stop()
    server.start(
        ssl="on", ssl_cert_file=f"{certificates}/server.crt", ssl_key_file=f"{certificates}/server.key",
        max_connections=str(CONNECTIONS), superuser_reserved_connections="1", max_wal_senders="0",
    )  # fmt: skip
    yield server
    server.stop()
    server.start()


@pytest.fixture
def url(small_tls_server: Postgres, postgres: str) -> str:
    return postgres


def test_certificate_is_verified(url, certificates, make_study):
    verified = f"{url}&sslmode=verify-full&sslrootcert={certificates}/ca.crt"
    store = TrialQueue.create(verified, make_study(), folder="f")
    assert store.rows()
    with psycopg.connect(verified) as connection:
        (encrypted,) = connection.execute(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchone()
    assert encrypted


def test_mode_comes_from_environment(url, certificates, monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", f"{certificates}/ca.crt")
    assert connect(url).get_all_studies() == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("sslmode=verify-full&sslrootcert={folder}/other.crt", "certificate verify failed"),
        ("sslmode=verify-full&sslrootcert={folder}/nowhere.crt", "nowhere.crt\" does not exist"),
        ("sslmode=verify-everything", "invalid sslmode value"),
    ],
)  # fmt: skip
def test_wrong_certificate_is_one_line(url, certificates, options, reason):
    """A worker does not wait for it."""
    with pytest.raises(StoreError, match=rf"{reason}.*check sslmode and sslrootcert") as caught:
        connect(f"{url}&{options.format(folder=certificates)}", patience_s=20)
    assert "\n" not in str(caught.value)


def taken(url: str, stack: ExitStack) -> None:
    """Every connection of the server is taken until the stack ends, also those that earlier tests still release."""
    gc.collect()
    refused = 0
    for _ in range(2 * CONNECTIONS):
        try:
            stack.enter_context(psycopg.connect(url))
        except psycopg.OperationalError:
            refused += 1
            if refused == 5:
                return
            time.sleep(0.2)
    raise AssertionError("the server has no limit")


def test_full_server_is_one_line(url, make_study):
    TrialQueue.create(url, make_study(), folder="f")
    with ExitStack() as stack:
        taken(url, stack)
        with pytest.raises(
            StoreError, match=r"(too many|remaining).*raise max_connections, use a connection pooler"
        ):
            TrialQueue.open(url, make_study())


def test_worker_waits_for_a_connection(url, make_study, capsys):
    TrialQueue.create(url, make_study(), folder="f")
    stack = ExitStack()
    taken(url, stack)
    threading.Timer(2, stack.close).start()
    assert TrialQueue.open(url, make_study(), patient=True).claim(worker()).row.number == 0
    assert "the store does not answer" in capsys.readouterr().err


def test_worker_gives_up_with_a_reason(url, make_study, monkeypatch):
    TrialQueue.create(url, make_study(), folder="f")
    monkeypatch.setattr("hpotune.storage.trials.queue.PATIENCE_S", 1)
    with ExitStack() as stack:
        taken(url, stack)
        with pytest.raises(StoreError, match=r"(too many|remaining).*raise max_connections") as caught:
            TrialQueue.open(url, make_study(), patient=True)
    assert caught.value.exit_code == 4


@pytest.fixture
def guest(server: Postgres, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the same schema for a user that may look into it and do nothing else."""
    schema = postgres.rpartition("%3D")[2]
    server.run(
        "DROP ROLE IF EXISTS guest", f"CREATE ROLE guest LOGIN PASSWORD '{server.password}'",
        f"GRANT USAGE ON SCHEMA {schema} TO guest",
    )  # fmt: skip
    yield postgres.replace("//hpotune@", "//guest@")
    server.run("DROP OWNED BY guest", "DROP ROLE guest")


def test_user_without_right_to_create(guest):
    with pytest.raises(StoreError, match=r"the user guest may not create tables in .*GRANT CREATE ON SCHEMA"):
        connect(guest, patience_s=20)


def test_user_without_right_to_read(guest, postgres):
    connect(postgres)
    with pytest.raises(StoreError, match=r"cannot be opened .permission denied for table"):
        connect(guest, patience_s=20)


def test_user_who_may_only_read(guest, postgres, server, make_study):
    TrialQueue.create(postgres, make_study(), folder="f")
    server.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA {postgres.rpartition('%3D')[2]} TO guest")
    assert TrialQueue.open(guest, make_study(), read_only=True).rows()
    with pytest.raises(
        StoreError, match=r"the user guest may not write the tables .*GRANT ALL ON ALL TABLES"
    ):
        TrialQueue.open(guest, make_study(), patient=True)


def test_missing_schema_and_database(postgres):
    with pytest.raises(StoreError, match=r"has no schema of its search_path .nowhere.; create it"):
        connect(f"{postgres.rpartition('%3D')[0]}%3Dnowhere", patience_s=20)
    with pytest.raises(StoreError, match=r'database "nowhere" does not exist.*check host, port, database'):
        connect(postgres.replace("/postgres?", "/nowhere?"), patience_s=20)


def test_tables_of_something_else(postgres, server):
    schema = postgres.rpartition("%3D")[2]
    server.run(f"CREATE TABLE {schema}.studies (name TEXT)")
    with pytest.raises(StoreError, match=r"is a database of something else .tables: studies."):
        connect(postgres)
    with psycopg.connect(postgres) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]
        ).fetchall()
    assert names == [("studies",)]


def test_other_optunas_tables_stay(postgres, server):
    connect(postgres)
    schema = postgres.rpartition("%3D")[2]
    server.run(
        f"UPDATE {schema}.alembic_version SET version_num = 'v2.6.0.a'",
        f"UPDATE {schema}.version_info SET library_version = '2.6.0'",
        f"DROP TABLE {schema}.trial_heartbeats",
    )
    with pytest.raises(
        StoreError, match=r"was made by Optuna 2.6.0.*storage upgrade --storage postgresql.psycopg:"
    ):
        connect(postgres)
    with psycopg.connect(postgres) as connection:
        found = connection.execute("SELECT to_regclass('trial_heartbeats')").fetchone()
    assert found == (None,)


def test_reasons_of_several_addresses_are_joined():
    text = "connection failed: Multiple connection attempts failed. All failures were:\n- ::1: no\n- 127.0.0.1: never"
    assert server_reason(psycopg.OperationalError(text)) == "::1: no; 127.0.0.1: never"
    assert server_reason(psycopg.OperationalError()) == "OperationalError"


@pytest.mark.parametrize(
    "reason",
    [
        "the database system is starting up",
        "Connection refused",
        "sorry, too many clients already",
        "timeout expired",
    ],
)
def test_passing_errors_are_waited_for(reason):
    assert not postgresql.is_permanent(reason)


def test_service_file_names_the_server(server, postgres, tmp_path, monkeypatch):
    """`~/.pg_service.conf`, as sites hand it out."""
    schema = postgres.rpartition("%3D")[2]
    file = tmp_path / "services.conf"
    lines = ["[hpo]", "host=127.0.0.1", f"port={server.port}", "dbname=postgres", "user=hpotune"]
    file.write_text("\n".join([*lines, f"options=-csearch_path={schema}"]) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    assert connect("postgresql:///?service=hpo").get_all_studies() == []
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM studies").fetchone() == (0,)
