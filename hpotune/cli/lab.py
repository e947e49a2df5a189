"""The verb for courses, with verbs of its own: lab start, stop, install, prepare, check, overview."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hpotune.cli.common import COURSES, AsJson, app, print_json, say, show

lab_app = typer.Typer(
    help="Run a course: Slurm on a laptop, handouts, hints, overview.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(lab_app, name="lab", rich_help_panel=COURSES)


@lab_app.command()
def start(as_json: AsJson = False) -> None:
    """Start a Slurm of four nodes on this machine, or use the one here.

    Needs root, Debian or Ubuntu, and no systemd: `sudo hpotune lab start`. The nodes are this machine, their GPUs are
    declared only; scheduler, arrays, srun and sacct are real. Where a Slurm answers already, nothing is started.
    $HPOTUNE_CLUSTER_DIR names its folder.
    """
    from hpotune.errors import ClusterError
    from hpotune.lab.cluster_daemons import (
        allowed_cluster,
        environment_line,
        one_at_a_time,
        real_slurm,
    )
    from hpotune.lab.cluster_daemons import start as start_cluster

    if partitions := real_slurm(os.environ):
        if as_json:
            return print_json({"slurm": "real", "started": False, "partitions": partitions, "export": None})
        say(f"a Slurm answers here already (partitions {', '.join(partitions)}): nothing was started, use it")
        return
    try:
        cluster = allowed_cluster("start", os.environ)
    except ClusterError as error:
        raise ClusterError(
            f"{error}; without Slurm `hpotune run` and the other lab verbs need no root"
        ) from None
    with one_at_a_time():
        done = start_cluster(cluster)
        line = environment_line(cluster)
    if as_json:
        return print_json(
            {
                "slurm": "throw-away",
                "started": done.startswith("up"),
                "partitions": ["a100*", "urgent"],
                "export": line,
            }
        )
    say(done, err=True)
    say("each shell that uses it needs the next line; `hpotune lab stop` removes it", err=True)
    say(line)


@lab_app.command()
def stop(as_json: AsJson = False) -> None:
    """End the throw-away Slurm, its jobs and all its files. Needs root."""
    from hpotune.lab.cluster_daemons import allowed_cluster, one_at_a_time
    from hpotune.lab.cluster_daemons import stop as stop_cluster

    cluster = allowed_cluster("stop", os.environ)
    with one_at_a_time():
        done = stop_cluster(cluster)
    print_json({"stopped": done.startswith("stopped")}) if as_json else say(done)


@lab_app.command()
def install() -> None:
    """Install Slurm, MariaDB and munge with apt-get. Needs root."""
    from hpotune.lab.cluster_daemons import allowed_cluster, one_at_a_time
    from hpotune.lab.cluster_daemons import install as install_packages

    allowed_cluster("install", os.environ)
    with one_at_a_time():
        say(install_packages())


@lab_app.command()
def prepare(
    number: Annotated[
        int | None, typer.Argument(metavar="[N]", help="The handout; without it they are listed.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where its files go [default: handout-N].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the files of a handout: README, study file, programs.

    Files of yours that differ are never overwritten.
    """
    from hpotune.lab.handouts import handouts, prepare_handout
    from hpotune.lab.lab_tables import handouts_table

    if number is None:
        found = handouts()
        print_json(found) if as_json else show(handouts_table(found))
        return
    done = prepare_handout(number, folder or Path(f"handout-{number}"))
    if as_json:
        return print_json(done)
    written = ", ".join(done.written) or "nothing: all files are there"
    say(f"{done.handout.title}: wrote {written}\nnext: read {done.folder / 'README.md'}")


@lab_app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A study, its file, or a folder with studies.")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Look at a study and give hints, each with the next step.

    Has it run, why trials failed, scales of the ranges, number of trials, the best trial against the base model and
    against the others within the error, job sizes, the sealed test. What is good is said too.
    """
    from datetime import datetime

    from hpotune.errors import StudyFileError
    from hpotune.lab.lab_tables import hints_table
    from hpotune.lab.student_study import read_all
    from hpotune.lab.study_hints import study_hints

    if not folder.exists():
        raise StudyFileError(
            f"{folder}: is not there; give the folder or file of a study, or a student's folder"
        )
    now = datetime.now()
    found = [(one, study_hints(one, now=now)) for one in read_all([folder])]
    if as_json:
        return print_json(
            [
                {
                    "student": one.student,
                    "study": one.study.config.name if one.study else None,
                    "folder": one.path,
                    "hints": hints,
                }
                for one, hints in found
            ]
        )
    for one, hints in found:
        show(hints_table(one.study.config.name if one.study else str(one.path), hints))


@lab_app.command()
def overview(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders of students, or of whole classes.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the page to this HTML file too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the studies of a class: a table, and with -o an HTML page.

    Each study's trials, best score and error, difference from the base model, hours, failures, last activity and number
    of hints. A study that cannot be read is a line that says why. Folders of other users are only read.
    """
    from datetime import datetime

    from hpotune.errors import StudyFileError
    from hpotune.lab.class_overview import class_overview
    from hpotune.lab.lab_tables import overview_table

    if not any(folder.exists() for folder in folders):  # of several, a missing one is a line of the table
        named = ", ".join(map(str, folders))
        raise StudyFileError(f"{named}: no such folder; give folders of students, or the folder of a class")
    now = datetime.now()
    found = class_overview(folders, now=now)
    if out is not None:
        from hpotune.lab.overview_page import overview_page
        from hpotune.workspace.atomic_files import write_atomic

        write_atomic(out, overview_page(found, now=now))
        say(f"wrote {out}", err=True)
    print_json(found) if as_json else show(overview_table(found, now=now))
