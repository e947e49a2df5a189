"""What all verbs share: their arguments, the study they name, and how an answer is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hpotune.config.load import Study
    from hpotune.config.schema.study_config import Json
    from hpotune.storage import Store
    from hpotune.workspace.folder import StudyFolder

app = typer.Typer(
    help="Finds good hyperparameters for fine-tuning a language model, here or on a Slurm cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file, or the study's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]
Folder = Annotated[
    Path | None, typer.Option("--folder", help="The study's folder [NAME beside the study file].")
]
DataRoot = Annotated[
    str | None,
    typer.Option(
        "--data-root", envvar="HPOTUNE_DATA_ROOT", help="A folder in which NAMESPACE/NAME wins over the hub."
    ),
]


def opened(
    target: Path, chosen: Path | None, *, write: bool = False, patient: bool = False
) -> tuple[StudyFolder, Study, Store]:
    """The folder, the study and its store; for reading unless asked otherwise."""
    from hpotune.storage import Store

    place, study = located(target, chosen)
    url = str(place.provenance()["store"])
    return place, study, Store.open(url, study, read_only=not write, patient=patient)


def located(target: Path, chosen: Path | None) -> tuple[StudyFolder, Study]:
    """The folder and the study in it; tells where the file that was named has become another one."""
    from hpotune.workspace.folder import folder_of

    place = folder_of(target, chosen=chosen)
    study = place.load()
    tell(_edited(target, place))
    return place, study


def _edited(target: Path, place: StudyFolder) -> list[str]:
    """Whether the study file that was named has become another study than its folder's, which is the one told of."""
    if not target.is_file() or target.resolve().parent == place.path:
        return []
    from hpotune.config.paths import absolute
    from hpotune.config.yaml_source import read_source
    from hpotune.errors import StudyFileError
    from hpotune.workspace.folder import home_of, other_study

    try:
        values = absolute(read_source(target).values, home=home_of(target), found={})
        values.setdefault("data_root", read_source(place.resolved_file).values.get("data_root"))
        told = other_study(place, {key: value for key, value in values.items() if value is not None})
    except StudyFileError:  # `check` tells what is wrong with it
        return []
    return [told] if told else []


def tell(notes: Sequence[str]) -> None:
    """Lines that the user should see, whatever else is printed."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def tell_best(place: StudyFolder, study: Study, store: Store, *, as_json: bool) -> None:
    from hpotune.report import summary, tables

    told = summary.best(place, study.config, store.rows())
    print_json(told) if as_json else show(tables.best(told))


def print_json(value: Json) -> None:
    typer.echo(json.dumps(value, indent=1))


def show(renderable: object) -> None:
    from hpotune.report.console import plain_console

    width = None if sys.stdout.isatty() else 200
    plain_console(width=width, soft_wrap=not sys.stdout.isatty()).print(renderable)
