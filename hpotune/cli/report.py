"""Verbs that show a study outside the terminal: report, plot, dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import RESULTS, AsJson, Folder, Target, app, load_study_of, print_note, say, show

if TYPE_CHECKING:
    from hpotune.reporting.views.study_report import StudyReport


def _report(target: Path, chosen: Path | None) -> StudyReport:
    """The report of a study as it is now."""
    from hpotune.api.study_views import read_report

    return read_report(target, chosen, note=print_note)


@app.command(rich_help_panel=RESULTS)
def report(
    study: Target,
    folder: Folder = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file to write; -: print it [default: report.html in the study's folder]."
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="html, pdf, md, csv or json [default: by --out, else html]."),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write it again as trials end, until the study is over; Ctrl-C leaves."),
    ] = False,
    every: Annotated[
        float,
        typer.Option("--every", min=5, metavar="SECONDS", help="With --watch: seconds between two looks."),
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Write the report of a study as one HTML file.

    It needs no network and no other file. pdf is the page printed by Chromium; md has the tables, csv every trial, json
    everything that the page shows.
    """
    from hpotune.reporting.page.report_files import format_of, report_bytes, rewrite_until_over, write_report
    from hpotune.workspace.folder import folder_of

    kind = "json" if as_json else format_of(format_, out)
    if as_json or str(out) == "-":
        typer.echo(report_bytes(_report(study, folder), kind), nl=False)
        return
    path = out or folder_of(study, chosen=folder).path / f"report.{kind}"
    if not watch:
        write_report(_report(study, folder), kind, path)
        say(f"wrote {path}")
        return

    def write(found: StudyReport) -> None:
        write_report(found, kind, path)
        trials = found.status.trials
        say(
            f"{found.made[11:]} wrote {path}: {found.status.state}, {trials.finished + trials.stopped} trials"
        )

    try:
        rewrite_until_over(
            lambda: _report(study, folder), write, every_s=every, say=lambda text: say(text, err=True)
        )
    except KeyboardInterrupt:
        return


@app.command(rich_help_panel=RESULTS)
def plot(
    study: Target,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The figure; without it the figures are listed.")
    ] = None,
    folder: Folder = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file: .svg, .png or .pdf [default: NAME.svg in this folder]."),
    ] = None,
) -> None:
    """Draw one figure of the report into a file.

    Without a name: which figures there are.
    """
    from hpotune.reporting.page.charts.figure_list import SHOWS, draw_of

    if name is None:
        from hpotune.reporting.console import plain_table

        table = plain_table(("figure", "shows"))
        for figure, shows in SHOWS.items():
            table.add_row(figure, shows)
        show(table)
        return
    from hpotune.reporting.page.charts.look import PAPER
    from hpotune.reporting.page.drawing import check_file_format, figure_file
    from hpotune.workspace.atomic_files import write_atomic_bytes

    draw, path = draw_of(name), out or Path(f"{name}.svg")
    check_file_format(path)
    write_atomic_bytes(path, figure_file(draw(_report(study, folder), PAPER), path))
    say(f"wrote {path}")


@app.command(rich_help_panel=RESULTS)
def dashboard(
    study: Target,
    folder: Folder = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0: any free one.")] = 8080,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen at; 127.0.0.1: this machine only.")
    ] = "127.0.0.1",
) -> None:
    """Serve optuna-dashboard on a read-only copy of the study.

    The copy follows the study, and nothing that is done in the browser reaches the store. Needs the extra `dashboard`.
    """
    import getpass
    import platform

    from hpotune.reporting.dashboard import copy_of, dashboard_server

    found, loaded = load_study_of(study, folder)
    url = found.provenance().store
    server, address = dashboard_server(lambda: copy_of(url, loaded), host=host, port=port)
    at = server.server_port
    say(f"{address}\na read-only copy of {loaded.config.name}; Ctrl-C ends it")
    tunnel = f"ssh -L {at}:127.0.0.1:{at} {getpass.getuser()}@{platform.node()}"
    say(f"from your own computer: {tunnel}, then open the address there")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return
    finally:
        server.server_close()
