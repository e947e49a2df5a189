"""A stand-in for the Hugging Face hub: folders served as repositories on loopback, with what was asked for.

It answers what huggingface_hub 2 and datasets 5 ask of the hub to download: facts of a repository, lists of its
files, and the files. No uploads, tokens, ranges or large-file storage. Independent of pytest.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any] | list[Any]
CARD = """\
---
configs:
- config_name: default
  data_files: [{split: train, path: train.jsonl}]
---
"""
"""README.md of a dataset as it lies on the hub: its rows are train.jsonl."""


class NotThere(Exception):
    """The code is what the hub's X-Error-Code says."""


@dataclass(kw_only=True, slots=True)
class Hub:
    """Serves from `start` until `stop`."""

    repos: dict[str, dict[str, Path]] = field(default_factory=dict)
    """models/NAMESPACE/NAME or datasets/NAMESPACE/NAME -> commit -> folder; the last commit is `main`."""
    asked: list[str] = field(default_factory=list)
    """METHOD PATH of every request."""
    server: ThreadingHTTPServer | None = None

    def publish(self, repo: str, folder: Path) -> str:
        """The commit that holds the folder's files from now on."""
        commits = self.repos.setdefault(repo, {})
        commit = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[commit] = folder
        return commit

    def start(self) -> str:
        """The endpoint, on a free port."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        """Connections are refused from now on; may be called again."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def find(self, repo: str, revision: str) -> tuple[str, Path]:
        """The commit and folder of a revision: `main` or a full commit.

        Raises: NotThere.
        """
        if repo not in self.repos:
            raise NotThere("RepoNotFound")
        commits = self.repos[repo]
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            raise NotThere("RevisionNotFound")
        return commit, commits[commit]


class Handler(BaseHTTPRequestHandler):
    """One request; `hub` is set by Hub.start."""

    hub: Hub

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        try:
            self._answer(unquote(urlsplit(self.path).path).strip("/").split("/"))
        except NotThere as error:
            self._send(404, b"{}", {"X-Error-Code": str(error)})

    do_HEAD = do_POST = do_GET

    def _answer(self, parts: list[str]) -> None:
        if parts[0] == "api" and len(parts) >= 4:
            self._api("/".join(parts[1:4]), parts[4:])
        else:
            parts = parts if parts[0] == "datasets" else ["models", *parts]
            if len(parts) < 6 or parts[3] != "resolve":
                raise NotThere("EntryNotFound")
            self._file("/".join(parts[:3]), parts[4], "/".join(parts[5:]))

    def _api(self, repo: str, rest: list[str]) -> None:
        what, revision, *inner = rest or ["revision", "main"]
        commit, folder = self.hub.find(repo, revision)
        answers = {
            "revision": lambda: facts(repo, commit, folder),
            "tree": lambda: tree(folder, "/".join(inner), recursive="recursive=true" in self.path.lower()),
            "paths-info": lambda: [one for one in entries(folder) if one["path"] in self._paths()],
        }
        if what not in answers:
            raise NotThere("EntryNotFound")
        self._send(200, json.dumps(answers[what]()).encode(), {"Content-Type": "application/json"})

    def _paths(self) -> list[str]:
        """What a POST asks for; sent as JSON or as a form."""
        if not hasattr(self, "body"):
            self.body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        return json.loads(self.body)["paths"] if self.body.startswith("{") else parse_qs(self.body)["paths"]

    def _file(self, repo: str, revision: str, name: str) -> None:
        commit, folder = self.hub.find(repo, revision)
        if not (folder / name).is_file():
            raise NotThere("EntryNotFound")
        content = (folder / name).read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(200, content, {"X-Repo-Commit": commit, "ETag": tag})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent: `Hub.asked` is the log."""


def facts(repo: str, commit: str, folder: Path) -> Json:
    """What the hub tells of a repository."""
    names = [{"rfilename": one["path"]} for one in entries(folder) if one["type"] == "file"]
    told = {"id": repo.partition("/")[2], "sha": commit, "siblings": names, "tags": []}
    return told | {"private": False, "disabled": False, "gated": False, "downloads": 0, "likes": 0}


def tree(folder: Path, inner: str, *, recursive: bool) -> Json:
    """The entries below a folder of the repository.

    Raises: NotThere.
    """
    if not (folder / inner).is_dir():
        raise NotThere("EntryNotFound")
    found = [one for one in entries(folder) if (folder / one["path"]).is_relative_to(folder / inner)]
    return [one for one in found if recursive or (folder / one["path"]).parent == folder / inner]


def entries(folder: Path) -> list[dict[str, Any]]:
    """Every file and folder of a repository."""
    return [
        {
            "type": "directory" if path.is_dir() else "file",
            "path": path.relative_to(folder).as_posix(),
            "size": 0 if path.is_dir() else path.stat().st_size,
            "oid": hashlib.sha1(path.as_posix().encode()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
    ]
