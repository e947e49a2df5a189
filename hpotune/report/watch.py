"""`status --watch`: a board that keeps up to date on a terminal, a line a change elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from rich.console import Group
from rich.live import Live
from rich.text import Text

from hpotune.config.schema.study_config import Json
from hpotune.errors import StoreError
from hpotune.report.console import plain_console
from hpotune.report.status_table import best_so_far, counted, headline, status
from hpotune.schedule.next_jobs import LIVE

Told = Mapping[str, Json]
LEAST_S = 5
"""The store is not asked more often; the queue has its own patience."""


def watch(
    read: Callable[[], Told],
    *,
    every_s: float,
    as_json: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = datetime.now,
) -> None:
    """Shows the study until it is over and nothing runs any more, or until Ctrl-C.

    Raises: StoreError when the first look fails; later ones are repeated.
    """
    looks = _looks(read, every_s=max(LEAST_S, every_s), sleep=sleep)
    try:
        if sys.stdout.isatty() and not as_json:
            _on_terminal(looks, now=now)
        else:
            _in_lines(looks, as_json=as_json, now=now)
    except KeyboardInterrupt:
        return


def _looks(
    read: Callable[[], Told], *, every_s: float, sleep: Callable[[float], None]
) -> Iterator[tuple[Told, str]]:
    """The study at each look, and the complaint of a store that does not answer just now."""
    told = read()
    yield told, ""
    while not over(told):
        sleep(every_s)
        try:
            told = read()
        except StoreError as error:
            yield told, f"{error}; asking again"
        else:
            yield told, ""


def over(told: Told) -> bool:
    """Whether the study has ended and nothing of it runs or waits."""
    live = any(job["state"] in LIVE for job in told["jobs"])
    return told["state"] in ("done", "stopped") and not told["running_trials"] and not live


def _on_terminal(looks: Iterator[tuple[Told, str]], *, now: Callable[[], datetime]) -> None:
    with Live(console=plain_console(), auto_refresh=False, vertical_overflow="crop") as live:
        for told, complaint in looks:
            foot = complaint or f"{now():%H:%M:%S}, Ctrl-C leaves; the study goes on without it"
            live.update(Group(status(told, now=now()), Text(""), Text(foot, style="dim")), refresh=True)


def _in_lines(looks: Iterator[tuple[Told, str]], *, as_json: bool, now: Callable[[], datetime]) -> None:
    last = ""
    for told, complaint in looks:
        text = complaint or line(told)
        if text == last:
            continue
        last = text
        print(json.dumps(told) if as_json else f"{now():%H:%M:%S} {text}", flush=True)  # noqa: T201 - a line a change


def line(told: Told) -> str:
    """The study in one line, without what changes all the time."""
    parts = [headline(told), *best_so_far(told)[:1]]
    if told["failures"]:
        parts.append(f"failed: {counted(told['failures'])}")
    waits = sorted({str(job["why"]) for job in told["jobs"] if job["state"] == "PENDING" and job["why"]})
    waiting = sum(job["state"] == "PENDING" for job in told["jobs"])
    if waiting:
        parts.append(f"{waiting} jobs wait ({'; '.join(waits)})" if waits else f"{waiting} jobs wait")
    parts += [f"node {host} is left out" for host in told["bad_nodes"]]
    if told["reason"] and told["state"] != "done":
        parts.append(f"ended because {told['reason']}")
    return "; ".join(parts)
