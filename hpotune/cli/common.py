"""What all verbs share: their arguments, how the study is opened, and how results are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

    from hpotune.config.load import Study
    from hpotune.storage import TrialQueue
    from hpotune.workspace.folder import StudyFolder

SET_UP = "Set up"
RUN = "Run"
LOOK = "Look"
RESULTS = "Results"
SEARCH = "Search without a study"
JOBS = "Jobs"
PANELS = (SET_UP, RUN, LOOK, RESULTS, SEARCH, JOBS)
"""Groups of verbs, in the order of `--help`."""


class VerbGroup(TyperGroup):
    """All verbs; `--help` lists them by their panel, each with the first sentence of its help."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes the verbs of each panel. Click's own list has no panels without rich, which is slow to import."""
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        wide = max(len(name) for name, _ in verbs)
        for panel in PANELS:
            rows = [
                (f"{name:<{wide}}", verb.get_short_help_str(limit=1000))
                for name, verb in verbs
                if verb is not None and not verb.hidden and getattr(verb, "rich_help_panel", None) == panel
            ]
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=VerbGroup,
    help="Finds good hyperparameters for fine-tuning language models, here or on Slurm.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file, or the study's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="The study's folder [default: NAME, beside the study file]."),
]
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt", help="Go on with trials that the store holds of this study, whose folder is gone."
    ),
]
DataRoot = Annotated[
    str | None,
    typer.Option(
        "--data-root",
        envvar="HPOTUNE_DATA_ROOT",
        help="A folder of datasets: NAMESPACE/NAME in it is preferred to the hub's.",
    ),
]


def open_study(
    target: Path, chosen: Path | None, *, write: bool = False, patient: bool = False
) -> tuple[StudyFolder, Study, TrialQueue]:
    """The folder, the study and its store, which is read-only unless `write`."""
    from hpotune.storage import TrialQueue

    folder, study = load_study_of(target, chosen)
    url = folder.provenance().store
    return folder, study, TrialQueue.open(url, study, read_only=not write, patient=patient)


def load_study_of(target: Path, chosen: Path | None) -> tuple[StudyFolder, Study]:
    """The folder and its study. Prints a note where the study file has changed into another study since."""
    from hpotune.workspace.folder import folder_of

    folder = folder_of(target, chosen=chosen)
    study = folder.load()
    print_notes(_changed_file(target, folder))
    return folder, study


def _changed_file(target: Path, folder: StudyFolder) -> list[str]:
    """A note where the study file differs from the study in the folder, which is the one that is shown."""
    if not target.is_file() or target.resolve().parent == folder.path:
        return []
    from hpotune.config.paths import resolve
    from hpotune.config.yaml_source import read_source
    from hpotune.errors import StudyFileError
    from hpotune.workspace.folder import difference_message, home_of

    try:
        values = resolve(read_source(target), home=home_of(target))[0].values
        resolved = folder.read_resolved().values
        values.setdefault("data_root", resolved.get("data_root"))
        note = difference_message(folder, {key: value for key, value in values.items() if value is not None})
        if values.get("best") != resolved.get("best"):
            note = note or (
                f"the rule `best` of {target.name} has changed: `hpotune resume` applies it, "
                "`hpotune best --rule` tries one"
            )
    except StudyFileError:  # `check` reports its errors
        return []
    return [note] if note else []


def say(text: str, *, err: bool = False) -> None:
    """Prints text to stdout or stderr; characters that a terminal would act on are shown instead."""
    from hpotune.config.text.outside_text import console_text

    typer.echo(console_text(text), err=err)


def print_notes(notes: Sequence[str]) -> None:
    """Prints a line a note to stderr."""
    for note in notes:
        say(f"note: {note}", err=True)


def print_best(folder: StudyFolder, study: Study, store: TrialQueue, *, as_json: bool) -> None:
    """Prints the best trial so far."""
    from hpotune.report.best_table import best_table
    from hpotune.report.views.best import best_result

    result = best_result(folder, study.config, store.rows())
    print_json(result) if as_json else show(best_table(result))


def print_json(result: object) -> None:
    """Prints a view, a list of views, or plain values as one JSON document."""
    from hpotune.report.json_output import as_json

    typer.echo(json.dumps(as_json(result), indent=1))


def show(renderable: object) -> None:
    """Prints a table or text."""
    from hpotune.report.console import print_report

    print_report(renderable)
