"""The verb that makes the environment of a study: env create."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from hpotune.cli.common import SET_UP, AsJson, Target, app, print_json, say


@app.command(name="env", rich_help_panel=SET_UP)
def env(
    action: Annotated[Literal["create"], typer.Argument(metavar="create", help="Make the environment.")],
    study: Target,
    as_json: AsJson = False,
) -> None:
    """Install env.packages_to_install, with a lock file of hashes.

    For the login node: jobs install nothing. `hpotune env create STUDY` makes a virtual environment beside the study
    file, which sees the packages of this one, and which jobs use. It is used again while packages, index and Python
    stay the same; a lock file with exact versions and hashes makes an equal one elsewhere.
    """
    from hpotune.config.load import load_study
    from hpotune.launch.build_environment import create_environment
    from hpotune.reporting.progress.progress_line import progress_line
    from hpotune.workspace.folder import home_of

    file = study / "study.yaml" if study.is_dir() else study
    with progress_line(silent=as_json) as line:
        built = create_environment(load_study(file), home=home_of(file), show=line)
    packages = [{"name": one.name, "version": one.version, "sha256": one.sha256} for one in built.packages]
    if as_json:
        return print_json(
            {
                "environment": str(built.folder),
                "lock": str(built.lock),
                "new": built.is_new,
                "packages": packages,
            }
        )
    for one in built.packages:
        say(f"{one.name:<30} {one.version}")
    done = f"installed {len(built.packages)} packages; wrote" if built.is_new else "unchanged:"
    say(f"{done} {built.folder}")
    say(f"next: hpotune check {study}")
