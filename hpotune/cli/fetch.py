"""The verb that brings models, data and tasks onto this machine: fetch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import SET_UP, AsJson, DataRoot, Folder, Target, app, print_json, say, show

if TYPE_CHECKING:
    from hpotune.records.fetch_record import FetchProgress


@app.command(rich_help_panel=SET_UP)
def fetch(
    study: Target,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download without asking.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="The newest commits, not those of the last fetch.")
    ] = False,
    folder: Folder = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Download what trials read: model, data, lm-eval tasks.

    For compute nodes without internet: run it on the login node. It shows the size and asks; a download that was cut
    goes on where it was. Commits and hashes are written to fetched.lock.json in the study's folder, and trials read
    those commits.
    """
    from hpotune.checks.study_file import check as check_file
    from hpotune.errors import StudyFileError
    from hpotune.launch.fetch_study import check_space, download, list_files
    from hpotune.reporting.fetch_table import fetch_json, fetch_table, space_text

    checked = check_file(study, chosen=folder, data_root=data_root)
    progress = ProgressLine(silent=as_json)
    with progress:
        found = list_files(checked.study, checked.folder, update=update, show=progress.show)
    free = check_space(found)
    if not as_json:
        show(fetch_table(found))
        for warning in found.warnings:
            say(f"warning: {warning}", err=True)
        say(space_text(found, free))
    if found.missing and not yes and not _agreed():
        raise StudyFileError("nothing was downloaded; give --yes to download without a question")
    if not found.items:
        if as_json:
            print_json(fetch_json(found, None))
        return
    with progress:
        lock = download(found, checked.study, checked.folder, show=progress.show)
    if as_json:
        print_json(fetch_json(found, lock))
        return
    say(f"verified {sum(len(one.files) for one in lock.items)} files; wrote {checked.folder.path / LOCK}")
    say(f"next: hpotune check {study}")


LOCK = "fetched.lock.json"


def _agreed() -> bool:
    return sys.stdin.isatty() and typer.confirm("Download?", default=True, err=True)


class ProgressLine:
    """Progress on stderr: one line that changes on a terminal, else a line for each step."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._shown = ""

    def __enter__(self) -> None:
        self._shown = ""

    def __exit__(self, *_: object) -> None:
        if self._terminal and not self._silent:
            typer.echo("\r\x1b[K", nl=False, err=True)

    def show(self, line: FetchProgress) -> None:
        """Show the step, the name of what is fetched, and how much of it is there."""
        from hpotune.config.text.outside_text import console_text
        from hpotune.reporting.fetch_table import progress_text

        if self._silent:
            return
        if self._terminal:
            typer.echo(f"\r\x1b[K{console_text(progress_text(line))}", nl=False, err=True)
        elif line.step != self._shown:
            self._shown = line.step
            say(f"fetch: {line.step}", err=True)
