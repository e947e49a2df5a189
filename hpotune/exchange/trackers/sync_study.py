"""Sends what a tracker does not have yet, and records it in STUDY/trackers/sent.json: a second call sends only news."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpotune.config.json_file import decoding, read_object
from hpotune.config.load import Study
from hpotune.config.text.secret_text import masked
from hpotune.errors import HpotuneError, inner_reason
from hpotune.exchange.trackers.tracked_study import TrackedRun, TrackedStudy, tracked_study
from hpotune.records.trial import TrialRow
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.lock import try_exclusive_lock

FOLDER = "trackers"
"""In the study's folder."""


class Tracker(Protocol):
    """One tracker at one destination. A run that is sent again replaces what it had, or adds what is new."""

    @property
    def destination(self) -> str:
        """Its kind and address, without secrets; sent.json has a list of runs for each."""
        ...

    def begin(self, study: TrackedStudy) -> None:
        """Make what holds the runs, unless it is there."""
        ...

    def send(self, run: TrackedRun) -> None:
        """Make the run of a trial, or bring the one that is there up to date."""
        ...

    def end(self) -> str:
        """Say that all is sent; `begin` was not called where nothing was new. Returns how to look at the runs."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncResult:
    """What a call of `hpotune sync` did."""

    destination: str
    sent: tuple[str, ...]
    """Runs that were made or brought up to date."""
    unchanged: int
    """Runs that the tracker had already."""
    active: int
    """Started trials that have not ended; a later call sends them."""
    next: str
    """How to look at the runs."""


def sync_study(
    folder: StudyFolder,
    study: Study,
    rows: Sequence[TrialRow],
    tracker: Tracker,
    *,
    again: bool = False,
) -> SyncResult:
    """Send the ended trials that the tracker does not have as they are now; `again`: all of them.

    Raises: HpotuneError with the tracker's reason, or while another process sends; DamagedFileError for sent.json.
    """
    own = folder.path / FOLDER
    own.mkdir(exist_ok=True)
    with try_exclusive_lock(own / ".sync.lock", what="`hpotune sync` of this study"):
        state = _read(own / "sent.json")
        _write(own / "sent.json", state)  # the identity, before anything is sent under it
        tracked = tracked_study(folder, study, rows, identity=state["study"])
        known: dict[str, str] = state["sent"].setdefault(tracker.destination, {})
        new = [run for run in tracked.runs if again or known.get(run.key) != run.fingerprint]
        try:
            if new:
                tracker.begin(tracked)
            for run in new:
                tracker.send(run)
                known[run.key] = run.fingerprint
                _write(own / "sent.json", state)
            then = tracker.end()
        except HpotuneError:
            raise
        except Exception as error:  # each library has a tree of errors of its own
            if (
                isinstance(error, OSError) and error.filename is not None
            ):  # of the disk; those of a network have no file
                raise
            raise HpotuneError(
                f"{tracker.destination}: {masked(inner_reason(error))}; {len(known)} of {len(tracked.runs)} runs are "
                "there, and the same call sends the rest"
            ) from error
    return SyncResult(
        destination=tracker.destination,
        sent=tuple(run.key for run in new),
        unchanged=len(tracked.runs) - len(new),
        active=tracked.active,
        next=then,
    )


def _read(file: Path) -> dict[str, Any]:
    """The study's identity and what was sent; a new identity where the file is missing.

    Raises: DamagedFileError.
    """
    if not file.exists():
        return {"study": secrets.token_hex(8), "sent": {}}
    step = "move it away: runs are then sent as those of another study"
    with decoding(file, next_step=step):
        found = read_object(file, next_step=step)
        sent = {
            str(where): {str(k): str(v) for k, v in runs.items()} for where, runs in found["sent"].items()
        }
        if not (isinstance(found["study"], str) and found["study"].isalnum()):
            raise ValueError("study is no identity")
        return {"study": found["study"], "sent": sent}


def _write(file: Path, state: dict[str, Any]) -> None:
    write_atomic(file, json.dumps(state, indent=1) + "\n")
