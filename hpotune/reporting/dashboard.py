"""Serves optuna-dashboard on a copy of a study's trials in memory, so that looking never locks or changes the store.

The copy is made again when a page asks for data and it is older than REFRESH_S. Whoever reaches the port needs the
token that the printed address holds: on a login node other users reach it too.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from hpotune.errors import StudyFileError

if TYPE_CHECKING:
    from optuna.storages import InMemoryStorage

    from hpotune.config.load import Study

REFRESH_S = 10.0
_COOKIE = "hpotune-dashboard"
_READS = ("GET", "HEAD", "OPTIONS")
Environ = Mapping[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Any, StartResponse], Iterable[bytes]]


def copy_of(url: str, study: Study) -> InMemoryStorage:
    """The study's trials in a storage of this process.

    Raises: StoreError where the store cannot be read, or has no such study.
    """
    import optuna
    from optuna.storages import InMemoryStorage

    from hpotune.storage.backends.optuna_study import open_study

    store, study_id = open_study(url, study, read_only=True, patience_s=0)
    try:
        copied, directions = InMemoryStorage(), store.get_study_directions(study_id)
        made = optuna.create_study(storage=copied, study_name=study.config.name, directions=directions)
        made.add_trials(store.get_all_trials(study_id, deepcopy=False))
    finally:
        store.remove_session()
    return copied


def dashboard_maker() -> Callable[[InMemoryStorage], Application]:
    """The function that makes the dashboard's application of a storage.

    Raises: StudyFileError where optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import wsgi  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise StudyFileError(
            "dashboard: optuna-dashboard is not installed; pip install 'hpotune[dashboard]', or use `hpotune report`"
        ) from None
    found: Callable[[InMemoryStorage], Application] = wsgi
    return found


class SnapshotApp:
    """The dashboard on the latest copy. It answers only requests with the token that change nothing."""

    def __init__(
        self,
        read: Callable[[], InMemoryStorage],
        *,
        token: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = dashboard_maker()
        self._read = read
        self._token = token
        self._clock = clock
        self._copied_at = clock()
        self._app = self._make(read())

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Answer a request, as WSGI asks."""
        if not self._knows_token(environ):
            return self._refused(environ, start)
        if environ["REQUEST_METHOD"] not in _READS:
            return _text(start, "405 Method Not Allowed", "this is a read-only copy of the study")
        if str(environ.get("PATH_INFO", "")).startswith("/api/"):
            self._refresh()
        return self._app(environ, start)

    def _knows_token(self, environ: Environ) -> bool:
        try:
            cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._token.encode())

    def _refused(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Sets the cookie where the address holds the token; else refuses."""
        given = parse_qs(str(environ.get("QUERY_STRING", ""))).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return _text(start, "403 Forbidden", "needs the address that `hpotune dashboard` printed")
        cookie = f"{_COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        start("302 Found", [("Location", "/dashboard/"), ("Set-Cookie", cookie), ("Content-Length", "0")])
        return []

    def _refresh(self) -> None:
        """A new copy where the last one is old; the last one stays while the store does not answer."""
        from hpotune.errors import StoreError

        if self._clock() - self._copied_at < REFRESH_S:
            return
        self._copied_at = self._clock()
        try:
            self._app = self._make(self._read())
        except StoreError:
            return


def _text(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


class _Quiet(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def dashboard_server(read: Callable[[], InMemoryStorage], *, host: str, port: int) -> tuple[WSGIServer, str]:
    """A server that is not started yet, and its address with the token.

    Raises: StudyFileError where the port is taken, or optuna-dashboard is not installed.
    """
    token = secrets.token_urlsafe(16)
    app = SnapshotApp(read, token=token)
    try:
        server = make_server(host, port, app, handler_class=_Quiet)
    except OSError as error:
        raise StudyFileError(
            f"--port {port}: {host}:{port} cannot be opened ({error.strerror}); give another --port, 0 for any"
        ) from None
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else host
    return server, f"http://{shown}:{server.server_port}/?token={token}"
