"""The verb that sends a study to a tracker: sync."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import (
    RESULTS,
    AsJson,
    Folder,
    Target,
    app,
    load_study_of,
    print_json,
    say,
)

if TYPE_CHECKING:
    from hpotune.exchange.trackers.sync_study import Tracker
    from hpotune.workspace.folder import StudyFolder

TRACKERS = ("tensorboard", "mlflow", "wandb")


@app.command(rich_help_panel=RESULTS)
def sync(
    study: Target,
    to: Annotated[str, typer.Option("--to", metavar="TRACKER", help="tensorboard, mlflow or wandb.")],
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri",
            help="tensorboard: the folder; mlflow: the server or database [default: in the study's folder].",
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            "--project", help="wandb: the project; mlflow: the experiment [default: the study's name]."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="wandb: write a folder that `wandb sync` uploads later.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Send all trials again, as where runs were deleted there.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Send the ended trials to TensorBoard, MLflow or wandb.

    wandb is Weights & Biases. A run for each trial, with its parameters, scores, learning curve and provenance. Called
    again, it sends only what is new. Jobs send nothing. Scores of the sealed test are sent once `test` has opened it.
    """
    from hpotune.exchange.trackers.sync_study import sync_study
    from hpotune.records.derived_points import check_not_derived
    from hpotune.storage.readers.read_only import rows_of

    found, loaded = load_study_of(study, folder)
    check_not_derived(found.path, loaded.config, verb="sync", advice="send that study")
    tracker = _tracker(found, to, uri=uri, project=project, offline=offline)
    rows = rows_of(found.provenance().store, loaded)
    done = sync_study(found, loaded, rows, tracker, again=again)
    if as_json:
        print_json(done)
        return
    later = f"; {done.active} trials have not ended: call it again later" if done.active else ""
    say(f"{done.destination}: {len(done.sent)} runs sent, {done.unchanged} unchanged{later}")
    say(f"next: {done.next}")


def _tracker(folder: StudyFolder, to: str, *, uri: str | None, project: str | None, offline: bool) -> Tracker:
    """The tracker that was asked for.

    Raises: StudyFileError for an unknown one, an option that it does not have, or a missing library.
    """
    from hpotune.errors import StudyFileError, nearest
    from hpotune.exchange.trackers.sync_study import FOLDER

    if to not in TRACKERS:
        raise StudyFileError(f"--to {to!r}: is no tracker; {nearest(to, TRACKERS)}")
    if offline and to != "wandb":
        raise StudyFileError(f"--offline: is for wandb; {to} needs no such option")
    if uri is not None and to == "wandb":
        raise StudyFileError(
            "--uri: is for tensorboard and mlflow; of wandb set WANDB_BASE_URL for another server"
        )
    if project is not None and to == "tensorboard":
        raise StudyFileError("--project: is for mlflow and wandb; of tensorboard give the folder by --uri")
    own = folder.path / FOLDER
    if to == "tensorboard":
        from hpotune.exchange.trackers.tensorboard_tracker import TensorBoardTracker

        if uri and "://" in uri:
            raise StudyFileError(f"--uri {uri!r}: is no folder; TensorBoard reads event files from a folder")

        return TensorBoardTracker(Path(uri) if uri else own / "tensorboard")
    if to == "mlflow":
        from hpotune.exchange.trackers.mlflow_tracker import MlflowTracker

        where = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own / 'mlflow.db'}"
        own.mkdir(exist_ok=True)
        _check_database(where)
        return MlflowTracker(where, experiment=project)
    from hpotune.exchange.trackers.wandb_tracker import WandbTracker

    offline = offline or os.environ.get("WANDB_MODE") == "offline"
    return WandbTracker(own, project=project or os.environ.get("WANDB_PROJECT"), offline=offline)


def _check_database(uri: str) -> None:
    """Check that a database file can be opened: MLflow tries for minutes.

    Raises: StudyFileError.
    """
    import sqlite3

    from hpotune.errors import StudyFileError

    kind, _, path = uri.partition(":///")
    if kind != "sqlite":
        return
    try:
        with closing(sqlite3.connect(path, timeout=10)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise StudyFileError(
            f"--uri {uri!r}: cannot be opened ({error}); give a file in a folder that exists"
        ) from None
