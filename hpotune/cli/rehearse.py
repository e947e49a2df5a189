"""Verbs that look at a study before it runs: check and preview; and the options of the rehearsal for run and submit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import (
    SET_UP,
    AsJson,
    DataRoot,
    Target,
    app,
    print_json,
    print_note,
    print_warning,
    say,
    show,
)

if TYPE_CHECKING:
    from hpotune.api.check_study import CheckResult

Memory = Annotated[
    float, typer.Option("--memory", min=0.5, metavar="GB", help="Memory that the rehearsal may use.")
]
Time = Annotated[
    float, typer.Option("--time", min=1, metavar="SECONDS", help="Time that the rehearsal may take.")
]
NoRehearsal = Annotated[
    bool, typer.Option("--no-rehearsal", help="Start without a rehearsal; the study records it.")
]
MEMORY_GB, TIME_S = 2.0, 600.0
PREVIEW_ROWS = 4


@app.command(rich_help_panel=SET_UP)
def check(
    study: Target,
    static: Annotated[
        bool, typer.Option("--static", help="Check the file only, without a rehearsal of its trials.")
    ] = False,
    memory: Memory = MEMORY_GB,
    time: Time = TIME_S,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Check a study file, and rehearse its trials without weights.

    Every error has its line. The rehearsal does on one core what a trial does before its first step: all rows, all
    requests of the lm-eval tasks, the model on no device with the adapter of each end of the ranges.
    """
    from hpotune.api.check_study import check_study
    from hpotune.checks.rehearsal import Limits

    limits = Limits(memory_gb=memory, seconds=time)
    found = check_study(study, data_root=data_root, rehearse=not static, limits=limits, silent=as_json)
    if not found.ok and as_json:
        print_json({"ok": False, "mistakes": found.mistakes, "warnings": []})
        raise typer.Exit(2)
    found.raise_mistakes()
    _print_checked(study, found, as_json=as_json)


def _print_checked(study: Path, found: CheckResult, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "ok": True,
                "mistakes": [],
                "warnings": found.warnings,
                "parameters": found.parameters,
                "starts": found.starts,
                "preset": found.preset,
                "rehearsal": found.rehearsal,
            }
        )
        return
    for warning in found.warnings:
        print_warning(warning)
    for note in found.notes:
        print_note(note)
    say(f"{study} is valid: {found.trials} trials over {', '.join(found.parameters) or 'no parameter'}")
    if found.rehearsal is not None:
        from hpotune.reporting.rehearsal_table import rehearsal_summary

        say(rehearsal_summary(found.rehearsal, again=found.rehearsed_before))
    if found.starts:
        say(found.starts)


@app.command(rich_help_panel=SET_UP)
def preview(
    study: Target,
    rows: Annotated[
        int | None, typer.Option("--rows", min=0, help="Rows to print [default: 4; all with --json].")
    ] = None,
    memory: Memory = MEMORY_GB,
    time: Time = TIME_S,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Show the rows as they will be trained.

    Their text, the part that the loss counts, tokens, rows that are left out and why, lengths, and a request of each
    lm-eval task. With ranges under model or data: those of the first point.
    """
    from hpotune.api.rehearsed_start import shown_rehearsal
    from hpotune.checks.rehearsal import Limits
    from hpotune.checks.study_file import check as check_file
    from hpotune.errors import HpotuneError
    from hpotune.reporting.rehearsal_table import preview_json, preview_table

    checked = check_file(study, data_root=data_root)
    limits = Limits(memory_gb=memory, seconds=time)
    rehearsal = shown_rehearsal(
        checked.study, limits=limits, preview=True, silent=as_json, folder=checked.folder
    )
    if rehearsal.result is None:
        raise HpotuneError(f"nothing to preview: {rehearsal.skipped}")
    if not rehearsal.result.rows:
        rehearsal.raise_mistakes(checked.study)
    if as_json:
        print_json(preview_json(rehearsal.result, rows=rows))
    else:
        show(preview_table(rehearsal.result, rows=PREVIEW_ROWS if rows is None else rows))
    rehearsal.raise_mistakes(checked.study)
