"""The verb that brings models, data and tasks onto this machine: fetch."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hpotune.cli.common import SET_UP, AsJson, DataRoot, Folder, Target, app, print_json, say, show


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
    from hpotune.reporting.fetch_table import fetch_json, fetch_table, shown_on, space_text
    from hpotune.reporting.progress.progress_line import progress_line

    checked = check_file(study, chosen=folder, data_root=data_root)
    with progress_line(silent=as_json) as line:
        found = list_files(checked.study, checked.folder, update=update, show=shown_on(line))
    free = check_space(found, checked.study)
    if not as_json:
        if found.items:
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
    with progress_line(silent=as_json) as line:
        lock = download(found, checked.study, checked.folder, show=shown_on(line))
    if as_json:
        print_json(fetch_json(found, lock))
        return
    say(f"verified {sum(len(one.files) for one in lock.items)} files; wrote {checked.folder.path / LOCK}")
    say(f"next: hpotune check {study}")


LOCK = "fetched.lock.json"


def _agreed() -> bool:
    return sys.stdin.isatty() and typer.confirm("Download?", default=True, err=True)
