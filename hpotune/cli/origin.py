"""Verbs about where results come from: provenance, and rerun, which trains a trial again and compares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import (
    LOOK,
    RESULTS,
    AsJson,
    Folder,
    Target,
    app,
    load_study_of,
    print_json,
    say,
    show,
)
from hpotune.cli.inspect import Number, read_trials

if TYPE_CHECKING:
    from hpotune.config.load import Study
    from hpotune.records.trial import TrialRow
    from hpotune.reporting.views.rerun_view import RerunResult
    from hpotune.worker.rerun import PreparedRerun
    from hpotune.workspace.folder import StudyFolder


@app.command(rich_help_panel=LOOK)
def provenance(
    study: Target,
    number: Annotated[int | None, typer.Argument(metavar="N", help="A trial's number.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show versions, commit, machines and content hashes.

    Of the study, or of one trial with its Slurm job, what the job used, and its reruns: what is needed to repeat it.
    """
    from hpotune.reporting.origin.provenance_table import study_provenance_table, trial_provenance_table
    from hpotune.reporting.views.provenance_view import study_provenance, trial_provenance
    from hpotune.reporting.views.why import row_of
    from hpotune.slurm.commands import STATUS_S, limited_time
    from hpotune.slurm.job_usage import study_usage

    found, _, rows = read_trials(study, folder)
    if number is None:
        whole = study_provenance(found, rows)
        print_json(whole) if as_json else show(study_provenance_table(whole))
        return
    row_of(rows, number)
    with limited_time(STATUS_S):
        usage = study_usage(found)
    view = trial_provenance(found, number, usage=usage)
    print_json(view) if as_json else show(trial_provenance_table(view))


@app.command(rich_help_panel=RESULTS)
def rerun(
    study: Target,
    number: Number,
    folder: Folder = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit it as a Slurm job with the study's resources, and return.")
    ] = False,
    into: Annotated[str | None, typer.Option("--into", hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Train a trial again and compare the result, digit by digit.

    What differs from then (libraries, GPU, data, model, code) is named before it starts and in the result. The exit
    code is 0 if losses and scores are equal, 1 if not. The study's results stay as they are; the rerun lies in reruns/.
    """
    from hpotune.launch.run_local import check_local
    from hpotune.reporting.views.why import row_of
    from hpotune.storage.readers.read_only import rows_of
    from hpotune.worker.rerun import prepare_rerun

    found, loaded = load_study_of(study, folder)
    row = row_of(rows_of(found.provenance().store, loaded), number)
    if slurm:
        _submit(found, loaded, row, as_json=as_json)
        return
    if "SLURM_JOB_ID" not in os.environ:
        check_local(loaded.config)
    own = found.path / "reruns" / Path(into).name if into is not None else None
    _run(prepare_rerun(found, loaded, row, own=own), as_json=as_json)


def _submit(folder: StudyFolder, study: Study, row: TrialRow, *, as_json: bool) -> None:
    from hpotune.launch.rerun_job import check_rerun_job, submit_rerun
    from hpotune.slurm.commands import SUBMIT_S, limited_time
    from hpotune.worker.rerun import prepare_rerun

    with limited_time(SUBMIT_S):
        check_rerun_job(folder, study.config)
        own = Path(prepare_rerun(folder, study, row, own=None).spec.folder)
        done = submit_rerun(folder, study.config, row.number, own=own)
    if as_json:
        print_json(done)
        return
    say(f"submitted job {done.job}: the rerun of trial {done.trial} in {done.folder}")
    say(f"next: hpotune provenance {folder.path} {done.trial} shows the comparison once it has ended")


def _run(prepared: PreparedRerun, *, as_json: bool) -> None:
    """Run the trial again here, print and record the comparison. Raises typer.Exit unless it is equal."""
    from hpotune.records.trial import LOCAL
    from hpotune.reporting.origin.provenance_table import rerun_table
    from hpotune.reporting.views.rerun_view import compared
    from hpotune.worker.rerun import run_again
    from hpotune.workspace.snapshot_users import using_snapshot

    job = os.environ.get("SLURM_JOB_ID", LOCAL)
    _print_differences(prepared)
    with using_snapshot(prepared.folder, prepared.code, job=job):
        result = run_again(prepared, env=os.environ)
    own = Path(prepared.spec.folder)
    comparison = compared(prepared.folder, prepared.study.config, prepared.row, own, result)
    _record(comparison)
    print_json(comparison) if as_json else show(rerun_table(comparison))
    if comparison.state != "equal":
        raise typer.Exit(130 if result.state == "paused" else 1)


def _print_differences(prepared: PreparedRerun) -> None:
    """Prints to stderr what differs already."""
    from hpotune.reporting.views.rerun_view import provenance_differences
    from hpotune.worker.rerun import describe_code

    number = prepared.row.number
    say(f"trial {number} again, in {prepared.spec.folder}", err=True)
    if prepared.before is None:
        say(f"note: the environment of trial {number} was not recorded", err=True)
        return
    describe_code(prepared.folder, prepared, lambda text: say(f"note: {text}", err=True))
    now = prepared.expected(os.environ)
    for one in provenance_differences(prepared.folder.path, prepared.before, now):
        before, after = (text[:60] or "none" for text in (one.before, one.now))
        say(f"note: {one.what} differs: {before} then, {after} now", err=True)


def _record(comparison: RerunResult) -> None:
    import json

    from hpotune.reporting.json_output import as_json
    from hpotune.reporting.views.rerun_view import FILE
    from hpotune.workspace.atomic_files import write_atomic

    write_atomic(comparison.folder / FILE, json.dumps(as_json(comparison), indent=1) + "\n")
