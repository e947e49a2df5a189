"""The verb that opens the sealed test."""

from __future__ import annotations

from typing import Annotated

import typer

from hpotune.cli.common import (
    RUN,
    AsJson,
    Folder,
    Target,
    app,
    chosen_where,
    print_json,
    printed_messages,
    say,
    show,
)


@app.command("test", rich_help_panel=RUN)
def sealed_test(
    study: Target,
    trials: Annotated[
        str | None,
        typer.Option("--trials", metavar="N,N", help="These trials instead of the finalists; recorded."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Open it once more; every later output says how often it was opened."),
    ] = False,
    here: Annotated[
        bool, typer.Option("--here", help="On this machine, even if the search ran on Slurm.")
    ] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="On Slurm, even if the search ran on this machine.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Open the sealed test: score the finalists on score.test.

    The base model is scored too. Only after the search has ended, and once; it is recorded who opened it, when and for
    which trials. Called again, it continues an interrupted opening, or shows the result.
    """
    from hpotune.api.sealed_test_opening import SealedTestOptions, open_sealed_test
    from hpotune.errors import HpotuneError
    from hpotune.reporting.sealed_table import sealed_table

    where = chosen_where(here=here, slurm=slurm)
    options = SealedTestOptions(trials=_numbers(trials), again=again, where=where)
    opened = open_sealed_test(study, folder, options, messages=printed_messages(progress=not as_json))
    print_json(opened.result) if as_json else show(sealed_table(opened.result))
    if opened.failure:
        raise HpotuneError(opened.failure)
    if not opened.finished:
        say(f"interrupted; `hpotune test {study}` continues it", err=True)
        raise typer.Exit(130)


def _numbers(trials: str | None) -> list[int]:
    """The numbers in `3,7`. Raises: StudyFileError."""
    from hpotune.errors import StudyFileError

    words = [word.strip() for word in (trials or "").split(",") if word.strip()]
    wrong = [word for word in words if not (word.isascii() and word.isdigit())]
    if wrong or (trials is not None and not words):
        raise StudyFileError(f"--trials {trials!r}: needs numbers of trials, such as 3,7")
    return list(dict.fromkeys(int(word) for word in words))
