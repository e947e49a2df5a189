"""Where each number of an estimate comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.planning.estimate import (
    DEFAULTS,
    MEANINGS,
    MeasuredTimes,
    assumptions,
    estimates,
    probe_values,
    stored_name,
)
from hpotune.planning.study_plan import probe_file, read_probe
from hpotune.workspace.folder import StudyFolder

SEEN = MeasuredTimes(
    trials=(12, 14, 22),
    baselines=(5,),
    loads=(1, 1, 4),
    starts=(3,),
    queues=(9, 1, 2),
    gaps=(1,),
    follow_ups=(6,),
)


def config(plan: dict | None = None, *, model: bool = False) -> StudyConfig:
    own = {"model": {"path": "m"}, "data": {"path": "d"}} if model else {"python": "f.py:f"}
    return StudyConfig.model_validate(
        {
            "name": "s",
            **own,
            "score": {"objective": {"metric": "loss"}},
            "budget": {"trials": 4},
            "plan": plan or {},
        }
    )


def test_finished_trials_win_over_everything() -> None:
    found = estimates(config({"trial_s": 99, "queue_s": 99}), SEEN, {"trial_s": 88.0, "start_s": 88.0})
    assert {name: figure.value for name, figure in found.by_name().items()} == {
        "trial_s": 14,  # the mean of 16 less 2 of loading
        "load_s": 2,
        "baseline_s": 3,
        "start_s": 3,
        "queue_s": 2,
        "gap_s": 1,
        "follow_up_s": 6,
    }
    assert found.trial_s.source == "learned from 3 trials"
    assert found.start_s.source == "learned from 1 job"
    assert found.simulation_times.trials_s == (10, 12, 20)


@pytest.mark.parametrize(
    ("plan", "probed", "value", "source"),
    [
        ({"trial_s": 99}, {"trial_s": 88.0}, 88, "probed"),
        ({"trial_s": 99}, {}, 99, "given"),
        ({}, {}, DEFAULTS["trial_s"], "assumed"),
    ],
)
def test_probe_overrides_file_overrides_assumption(
    plan: dict, probed: dict, value: float, source: str
) -> None:
    found = estimates(config(plan), MeasuredTimes(), probed).trial_s
    assert (found.value, found.source, found.is_known) == (value, source, source != "assumed")


def test_default_is_not_a_given_value() -> None:
    assert estimates(config({"trial_s": 1}), MeasuredTimes(), {}).queue_s.source == "assumed"
    assert estimates(config({"queue_s": 0}), MeasuredTimes(), {}).queue_s.source == "given"


def test_own_program_loads_within_trial() -> None:
    assert estimates(config(), MeasuredTimes(), {}).load_s.value == 0
    assert estimates(config(model=True), MeasuredTimes(), {}).load_s.value == DEFAULTS["load_s"]


def test_unknown_baseline_time_equals_trial() -> None:
    found = estimates(config({"trial_s": 50}, model=True), MeasuredTimes(), {})
    assert (found.baseline_s.value, found.baseline_s.source) == (50, "the same as a trial")


def test_assumptions_are_noted_with_advice() -> None:
    said = assumptions(estimates(config({"trial_s": 50, "start_s": 1}), MeasuredTimes(), {}))
    assert "queue_s" in said
    assert "trial_s" not in said
    assert "--probe" in said
    assert "plan: {queue_s: SECONDS}" in said


def test_sums_use_mean_queue_uses_median() -> None:
    found = estimates(config(), MeasuredTimes(starts=(1, 1, 7), queues=(1, 1, 7)), {})
    assert (found.start_s.value, found.queue_s.value) == (3, 1)


def test_no_notes_where_all_is_known() -> None:
    assert (
        assumptions(estimates(config({"trial_s": 5, "start_s": 1, "queue_s": 2}), MeasuredTimes(), {})) == ""
    )


def test_probe_keeps_only_what_it_measured() -> None:
    assert probe_values(SEEN) == {
        "trial_s": 14, "baseline_s": 3, "load_s": 2, "start_s": 3, "queue_s": 2, "gap_s": 1, "follow_up_s": 6
    }  # fmt: skip
    assert probe_values(MeasuredTimes(trials=(3,))) == {"trial_s": 3}


def test_every_figure_has_a_meaning() -> None:
    assert set(estimates(config(), MeasuredTimes(), {}).by_name()) == set(MEANINGS)


def test_stored_keys_never_change(tmp_path: Path) -> None:
    folder = StudyFolder(path=tmp_path / "lab")
    probe_file(folder).write_text('{"turn_s": 3, "step_s": 5, "trial_s": 7}')  # words: ignore
    assert read_probe(folder) == {"gap_s": 3, "follow_up_s": 5, "trial_s": 7}
    names = ("gap_s", "follow_up_s", "trial_s")
    assert [*map(stored_name, names)] == ["turn_s", "step_s", "trial_s"]  # words: ignore
