"""The verbs. Each takes a study file or a study's folder; imports stand inside bodies so that `--help` is instant."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from hpotune.store import Store
    from hpotune.study.config import Json
    from hpotune.study.folder import StudyFolder
    from hpotune.study.load import Study

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


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    os.environ["HPOTUNE_DEBUG"] = "1" if debug else os.environ.get("HPOTUNE_DEBUG", "")


@app.command()
def init(
    template: Annotated[
        str | None, typer.Argument(help="A template's name; without one they are listed.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write [TEMPLATE.yaml].")] = None,
) -> None:
    """Write a commented study file to start from."""
    from hpotune.templates import copy_template, list_templates

    if template is None:
        for name, sentence in list_templates():
            typer.echo(f"{name:<22} {sentence}")
        return
    typer.echo(f"wrote {copy_template(template, out)}; next: hpotune check {out or template + '.yaml'}")


@app.command()
def check(study: Target, data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """Read the file and report every mistake with its line."""
    from hpotune.errors import StudyFileError
    from hpotune.launch.prepare import check as check_file

    try:
        checked = check_file(study / "resolved.yaml" if study.is_dir() else study, data_root=data_root)
    except StudyFileError as error:
        if as_json:
            _print({"ok": False, "mistakes": list(error.mistakes), "warnings": []})
            raise typer.Exit(error.exit_code) from None
        raise
    config, space = checked.study.config, checked.study.space
    if as_json:
        _print(
            {
                "ok": True,
                "mistakes": [],
                "warnings": checked.warnings,
                "parameters": [r.name for r in space.searched],
            }
        )
        return
    for warning in checked.warnings:
        typer.echo(f"warning: {warning}", err=True)
    names = ", ".join(r.name for r in space.searched) or "nothing"
    typer.echo(f"{study}: right. {config.name}: {config.budget.trials} trials over {names}")


@app.command()
def run(study: Target, folder: Folder = None, data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """Run the study here and now, on this machine; running it again goes on."""
    from hpotune.launch.local import check_local, run_here
    from hpotune.launch.prepare import prepare
    from hpotune.report.progress import Progress

    ready = prepare(
        study, chosen=folder, data_root=data_root, accept=lambda _, ours: check_local(ours.config)
    )
    config = ready.study.config
    typer.echo(f"{config.name}: {ready.folder.path}\nstore: {ready.store_url} ({ready.why})", err=True)
    with Progress(ready.folder, config, ready.store, silent=as_json) as progress:
        done = run_here(ready.folder, ready.store, config, show=progress.show)
    _tell_best(ready.folder, ready.study, ready.store, as_json=as_json)
    if not done:
        typer.echo(f"stopped; `hpotune run {study}` goes on where it was", err=True)
        raise typer.Exit(130)
    _exit_by_outcome(ready.study, ready.store)


@app.command()
def submit(study: Target, folder: Folder = None, data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """Submit the study to Slurm; returns at once. Submitting again adds only what is missing."""
    from datetime import datetime

    from hpotune.launch.prepare import prepare
    from hpotune.launch.slurm import check_accepted
    from hpotune.launch.step import first_jobs, step

    def accept(place: StudyFolder, ours: Study) -> None:
        for spec in first_jobs(ours.config, now=datetime.now()):
            check_accepted(place, ours.config, spec)

    ready = prepare(study, chosen=folder, data_root=data_root, accept=accept)
    done = step(ready.folder, ready.store, ready.study.config, now=datetime.now())
    if done.warning:
        typer.echo(f"warning: {done.warning}", err=True)
    if as_json:
        _print(
            {
                "folder": str(ready.folder.path),
                "store": ready.store_url,
                "submitted": list(done.submitted),
                "swept": list(done.swept),
            }
        )
        return
    typer.echo(f"{ready.study.config.name}: {ready.folder.path}\nstore: {ready.store_url} ({ready.why})")
    for id_ in done.submitted:
        typer.echo(f"submitted job {id_}: {ready.folder.jobs / id_}")
    typer.echo(
        f"next: hpotune status {ready.folder.path}"
        if done.submitted
        else "nothing is missing: no job was submitted"
    )


@app.command()
def status(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """Trials, the best so far, jobs and why they wait, failures by cause."""
    from datetime import datetime

    from hpotune.launch.dead import lost
    from hpotune.launch.queue import rows_or_unknown
    from hpotune.report import summary, tables

    place, ours, store = _opened(study, folder)
    rows = store.rows()
    jobs, silent = rows_or_unknown(place, rows)
    told = summary.status(place, ours.config, rows, jobs, lost(store, jobs), now=datetime.now())
    if silent:
        told["cluster"] = f"not reachable: {silent}"
        typer.echo(f"warning: the cluster is {told['cluster']}", err=True)
    _print(told) if as_json else _show(tables.status(told))


@app.command()
def trials(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """The table of trials."""
    from hpotune.report import summary, tables

    _, ours, store = _opened(study, folder)
    told = [summary.trial(ours.config.score.objective, row) for row in store.rows() if row.state != "waiting"]
    _print(told) if as_json else _show(tables.trials(told))


@app.command()
def best(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """The best setting, with its error, its gain over the untouched model, and what it cannot be told from."""
    place, ours, store = _opened(study, folder)
    _tell_best(place, ours, store, as_json=as_json)


@app.command()
def logs(
    study: Target,
    number: Annotated[int, typer.Argument(help="The trial's number.")],
    folder: Folder = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines; 0: all.")] = 40,
) -> None:
    """A trial's log."""
    from hpotune.errors import HpotuneError
    from hpotune.study.folder import folder_of

    path = folder_of(study, chosen=folder).trial(number) / "log.txt"
    if not path.is_file():
        raise HpotuneError(
            f"trial {number} has no log ({path}); `hpotune trials` lists those that have started"
        )
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    typer.echo("\n".join(text[-lines:] if lines else text))


