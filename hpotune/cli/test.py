"""The verb that opens the sealed test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import RUN, AsJson, Folder, Target, app, print_json, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpotune.config.load import Study
    from hpotune.launch.prepare import PreparedStudy
    from hpotune.records.trial import TrialRow
    from hpotune.report.views.sealed_test import SealedTestResult
    from hpotune.workspace.folder import StudyFolder


@app.command("test", rich_help_panel=RUN)
def sealed_test(
    study: Target,
    trials: Annotated[
        str | None,
        typer.Option("--trials", metavar="N,N", help="These trials instead of the finalists; recorded."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Open it once more; every later output says how often it was opened."),
    ] = False,
    here: Annotated[
        bool, typer.Option("--here", help="On this machine, even if the search ran on Slurm.")
    ] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="On Slurm, even if the search ran on this machine.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Open the sealed test: score the finalists on score.test.

    The base model is scored too. Only after the search has ended, and once; it is recorded who opened it, when and for
    which trials. Called again, it continues an interrupted opening, or shows the result.
    """
    from hpotune.errors import StudyFileError
    from hpotune.launch.sealed_opening import check_has_test, check_search_ended, continue_opening, open_test

    if here and slurm:
        raise StudyFileError("--here and --slurm exclude each other; give one of them")
    found, loaded, rows = _read(study, folder)
    check_has_test(found, loaded)
    result = _result(found, loaded, rows)
    wanted = _numbers(trials)
    if result is not None and not again and result.state != "running":
        _check_same_trials(result, wanted)
        _finish(result, as_json=as_json)
        return
    if result is not None and again and result.state == "running":
        raise StudyFileError(
            f"opening {len(result.openings)} has not finished; `hpotune test {found.path}` continues it"
        )
    if result is None or again:
        check_search_ended(found, loaded, rows)
        on_slurm = _on_slurm(found, rows, here=here, slurm=slurm, config=loaded)
        chosen = wanted or _finalists(found, loaded, rows)
        _, prepared = open_test(found, loaded, rows, chosen, known=len(result.openings) if result else 0)
    else:
        _check_same_trials(result, wanted)
        on_slurm = _on_slurm(found, rows, here=here, slurm=slurm, config=loaded, opened=result)
        prepared = continue_opening(found, loaded, rows)
    if on_slurm:
        _submit(prepared, found)
        finished = True
    else:
        finished = _run(prepared, as_json=as_json)
    result = _result(found, loaded, rows)
    assert result is not None, "it has been opened"
    _finish(result, as_json=as_json, submitted=on_slurm)
    if not finished:
        say(f"interrupted; `hpotune test {study}` continues it", err=True)
        raise typer.Exit(130)


def _read(study: Target, folder: Folder) -> tuple[StudyFolder, Study, list[TrialRow]]:
    from hpotune.cli.common import load_study_of
    from hpotune.storage.readers.read_only import rows_of

    found, loaded = load_study_of(study, folder)
    return found, loaded, rows_of(found.provenance().store, loaded)


def _result(found: StudyFolder, loaded: Study, rows: Sequence[TrialRow]) -> SealedTestResult | None:
    from hpotune.report.views.sealed_test import sealed_test_result

    return sealed_test_result(found, loaded, rows)


def _numbers(trials: str | None) -> list[int]:
    """The numbers in `3,7`. Raises: StudyFileError."""
    from hpotune.errors import StudyFileError

    words = [word.strip() for word in (trials or "").split(",") if word.strip()]
    wrong = [word for word in words if not (word.isascii() and word.isdigit())]
    if wrong or (trials is not None and not words):
        raise StudyFileError(f"--trials {trials!r}: needs numbers of trials, such as 3,7")
    return list(dict.fromkeys(int(word) for word in words))


def _check_same_trials(result: SealedTestResult, wanted: Sequence[int]) -> None:
    """Raises: StudyFileError where other trials are asked for than the opening has."""
    from hpotune.errors import StudyFileError

    tested = result.openings[-1].trials
    if wanted and set(wanted) != set(tested):
        raise StudyFileError(
            f"--trials: opening {len(result.openings)} tests trials {', '.join(map(str, tested))}; --again opens the "
            "test once more for others, which is recorded"
        )


def _finalists(found: StudyFolder, loaded: Study, rows: Sequence[TrialRow]) -> list[int]:
    from hpotune.report.finalists import choose_finalists

    return choose_finalists(found, loaded.config, rows)


def _on_slurm(
    found: StudyFolder,
    rows: Sequence[TrialRow],
    *,
    here: bool,
    slurm: bool,
    config: Study,
    opened: SealedTestResult | None = None,
) -> bool:
    """Whether the test runs on Slurm: as asked, else as the opening or the search did."""
    from hpotune.launch.extend import ran_on_slurm
    from hpotune.launch.run_local import check_local
    from hpotune.slurm.study_jobs import submitted_jobs
    from hpotune.workspace.folder import StudyFolder

    if here or slurm:
        chosen = slurm
    elif opened is not None and submitted_jobs(StudyFolder(path=opened.folder)):
        chosen = True
    else:
        chosen = ran_on_slurm(found, rows)
    if not chosen:
        check_local(config.config)
    return chosen


def _run(prepared: PreparedStudy, *, as_json: bool) -> bool:
    """Score on this machine; False when the user stopped it."""
    from hpotune.launch.run_local import run_study
    from hpotune.report.progress.run_display import Progress

    config = prepared.study.config
    with Progress(prepared.folder, config, prepared.store, silent=as_json) as progress:
        return run_study(prepared.folder, prepared.store, config, show=progress.show)


def _submit(prepared: PreparedStudy, found: StudyFolder) -> None:
    from datetime import datetime

    from hpotune.launch.follow_up import follow_up
    from hpotune.slurm.commands import SUBMIT_S, limited_time

    with limited_time(SUBMIT_S):
        done = follow_up(prepared.folder, prepared.store, prepared.study.config, now=datetime.now())
    if done.warning:
        say(f"warning: {done.warning}", err=True)
    for id_ in done.submitted:
        say(f"submitted job {id_}: {prepared.folder.jobs / id_}", err=True)
    say(
        f"next: hpotune test {found.path} (shows the result); hpotune status {prepared.folder.path}", err=True
    )


def _finish(result: SealedTestResult, *, as_json: bool, submitted: bool = False) -> None:
    """Prints the result. Raises: HpotuneError where a trial of the test has failed for good."""
    from hpotune.errors import HpotuneError
    from hpotune.report.sealed_table import sealed_table

    print_json(result) if as_json else show(sealed_table(result))
    if result.state == "failed" and not submitted:
        raise HpotuneError(
            f"sealed test {len(result.openings)}: some trials could not be scored; `hpotune retry {result.folder}`, "
            f"once the cause is fixed, then `hpotune test {result.folder.parents[1]}`"
        )
