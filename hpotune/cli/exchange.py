"""Verbs that take results out of a study and bring in those of other tools: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpotune.cli.common import RESULTS, Folder, Target, app, load_study_of, say

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
    from hpotune.errors import StudyFileError

    if private and push is None:
        raise StudyFileError("--private: has no meaning without --push")
    if form is not None and (merge or push is not None):
        other = "--merge" if merge else "--push"
        raise StudyFileError(
            f"{other}: is for weights, and --as {form} writes none; leave one of the two out"
        )
    if out is None and push is None:
        raise StudyFileError("export: needs OUT, the folder to write; or --push NAMESPACE/NAME")
    if form is not None and out is not None:
        _export_setting(study, folder, out, number=trial, form=form)
    else:
        _export_weights(study, folder, out, number=trial, merge=merge, push=push, private=private)


def _export_setting(study: Path, folder: Path | None, out: Path, *, number: int | None, form: str) -> None:
    from hpotune.exchange.setting_export import export_setting
    from hpotune.records.derived_points import check_not_derived
    from hpotune.storage.readers.read_only import rows_of

    found, loaded = load_study_of(study, folder)
    check_not_derived(found.path, loaded.config, verb="export", advice="export that study")
    rows = rows_of(found.provenance().store, loaded)
    written = export_setting(found, loaded, rows, out=out, number=number, form=form)
    for note in written.notes:
        say(f"note: {form}: {note}", err=True)
    say(f"wrote {written.file}")


def _export_weights(
    study: Path,
    folder: Path | None,
    out: Path | None,
    *,
    number: int | None,
    merge: bool,
    push: str | None,
    private: bool,
) -> None:
    import tempfile

    from hpotune.exchange.export import export_trial
    from hpotune.exchange.hub_upload import check_upload, upload
    from hpotune.records.derived_points import check_not_derived
    from hpotune.storage.readers.read_only import rows_of

    if push is not None:
        check_upload(push)
    found, loaded = load_study_of(study, folder)
    check_not_derived(found.path, loaded.config, verb="export", advice="export that study")
    rows = rows_of(found.provenance().store, loaded)
    with tempfile.TemporaryDirectory(prefix="hpotune-export-") as temporary:
        target = out if out is not None else Path(temporary) / "export"
        export_trial(found, loaded, rows, out=target, number=number, merge=merge)
        if out is not None:
            say(f"wrote {out}")
        if push is not None:
            say(f"uploaded {upload(target, push, private=private)}")


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