@app.command()
def cancel(study: Target, folder: Folder = None, as_json: AsJson = False) -> None:
    """Stop the study's queued and running jobs; what is finished stays, running trials go back in line."""
    from hpotune.launch.cancel import cancel_study

    place, _, store = _opened(study, folder, write=True)
    stopped = cancel_study(place, store)
    _print({"cancelled": stopped}) if as_json else typer.echo(
        f"stopped: {', '.join(stopped) or 'nothing was there to stop'}"
    )


@app.command()
def export(
    study: Target,
    out: Annotated[Path, typer.Argument(help="The folder to write; must not exist.")],
    folder: Folder = None,
    trial: Annotated[int | None, typer.Option("--trial", help="Another trial than the best.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Whole weights instead of an adapter.")] = False,
) -> None:
    """Write the best adapter (or merged weights) with a model card, and its setting as a study file without ranges."""
    from hpotune.report.export import export_trial

    place, ours, store = _opened(study, folder)
    typer.echo(f"wrote {export_trial(place, ours, store.rows(), out=out, number=trial, merge=merge)}")


@app.command()
def doctor(
    place: Annotated[
        Path, typer.Argument(metavar="[STUDY]", help="A study file or folder; [this folder].")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Look at Slurm, the file system's locks, GPUs, libraries, caches and the store; say what to change."""
    from hpotune.launch.doctor import findings
    from hpotune.report.tables import doctor as doctor_table

    found = findings(place)
    _print([finding.as_json() for finding in found]) if as_json else _show(
        doctor_table([finding.as_json() for finding in found])
    )
    if any(finding.level == "bad" for finding in found):
        raise typer.Exit(1)


@app.command()
def worker(
    study: Target,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="End after so many [until the study is over].")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """What a job runs: take trials, evaluate them. In your own sbatch file the first worker makes the study."""
    import platform

    from hpotune.launch.lock import alone
    from hpotune.launch.prepare import prepare
    from hpotune.study.folder import folder_of
    from hpotune.worker import this_worker, work

    place = folder_of(study)
    if not place.resolved_file.is_file():
        with alone(
            place.path.parent / f".{place.path.name}.lock"
        ):  # the elements of an array come all at once
            place = prepare(study, chosen=None, data_root=data_root).folder
    work(place, me=this_worker(os.environ, host=platform.node()), trials=trials, env=os.environ)


@app.command()
def step(study: Target) -> None:
    """What the follow-up job runs: tell dead trials, submit what is missing."""
    from datetime import datetime

    from hpotune.launch.step import step as do_step

    place, ours, store = _opened(study, None, write=True, patient=True)
    done = do_step(place, store, ours.config, now=datetime.now(), alone_at_work=True)
    typer.echo(f"told dead: {list(done.swept)}; submitted: {list(done.submitted)}")
    if done.warning:
        typer.echo(f"warning: {done.warning}", err=True)


def _opened(
    target: Path, chosen: Path | None, *, write: bool = False, patient: bool = False
) -> tuple[StudyFolder, Study, Store]:
    """The folder, the study and its store; for reading unless asked otherwise."""
    from hpotune.store import Store
    from hpotune.study.folder import folder_of

    place = folder_of(target, chosen=chosen)
    study = place.load()
    url = str(place.provenance()["store"])
    return place, study, Store.open(url, study, read_only=not write, patient=patient)


def _tell_best(place: StudyFolder, study: Study, store: Store, *, as_json: bool) -> None:
    from hpotune.report import summary, tables

    told = summary.best(place, study.config, store.rows())
    _print(told) if as_json else _show(tables.best(told))


def _exit_by_outcome(study: Study, store: Store) -> None:
    """Exit code 1 when the study ended with fewer trials than its budget, unless it was to stop there."""
    from datetime import datetime

    from hpotune.errors import HpotuneError
    from hpotune.launch.local import shortfall

    if why := shortfall(study.config, store.rows(), now=datetime.now()):
        raise HpotuneError(why)


def _print(value: Json) -> None:
    typer.echo(json.dumps(value, indent=1))


def _show(renderable: object) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False, soft_wrap=not sys.stdout.isatty()).print(renderable)


def main() -> NoReturn:
    """The command line; every error of ours is one line on stderr and an exit code."""
    from hpotune.errors import HpotuneError

    try:
        code = app(standalone_mode=False)  # typer hands an Exit's code back here instead of raising it
    except HpotuneError as error:
        _complain(error, str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # the edge: no traceback reaches a user
        _others(error)
    sys.exit(code or 0)


def _others(error: Exception) -> NoReturn:
    """Errors of the command line, of a store in use, and bugs."""
    usage = getattr(
        error, "format_message", None
    )  # typer's own click or the separate one, whichever this typer brings
    if usage is not None:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(usage())
            sys.exit(2)
        _complain(
            error,
            f"{usage().rstrip('.')}; `hpotune --help` lists verbs, `hpotune VERB --help` their options",
            2,
        )
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, SQLAlchemyError):
        from hpotune.storage import store_failure

        _complain(error, str(store_failure(error)), 4)
    if isinstance(error, OSError):
        _complain(
            error, f"{error.filename or 'file'}: {error.strerror or error}; check space and permissions", 1
        )
    _complain(
        error,
        f"{type(error).__name__}: {error}; this is a bug of hpotune: run again with --debug and report the trace",
        1,
    )


def _complain(error: Exception, text: str, code: int) -> NoReturn:
    if os.environ.get("HPOTUNE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    typer.echo("\n".join(f"error: {line}" for line in text.splitlines()), err=True)
    sys.exit(code)
