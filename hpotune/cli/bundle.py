"""The verb that takes a study to a cluster without any route: bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpotune.cli.common import SET_UP, AsJson, DataRoot, Folder, app, print_json, print_note, say


@app.command(rich_help_panel=SET_UP)
def bundle(
    study: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="The study file, or its folder; with --unpack the bundle."),
    ],
    into: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="With --unpack: a new folder [default: the bundle's name]."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The tar file [default: NAME.tar].")
    ] = None,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="Verify a bundle and write its study file here.")
    ] = False,
    add: Annotated[
        list[Path] | None, typer.Option("--add", help="One more file or folder, such as data of a program.")
    ] = None,
    folder: Folder = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Pack study, code, model and data for a cluster without a route.

    Run `hpotune fetch` first. What lies beside the study file keeps its path in the bundle, and the study file names
    everything by relative paths. On the other cluster, `hpotune bundle --unpack FILE.tar` compares every file with its
    SHA-256.
    """
    from hpotune.errors import StudyFileError

    if unpack:
        if output is not None or add:
            raise StudyFileError("--unpack: --output and --add are for making a bundle; remove them")
        return _unpack(study, into, as_json=as_json)
    if into is not None:
        raise StudyFileError(f"{into}: a folder is for --unpack; name the tar file by --output")
    _pack(study, output, also=tuple(add or ()), folder=folder, data_root=data_root, as_json=as_json)


def _pack(
    study: Path,
    output: Path | None,
    *,
    also: tuple[Path, ...],
    folder: Path | None,
    data_root: str | None,
    as_json: bool,
) -> None:
    from hpotune.checks.study_file import check as check_file
    from hpotune.config.yaml_source import read_source
    from hpotune.errors import StudyFileError
    from hpotune.launch.bundle_contents import bundle_contents
    from hpotune.reporting.fetch_table import shown_bytes, size_text
    from hpotune.reporting.progress.progress_line import progress_line
    from hpotune.workspace.bundle_archive import PER_FILE, check_room, write_bundle

    checked = check_file(study, chosen=folder, data_root=data_root)
    target = output if output is not None else Path(f"{checked.study.config.name}.tar")
    if target.exists():
        raise StudyFileError(f"{target}: is there already; remove it, or name another one by --output")
    raw = read_source(study).values if study.is_file() else checked.study.source.values
    contents, manifest = bundle_contents(checked, raw, also=also)
    needed = contents.size + PER_FILE * (len(contents.files) + 1)
    free = check_room(target.absolute().parent, needed, what=target.name)
    if not as_json:
        count = len(contents.files)
        say(f"to pack: {size_text(contents.size)} in {count} files into {target} ({size_text(free)} free)")
    with progress_line(silent=as_json) as line:
        manifest = write_bundle(target, contents.files, manifest, show=shown_bytes(line, "pack"))
    for note in manifest.notes:
        print_note(note)
    if as_json:
        return print_json({"bundle": str(target), "manifest": manifest.model_dump(mode="json")})
    say(f"packed {len(manifest.files)} files; wrote {target}")
    say(f"next: copy {target} to the other cluster, and there: hpotune bundle --unpack {target.name}")


def _unpack(file: Path, into: Path | None, *, as_json: bool) -> None:
    from hpotune.launch.unpacked_bundle import unpack, version_notes
    from hpotune.reporting.fetch_table import shown_bytes, size_text
    from hpotune.reporting.progress.progress_line import progress_line

    with progress_line(silent=as_json) as line:
        study, manifest = unpack(file, into, show=shown_bytes(line, "unpack"))
    for note in (*manifest.notes, *version_notes(manifest)):
        print_note(note)
    if as_json:
        return print_json({"study": str(study), "manifest": manifest.model_dump(mode="json")})
    say(f"verified {len(manifest.files)} files ({size_text(manifest.size)}); wrote {study}")
    say(f"next: hpotune check {study}")
