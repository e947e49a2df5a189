"""README's quickstart output is today's: the study proposes its points, and the tables print its lines."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import RenderableType

from hpotune.config.load import load_study
from hpotune.records.trial import TrialResult, Worker
from hpotune.reporting.best_table import best_table
from hpotune.reporting.console import plain_console
from hpotune.reporting.tables import trials_table
from hpotune.reporting.views.best import best_result
from hpotune.reporting.views.trial_view import trial_view
from hpotune.storage import Claim, TrialQueue
from hpotune.workspace.folder import StudyFolder

ROOT = Path(__file__).parents[2]
WORKER = Worker(job="local", host="here", pid=1, task="0.0")
SCORE = re.compile(r"(\S+) ± (\S+)")
NUMBER = re.compile(r"-?\d[\d.e+-]*")


def shown() -> tuple[list[str], list[str]]:
    """README's lines of `best`, and of the table of trials."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("two CPU cores and ends with\n\n```\n")[2].partition("```")[0]
    best, _, table = block.partition("\n\n")
    return best.splitlines(), table.strip().splitlines()


def printed(report: RenderableType) -> list[str]:
    out = io.StringIO()
    console = plain_console(width=200)
    console.file = out
    console.print(report)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def words(line: str) -> list[str]:
    """The words of a table's line without the minutes, its last word."""
    found = line.split()
    return found[:-1] if "±" in line and found[0].isdigit() else found


@pytest.fixture
def queue(tmp_path: Path) -> TrialQueue:
    """The quickstart's study, its trials finished with README's scores."""
    study = load_study(ROOT / "configs" / "quickstart.yaml")
    made = TrialQueue.create(f"sqlite:///{tmp_path}/store.db", study, folder=str(tmp_path))
    for line in shown()[1][1:]:
        score = SCORE.search(line)
        if score is None:  # the note below the table
            continue
        claim = made.claim(WORKER)
        assert isinstance(claim, Claim)
        value, stderr = map(float, score.groups())
        result = TrialResult(number=claim.row.number, state="finished", values=[value], stderrs=[stderr])
        made.complete(claim.trial_id, result)
    return made


def test_readme_shows_the_quickstarts_trials(queue: TrialQueue) -> None:
    views = [trial_view(queue.config.score.objective, row) for row in queue.rows()]
    assert len(views) == queue.config.budget.trials
    printed_table = [
        line.replace(" cause why", "") for line in map(" ".join, map(str.split, printed(trials_table(views))))
    ]
    expected = [" ".join(words(line)) for line in shown()[1]]
    assert [" ".join(words(line)) for line in printed_table] == expected


def test_readme_shows_the_quickstarts_best(queue: TrialQueue, tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    lines = printed(best_table(best_result(folder, queue.config, queue.rows())))
    # without item scores the differences are not paired, so their numbers are others
    compared = [line for line in lines if not line.startswith("files:")]
    expected = [line for line in shown()[0] if not line.startswith("files:")]
    assert [NUMBER.sub("#", line) for line in compared] == [
        NUMBER.sub("#", line.replace(", paired", "")) for line in expected
    ]
    assert compared[:4] == expected[:4]
