"""Verbs before a study runs: init, check, doctor, and export after it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpotune.cli.common import AsJson, DataRoot, Folder, Target, app, opened, print_json, show


@app.command()
def init(
    template: Annotated[
        str | None, typer.Argument(help="A template's name; without one they are listed.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write [TEMPLATE.yaml].")] = None,
) -> None:
    """Write a commented study file to start from."""
    from hpotune.config.templates import copy_template, list_templates

    if template is None:
        for name, sentence in list_templates():
            typer.echo(f"{name:<22} {sentence}")
        return
    typer.echo(f"wrote {copy_template(template, out)}; next: hpotune check {out or template + '.yaml'}")


@app.command()
def check(study: Target, data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """Read the file and report every mistake with its line."""
    from hpotune.checks.study_file import check as check_file
    from hpotune.errors import StudyFileError
    from hpotune.search.start_points import told

    try:
        checked = check_file(study / "resolved.yaml" if study.is_dir() else study, data_root=data_root)
    except StudyFileError as error:
        if as_json:
            print_json({"ok": False, "mistakes": list(error.mistakes), "warnings": []})
            raise typer.Exit(error.exit_code) from None
        raise
    config, space = checked.study.config, checked.study.space
    if as_json:
        print_json(
            {
                "ok": True,
                "mistakes": [],
                "warnings": checked.warnings,
                "parameters": [r.name for r in space.searched],
                "starts": told(checked.starts),
            }
        )
        return
    for warning in checked.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for note in checked.notes:
        typer.echo(f"note: {note}", err=True)
    names = ", ".join(r.name for r in space.searched) or "nothing"
    typer.echo(f"{study}: right. {config.name}: {config.budget.trials} trials over {names}")
    if checked.starts:
        typer.echo(told(checked.starts))


@app.command()
def doctor(
    place: Annotated[
        Path, typer.Argument(metavar="[STUDY]", help="A study file or folder; [this folder].")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Look at Slurm, the file system's locks, GPUs, libraries, caches and the store; say what to change."""
    from hpotune.checks.doctor import exit_code, findings
    from hpotune.report.tables import doctor as doctor_table

    found = findings(place)
    print_json([finding.as_json() for finding in found]) if as_json else show(
        doctor_table([finding.as_json() for finding in found])
    )
    if code := exit_code(found):
        raise typer.Exit(code)


@app.command()
def export(
    study: Target,
    out: Annotated[Path, typer.Argument(help="The folder to write; must not exist.")],
    folder: Folder = None,
    trial: Annotated[int | None, typer.Option("--trial", help="Another trial than the best.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Whole weights instead of an adapter.")] = False,
) -> None:
    """Write the best adapter (or merged weights) with a model card, and its setting as a study file without ranges."""
    from hpotune.exchange.export import export_trial

    place, ours, store = opened(study, folder)
    typer.echo(f"wrote {export_trial(place, ours, store.rows(), out=out, number=trial, merge=merge)}")
