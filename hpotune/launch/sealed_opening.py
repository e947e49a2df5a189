"""The sealed test: whether it may be opened, and its opening: recorded first, then made as a study of its own.

An opening that was interrupted is continued; a second one is asked for, and recorded beside the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hpotune.config.load import Study
from hpotune.config.training_method import trained_folder
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.launch.derive import derived_point, make_derived, open_derived
from hpotune.launch.prepare import PreparedStudy
from hpotune.records.derived_points import DerivedPoints, check_not_derived
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import eligible_trials
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.openings import Opening, opening_folder, read_openings, record_opening


def check_has_test(folder: StudyFolder, study: Study) -> None:
    """Check that the study has a sealed test.

    Raises: StudyFileError where it is no fine-tuning, is itself derived from a study, or `score.test` names no task.
    """
    config = study.config
    check_not_derived(folder.path, config, advice="give that study's folder")
    own = "python" if config.python is not None else "command" if config.command is not None else None
    if own is not None:
        raise StudyFileError(
            f"{config.name}: has `{own}:`, and a sealed test needs a model and lm-eval tasks; score the best points "
            "with a program of your own (`hpotune export` writes the values)"
        )
    if not config.score.test:
        raise StudyFileError(
            f"{config.name}: score.test names no task, so there is nothing to open; a new study (another name:) with "
            "e.g. `test: [mmlu]` under score has a sealed test"
        )


def check_search_ended(folder: StudyFolder, study: Study, rows: Sequence[TrialRow]) -> None:
    """Check that the search has ended, so that nothing of it can use the test's result.

    Raises: HpotuneError where trials run or wait; StudyFileError where none has finished.
    """
    config = study.config
    running = [row.number for row in rows if row.state == "running"]
    if running:
        raise HpotuneError(
            f"{config.name}: the search still runs (trial {', '.join(map(str, running[:5]))}); the sealed test is "
            f"opened after its end: see `hpotune status {folder.path}`, or end it with `hpotune cancel`"
        )
    reason = stop_reason(config, rows, now=datetime.now())
    if reason is None and not folder.cancelled.exists():
        done = sum(row.decided for row in rows)
        raise HpotuneError(
            f"{config.name}: the search has not ended ({done} of {config.budget.trials} trials); "
            f"`hpotune resume {folder.path}` continues it, `hpotune cancel {folder.path}` ends it"
        )
    if not eligible_trials(rows):
        raise HpotuneError(
            f"{config.name}: no finished trial can be tested"
            + (" (none satisfies score.constraints)" if any(row.breaks for row in rows) else "")
            + "; see `hpotune status`"
        )


def open_test(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], trials: Sequence[int], *, known: int
) -> tuple[Opening, PreparedStudy]:
    """Record an opening for these trials and make its study. `known`: how many openings there were.

    Raises: StudyFileError for a trial that has not finished or cannot be scored, or where another process has just
        opened it; HpotuneError where its study cannot be made (the opening is recorded, and `continue_opening` makes
        it).
    """
    listed = _listed(folder, study, rows, trials)
    opening = record_opening(folder, trials, after=known, home=folder.provenance().home)
    return opening, make_derived(folder, study, opening_folder(folder, opening.number), listed)


def continue_opening(folder: StudyFolder, study: Study, rows: Sequence[TrialRow]) -> PreparedStudy:
    """The study of the latest opening, made if a crash came between its record and its study.

    Raises: HpotuneError.
    """
    opening = read_openings(folder)[-1]
    path = opening_folder(folder, opening.number)
    if (path / "resolved.yaml").is_file():
        return open_derived(path)
    return make_derived(folder, study, path, _listed(folder, study, rows, opening.trials))


def _listed(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], trials: Sequence[int]
) -> DerivedPoints:
    """The list of an opening: the base model, and these trials with the seed of the study."""
    by_number = {row.number: row for row in rows if row.state == "finished" and row.kind == "trial"}
    for number in trials:
        if number not in by_number:
            raise StudyFileError(
                f"trial {number}: has not finished, or is the baseline, which is always tested; `hpotune trials` "
                "lists them"
            )
        row = by_number[number]
        if row.lineage is not None and trained_folder(folder.trial(number)) is None:
            raise StudyFileError(
                f"trial {number}: what it trained was not kept, and a trial that changed its values while it trained "
                "cannot be trained again from its point; choose others with --trials, and raise keep.best next time"
            )
    baseline = next((row for row in rows if row.kind == "baseline" and row.state == "finished"), None)
    loss = baseline.metrics.get("eval_loss") if baseline is not None else None
    return DerivedPoints(
        kind="test",
        base=study.base(),
        base_loss=float(loss) if isinstance(loss, (int, float)) else None,
        points=[derived_point(study, by_number[number], seed=study.config.search.seed) for number in trials],
    )
