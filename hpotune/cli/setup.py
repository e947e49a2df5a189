"""Verbs before a study runs: init and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpotune.cli.common import SET_UP, AsJson, app, print_json, say, show


@app.command(rich_help_panel=SET_UP)
def init(
    template: Annotated[
        str | None, typer.Argument(metavar="TEMPLATE", help="A template's name; without one they are listed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write [default: TEMPLATE.yaml].")
    ] = None,
) -> None:
    """Write a commented study file to start from."""
    from hpotune.config.templates import copy_template, list_templates

    if template is None:
        for name, sentence in list_templates():
            say(f"{name:<22} {sentence}")
        return
    say(f"wrote {copy_template(template, out)}; next: hpotune check {out or template + '.yaml'}")


@app.command(rich_help_panel=SET_UP)
def doctor(
    study: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY", help="A study file or folder [default: this folder].", show_default=False
        ),
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Check this machine: Slurm, file locks, GPUs, libraries, store.

    Each finding says what to change, where something is wrong.
    """
    from hpotune.checks.doctor import exit_code, findings
    from hpotune.reporting.tables import findings_table

    found = findings(study)
    print_json([finding.as_json() for finding in found]) if as_json else show(findings_table(found))
    if code := exit_code(found):
        raise typer.Exit(code)
