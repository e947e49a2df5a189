"""What all verbs share: their arguments, how the study is opened, and how results are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

    from hpotune.api.call_messages import Messages
    from hpotune.api.continue_study import Where
    from hpotune.config.load import Study
    from hpotune.storage import TrialQueue
    from hpotune.workspace.folder import StudyFolder

SET_UP = "Set up"
RUN = "Run"
LOOK = "Look"
RESULTS = "Results"
SEARCH = "Search without a study"
JOBS = "Jobs"
COURSES = "Courses"
PANELS = (SET_UP, RUN, LOOK, RESULTS, SEARCH, COURSES, JOBS)
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
    from hpotune.api.opened_study import open_study as opened

    return opened(target, chosen, note=print_note, write=write, patient=patient)


def load_study_of(target: Path, chosen: Path | None) -> tuple[StudyFolder, Study]:
    """The folder and its study. Prints a note where the study file has changed into another study since."""
    from hpotune.api.opened_study import load_study_of as loaded

    return loaded(target, chosen, note=print_note)


def chosen_where(*, here: bool, slurm: bool) -> Where | None:
    """What --here and --slurm choose; None: neither.

    Raises: StudyFileError for both.
    """
    from hpotune.errors import StudyFileError

    if here and slurm:
        raise StudyFileError("--here and --slurm exclude each other; give one of them")
    return "here" if here else "slurm" if slurm else None


def say(text: str, *, err: bool = False) -> None:
    """Prints text to stdout or stderr; characters that a terminal would act on are shown instead."""
    from hpotune.config.text.outside_text import console_text

    typer.echo(console_text(text), err=err)


def print_note(note: str) -> None:
    """Prints a note to stderr."""
    say(f"note: {note}", err=True)


def print_info(text: str) -> None:
    """Prints to stderr what happens now."""
    say(text, err=True)


def print_warning(text: str) -> None:
    """Prints a warning to stderr."""
    say(f"warning: {text}", err=True)


def printed_messages(*, progress: bool) -> Messages:
    """Messages that a verb prints to stderr. `progress`: with the progress of trials and rehearsals."""
    from hpotune.api.call_messages import Messages

    return Messages(info=print_info, note=print_note, warning=print_warning, progress=progress)


def print_json(result: object) -> None:
    """Prints a view, a list of views, or plain values as one JSON document."""
    from hpotune.reporting.json_output import as_json

    typer.echo(json.dumps(as_json(result), indent=1))


def show(renderable: object) -> None:
    """Prints a table or text."""
    from hpotune.reporting.console import print_report

    print_report(renderable)
