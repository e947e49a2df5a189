"""A private PostgreSQL server in a temporary folder: made, started, stopped, restarted. Independent of pytest."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

USER = "hpotune"


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """One server, on the loopback only; every connection needs its password."""

    binaries: Path
    folder: Path
    port: int
    password: str

    @classmethod
    def make(cls, binaries: Path) -> Postgres:
        """An empty cluster of databases, not started yet."""
        folder = Path(tempfile.mkdtemp(prefix="hpotune-postgres-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = cls(binaries=binaries, folder=folder, port=port, password=secrets.token_hex(16))
        (folder / "password").write_text(server.password)
        if os.getuid() == 0:  # initdb refuses root
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        server._as_owner(
            "initdb", "-D", f"{folder}/data", "-U", USER, "-A", "scram-sha-256", "--no-sync",
            f"--pwfile={folder}/password", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        return server

    def start(self) -> None:
        """Returns when it accepts connections."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        self._as_owner(
            "pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start"
        )

    def stop(self) -> None:
        """Breaks every connection; nothing where it does not run."""
        self._as_owner("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop", check=False)

    def database(self, name: str) -> str:
        """The URL of an empty place for tables, without the password.

        A schema: a database of its own is a thousand files, and forty of them take a minute to remove.
        """
        url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(url, password=self.password) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"{url}?options=-csearch_path%3D{name}"

    def _as_owner(self, program: str, *arguments: str, check: bool = True) -> None:
        owner = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []
        )
        done = subprocess.run(
            [*owner, self.binaries / program, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            cwd="/", env={"PATH": os.environ["PATH"], "LANG": "C"}, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")
