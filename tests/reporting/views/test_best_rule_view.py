"""The best trial by a rule: its number, what its statistics are about, and what `best` and `status` say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpotune.config.schema.best_rule import BestRule
from hpotune.records.trial import TrialRow
from hpotune.reporting.best_table import best_table
from hpotune.reporting.status_table import best_so_far
from hpotune.reporting.views.best import best_result
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import FINETUNE, config, finished, printed, status_of

RULE = {"minimize": "mem", "subject_to": ["acc >= 0.5"]}
ROWS = [finished(0, 0.4, kind="baseline", metrics={"mem": 1.0})] + [
    finished(number, value, metrics={"mem": gb, "mem_stderr": 0.1})
    for number, (value, gb) in enumerate([(0.9, 9.0), (0.6, 3.0), (0.3, 1.0)], start=1)
]


def test_rule_names_another_best(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    result = best_result(folder, config(best=RULE), ROWS)
    assert result.best is not None
    assert result.rule is not None
    assert (result.best.number, result.ranked_by.label, result.rule.stored) == (2, "mem", True)
    assert result.excluded_by_rule == {3: ("not acc >= 0.5 (acc 0.3)",)}
    assert result.expected is not None
    assert 2.5 < result.expected.value < 3.5
    text = printed(best_table(result))
    assert text.startswith("best of 4 trials by mem: trial 2")
    assert "rule: minimize mem, subject to acc >= 0.5 (best, in the study file)" in text
    assert "  mem                          3 ± 0.1" in text
    assert "excluded by the rule: trial 3 (not acc >= 0.5 (acc 0.3))" in text


def test_rule_of_command_line_is_named(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path)
    result = best_result(folder, config(best=RULE), ROWS, rule=BestRule(maximize="acc"))
    assert result.best is not None
    assert result.best.number == 1
    assert "rule: maximize acc (--rule, for this output only)" in printed(best_table(result))


def test_nothing_satisfies_the_rule(tmp_path: Path) -> None:
    rule = BestRule(subject_to=["acc > 2"])
    result = best_result(StudyFolder(path=tmp_path), config(), ROWS, rule=rule)
    text = printed(best_table(result))
    assert text.startswith("s: no trial satisfies the rule yet")
    assert "excluded by the rule: 3 trials, e.g. trial 1 (not acc > 2 (acc 0.9))" in text


def test_costs_have_no_base_model(tmp_path: Path) -> None:
    rows = [finished(0, 0.4, kind="baseline", metrics={"train_seconds": 0})] + [
        finished(n, 0.5, metrics={"train_seconds": 10.0 * n}) for n in (1, 2)
    ]
    result = best_result(
        StudyFolder(path=tmp_path), config(**FINETUNE, best={"minimize": "train_seconds"}), rows
    )
    assert (result.gain, result.corrected_gain, result.gain_test) == (None, None, None)
    assert "no comparison with the base model by train_seconds: it is a cost" in printed(best_table(result))


def recorded(folder: StudyFolder, number: int, right: list[int], kind: str = "trial") -> TrialRow:
    path = folder.trial(number) / "items.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **{"piqa/acc": np.array(right, dtype=float), "piqa/doc_id": np.arange(len(right))})
    metrics = {"piqa/acc": sum(right) / len(right), "piqa/acc_stderr": 0.1}
    return finished(number, 0.5, kind=kind, metrics=metrics)


def test_recorded_task_is_compared_by_items(tmp_path: Path) -> None:
    """A rule over a task that is recorded, not optimized: paired by its items, against the base model too."""
    folder = StudyFolder(path=tmp_path)
    rows = [
        recorded(folder, 0, [1, 0, 0, 0, 0, 0, 0, 0], "baseline"),
        recorded(folder, 1, [1, 1, 1, 1, 1, 1, 1, 0]),
        recorded(folder, 2, [0, 1, 0, 0, 1, 0, 0, 0]),
    ]
    result = best_result(folder, config(**FINETUNE, best={"maximize": "piqa/acc"}), rows)
    assert result.best is not None
    assert result.gain is not None
    assert (result.best.number, result.gain.value, result.gain.paired) == (1, 0.75, True)
    assert result.gain_test is not None
    assert result.gain_test.method == "exact McNemar"


def test_status_shows_the_ruled_number() -> None:
    [line] = best_so_far(status_of(ROWS, best=RULE))
    assert line == (
        "best so far by the rule (minimize mem, subject to acc >= 0.5): trial 2, acc 0.6 ± 0.01, mem 3 ± 0.1 "
        "(± standard error)"
    )
    [none] = best_so_far(status_of(ROWS, best={"subject_to": "acc > 2"}))
    assert none == "best so far: none; no trial satisfies the rule: maximize acc, subject to acc > 2"
