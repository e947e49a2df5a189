"""Verbs that look at a study before it runs: check and preview; and the options of the rehearsal for run and submit."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import SET_UP, AsJson, DataRoot, Target, app, print_json, say, show

if TYPE_CHECKING:
    from hpotune.checks.rehearsal import Rehearsal
    from hpotune.checks.study_file import Checked
    from hpotune.config.load import Study
    from hpotune.workspace.folder import StudyFolder

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
    from hpotune.checks.study_file import check as check_file
    from hpotune.errors import StudyFileError

    try:
        checked = check_file(study, data_root=data_root)
        rehearsal = None
        if not static and checked.study.config.model is not None:
            rehearsal = _rehearse(checked.study, memory=memory, time=time, silent=as_json)
        if rehearsal is not None:
            rehearsal.raise_mistakes(checked.study)
    except StudyFileError as error:
        if as_json:
            print_json({"ok": False, "mistakes": error.mistakes, "warnings": []})
            raise typer.Exit(error.exit_code) from None
        raise
    _print_checked(study, checked, rehearsal, static=static, as_json=as_json)


def _cluster_warnings(checked: Checked) -> list[str]:
    """What this machine's Slurm says of the study's GPUs, and files that compute nodes do not see."""
    from hpotune.checks.gpus import gpu_type_findings
    from hpotune.checks.node_local import node_local_findings

    config = checked.study.config
    found = [*gpu_type_findings(config), *node_local_findings(config, checked.folder)]
    return [finding.message(checked.study.source) for finding in found]


def _print_checked(
    study: Path, checked: Checked, rehearsal: Rehearsal | None, *, static: bool, as_json: bool
) -> None:
    from hpotune.planning.memory_plan import memory_note, memory_plan
    from hpotune.search.start_points import start_points_text

    config, searched = checked.study.config, [one.name for one in checked.study.space.searched]
    warnings = checked.warnings + ([] if static else _cluster_warnings(checked))
    memory = memory_plan(checked.study)
    if memory is not None and (note := memory_note(memory)):
        warnings.append(note)
    if rehearsal is not None:
        warnings += [finding.message(checked.study.source) for finding in rehearsal.findings]
    warnings = list(dict.fromkeys(warnings))  # both find that the tasks are asked in another form
    if as_json:
        print_json(
            {
                "ok": True,
                "mistakes": [],
                "warnings": warnings,
                "parameters": searched,
                "starts": start_points_text(checked.starts),
                "rehearsal": rehearsal.result if rehearsal is not None else None,
            }
        )
        return
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    for note in (*checked.notes, *checked.unused_studies()):
        say(f"note: {note}", err=True)
    say(f"{study} is valid: {config.budget.trials} trials over {', '.join(searched) or 'no parameter'}")
    if rehearsal is not None and rehearsal.result is not None:
        from hpotune.report.rehearsal_table import rehearsal_summary

        say(rehearsal_summary(rehearsal.result, again=rehearsal.again))
    if checked.starts:
        say(start_points_text(checked.starts))


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
    from hpotune.checks.study_file import check as check_file
    from hpotune.errors import HpotuneError
    from hpotune.report.rehearsal_table import preview_json, preview_table

    checked = check_file(study, data_root=data_root)
    rehearsal = _rehearse(checked.study, memory=memory, time=time, preview=True, silent=as_json)
    if rehearsal.result is None:
        raise HpotuneError(f"nothing to preview: {rehearsal.skipped}")
    if not rehearsal.result.rows:
        rehearsal.raise_mistakes(checked.study)
    if as_json:
        print_json(preview_json(rehearsal.result, rows=rows))
    else:
        show(preview_table(rehearsal.result, rows=PREVIEW_ROWS if rows is None else rows))
    rehearsal.raise_mistakes(checked.study)


@dataclass(kw_only=True)
class FirstRehearsal:
    """The rehearsal of a study that is about to run, and its record in the study's folder."""

    skip: bool
    memory: float
    time: float
    silent: bool
    done: Rehearsal | None = None

    def rehearse(self, study: Study) -> None:
        """Rehearse the study unless that is skipped or it is no fine-tuning; prints the warnings of a new rehearsal.

        Raises: StudyFileError with every mistake; HpotuneError if it could not be finished.
        """
        if self.skip or study.config.model is None:
            return
        self.done = _rehearse(study, memory=self.memory, time=self.time, silent=self.silent)
        self.done.raise_mistakes(study, complete=True)
        if not self.done.again:
            for finding in self.done.findings:
                say(f"warning: {finding.message(study.source)}", err=True)

    def record(self, folder: StudyFolder) -> None:
        """Write the study's rehearsal.json, if it was rehearsed here or that was skipped."""
        from hpotune.checks.rehearsal import record_rehearsal

        if self.skip or self.done is not None:
            record_rehearsal(folder, self.done)


def _rehearse(study: Study, *, memory: float, time: float, silent: bool, preview: bool = False) -> Rehearsal:
    """The rehearsal, with its progress on stderr: one line that changes on a terminal, else a line for each step."""
    from hpotune.checks.rehearsal import Limits, rehearse
    from hpotune.config.text.outside_text import console_text

    terminal, shown = sys.stderr.isatty(), ""

    def print_progress(text: str) -> None:
        nonlocal shown
        if terminal:
            typer.echo(f"\r\x1b[K{console_text(text)}", nl=False, err=True)
        elif text.rstrip("0123456789,of ") != shown:
            shown = text.rstrip("0123456789,of ")
            say(text, err=True)

    limits = Limits(memory_gb=memory, seconds=time)
    try:
        return rehearse(
            study, limits=limits, preview=preview, show=(lambda _: None) if silent else print_progress
        )
    finally:
        if terminal and not silent:
            typer.echo("\r\x1b[K", nl=False, err=True)
