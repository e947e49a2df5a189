"""`status --watch`: a display that is kept up to date on a terminal; elsewhere one line for each change."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from rich.console import Group
from rich.live import Live
from rich.text import Text

from hpotune.config.text.outside_text import console_text
from hpotune.errors import StoreError
from hpotune.reporting.console import on_terminal, plain_console
from hpotune.reporting.format import counts
from hpotune.reporting.json_output import as_json as view_as_json
from hpotune.reporting.status_table import best_so_far, headline, status_table
from hpotune.reporting.views.status import StudyStatus

LEAST_S = 5
"""The store is read at most this often; Slurm's answers are cached elsewhere."""


def watch(
    read: Callable[[], StudyStatus],
    *,
    every_s: float,
    as_json: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = datetime.now,
) -> None:
    """Shows the study until it is over and none of its jobs is active, or until Ctrl-C.

    Raises: StoreError when the first read fails; later reads are repeated.
    """
    updates = _updates(read, every_s=max(LEAST_S, every_s), sleep=sleep)
    try:
        if on_terminal(sys.stdout) and not as_json:
            _show_on_terminal(updates, now=now)
        else:
            _print_lines(updates, as_json=as_json, now=now)
    except KeyboardInterrupt:
        return


def _updates(
    read: Callable[[], StudyStatus], *, every_s: float, sleep: Callable[[float], None]
) -> Iterator[tuple[StudyStatus, str]]:
    """The latest status after each read, and the error of a store that did not answer."""
    status = read()
    yield status, ""
    while not is_over(status):
        sleep(every_s)
        try:
            status = read()
        except StoreError as error:
            yield status, f"{error}; trying again"
        else:
            yield status, ""


def is_over(status: StudyStatus) -> bool:
    """Whether the study has ended and none of its trials or jobs is active."""
    active = any(job.active for job in status.jobs)
    over = status.state in ("done", "stopped", "cancelled") and not status.running_trials and not active
    return over and not status.opening_runs and (status.repeats is None or is_over(status.repeats))


def _show_on_terminal(updates: Iterator[tuple[StudyStatus, str]], *, now: Callable[[], datetime]) -> None:
    with Live(console=plain_console(), auto_refresh=False, vertical_overflow="crop") as live:
        for status, error in updates:
            foot = error or f"{now():%H:%M:%S}, Ctrl-C leaves this display; the study continues"
            parts = (status_table(status, now=now()), Text(""), Text(foot, style="dim"))
            live.update(Group(*parts), refresh=True)


def _print_lines(
    updates: Iterator[tuple[StudyStatus, str]], *, as_json: bool, now: Callable[[], datetime]
) -> None:
    last = ""
    for status, error in updates:
        text = error or line(status)
        if text == last:
            continue
        last = text
        document = json.dumps(view_as_json(status)) if as_json else console_text(f"{now():%H:%M:%S} {text}")
        print(document, flush=True)  # noqa: T201 - a line a change


def line(status: StudyStatus) -> str:
    """The study in one line, without times and costs, which change at each read."""
    parts = [headline(status), *best_so_far(status)[:1]]
    if status.failures:
        parts.append(f"failed: {counts(status.failures)}")
    pending = [job for job in status.jobs if job.state == "PENDING"]
    if pending:
        reasons = "; ".join(sorted({job.why for job in pending if job.why}))
        parts.append(f"{len(pending)} jobs wait ({reasons})" if reasons else f"{len(pending)} jobs wait")
    parts += [f"new jobs exclude node {host}" for host in status.bad_nodes]
    if status.stop and status.state != "done":
        parts.append(f"stopped: {status.stop.text}")
    if status.repeats is not None:
        parts.append(headline(status.repeats))
    if status.opening is not None and status.opening_runs:
        parts.append(headline(status.opening))
    return "; ".join(parts)
