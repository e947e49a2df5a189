"""Verbs that take results out of a study and bring in those of other tools: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpotune.cli.common import RESULTS, Folder, Target, app, print_note, say

_FORMATS = "study, script, axolotl, trl, llama-factory or litgpt"


@app.command(rich_help_panel=RESULTS)
def export(
    study: Target,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUT]", help="The folder to write; it must not exist. With --push it may be left out."
        ),
    ] = None,
    folder: Folder = None,
    trial: Annotated[
        int | None, typer.Option("--trial", help="The trial's number [default: the best].")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write merged weights instead of the adapter.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option("--as", metavar="FORMAT", help=f"Write the setting instead of weights: {_FORMATS}."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="REPO", help="Upload to the Hugging Face hub, as NAMESPACE/NAME."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: make the repository private.")
    ] = False,
) -> None:
    """Write the best adapter, or its setting for another tool.

    Beside the adapter: a model card, and the values as a study file without ranges (setting.yaml). --merge writes
    merged weights instead, after comparing their loss with that of base model and adapter. --as writes no weights, but
    the setting as a study file, a program with torch, transformers and peft only, or a config of axolotl, TRL,
    LLaMA-Factory or litgpt, with the rows that the trial trained. What a tool cannot say is printed and is in the
    file's header.
    """
    from hpotune.api.export_study import ExportOptions, export_study

    options = ExportOptions(trial=trial, merge=merge, form=form, push=push, private=private)
    done = export_study(study, folder, out=out, options=options, note=print_note, wrote=say)
    for note in done.notes:
        print_note(f"{form}: {note}")
    if form is not None:
        say(f"wrote {done.written}")
    if done.uploaded is not None:
        say(f"uploaded {done.uploaded}")


@app.command("import", rich_help_panel=RESULTS)
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A file, a folder, or the URL of an Optuna storage.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The study file to write.")] = Path(
        "study.yaml"
    ),
    form: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="FORMAT", help="optuna, csv, wandb, ray or katib [default: as it looks]."
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="The study, where a storage has several.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Of csv and ray: which number is the value."),
    ] = None,
    direction: Annotated[
        str | None, typer.Option("--direction", help="Of csv and ray: minimize or maximize.")
    ] = None,
) -> None:
    """Write a study file from a study of another tool.

    Reads an Optuna storage, a CSV file of trials, a sweep of Weights & Biases, a results folder of Ray Tune or an
    Experiment of Katib. Its trials are written beside the study file as NAME_trials.csv, and the search of the
    new study learns from them. Nothing of the source is run or unpickled. What cannot be taken over is printed and
    is in the file's header.
    """
    from hpotune.exchange.imports.import_study import import_study

    written = import_study(source, out=out, kind=form, study=study, metric=metric, direction=direction)
    for note in written.notes:
        say(f"note: {note}", err=True)
    if written.trials_file is not None:
        say(f"wrote {written.trials_file}: {written.trials} trials of the {written.origin}")
    say(f"wrote {written.file}; next: hpotune check --static {written.file}")
