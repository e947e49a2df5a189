"""Keys of `--json`: pinned here, because scripts read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpotune.checks.finding import Finding
from hpotune.planning.study_plan import make_plan
from hpotune.records.jobs import JobRow
from hpotune.records.lineage import Lineage
from hpotune.records.trial import Failure, RegretBound, TrialRow
from hpotune.reporting.json_output import as_json
from hpotune.reporting.views.algorithm_view import AlgorithmView
from hpotune.reporting.views.best import best_result
from hpotune.reporting.views.plan_view import plan_view
from hpotune.reporting.views.status import study_status
from hpotune.reporting.views.trial_view import trial_view
from hpotune.reporting.views.why import why_result
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import (
    ASHA,
    FINETUNE,
    FOLDER,
    NOW,
    attempt,
    config,
    finished,
    paused,
    running,
    scored_at_rungs,
    status_of,
)

TRIAL = (
    "number kind state params values stderrs metrics failure attempts rungs race generation parent retry_of forgiven "
    "breaks job host start end seconds gpu_hours"
)
STATUS = (
    "study folder state reason trials running_trials failures interrupted rule best gpu_hours outlook forecast "
    "bad_nodes jobs queue_age_s rehearsal cancelled_by held repeats_wanted repeats opening"
)
BEST = (
    "study folder objectives finished stopped budget rule ranked_by excluded_by_rule candidates best front pareto "
    "tuned_model baseline expected gain corrected_gain gain_test tied recommended left_out unmeasured repeats"
)


def keys(value: Any) -> str:
    """The keys of a mapping, in their order; and the whole document is JSON."""
    assert isinstance(value, dict)
    assert json.loads(json.dumps(value)) == value
    return " ".join(value)


def test_trial_keys() -> None:
    one: Any = as_json(trial_view(config(**ASHA).score.objective, scored_at_rungs(1, 0.3)))
    assert keys(one) == TRIAL
    assert keys(one["rungs"][0]) == "rung budget values"
    failure = Failure(cause="oom", message="m")
    row = TrialRow(number=1, kind="trial", state="failed", params={}, failure=failure)
    failed: Any = as_json(trial_view(config().score.objective, row))
    assert failed["failure"] == {"cause": "oom", "message": "m"}


def test_status_keys() -> None:
    bound = RegretBound(regret=0.1, gain=0.01, ahead=5, trials=9)
    rows = [finished(0, regret_bound=bound), running(1), paused(2)]
    jobs = [JobRow(id="5_0", state="RUNNING"), JobRow(id="6_0", state="PENDING", kind="follow-up")]
    found: Any = as_json(status_of(rows, jobs))
    assert keys(found) == STATUS
    assert (
        keys(found["trials"])
        == "budget finished running stopped raced waiting paused resting lost failed left"
    )
    assert keys(found["running_trials"][0]) == "number host job attempt rung seconds pid silent_s progress"
    assert keys(found["outlook"]) == "regret gain ahead trials"
    assert keys(found["forecast"]) == "trials_left seconds gpu_hours end"
    assert keys(found["jobs"][0]) == "id kind state reason why estimate exit_code trial"
    assert [job["kind"] for job in found["jobs"]] == ["worker", "follow-up"]
    assert keys(found["best"][0]) == TRIAL


def test_status_reason_is_a_text() -> None:
    found: Any = as_json(status_of([finished(n) for n in range(10)]))
    assert found["reason"] == "10 trials finished"


def test_status_names_a_silent_cluster() -> None:
    status = study_status(FOLDER, config(), [], [], [], now=NOW, queue_age_s=3.0, cluster="not reachable: x")
    found: Any = as_json(status)
    assert keys(found) == STATUS.replace("rehearsal", "cluster rehearsal")
    assert (found["queue_age_s"], found["cluster"]) == (3.0, "not reachable: x")


def test_best_keys(tmp_path: Path) -> None:
    rows = [
        finished(0, 0.5, kind="baseline"),
        finished(1, 0.8),
        finished(2, 0.79),
        finished(3, breaks=("a",)),
    ]
    found: Any = as_json(best_result(StudyFolder(path=tmp_path), config(**FINETUNE), rows))
    assert keys(found) == f"{BEST} adapter"
    assert keys(found["best"]) == keys(found["baseline"]) == TRIAL
    assert found["objectives"] == [{"label": "acc", "direction": "maximize", "goal": None}]
    assert keys(found["gain"]) == "value stderr paired sure"
    assert (found["gain"]["sure"], found["tied"], found["left_out"]) == (True, [2], {"3": ["a"]})


def test_best_without_trials_has_no_adapter(tmp_path: Path) -> None:
    assert keys(as_json(best_result(StudyFolder(path=tmp_path), config(), []))) == BEST


def test_why_keys(tmp_path: Path) -> None:
    folder, ended = StudyFolder(path=tmp_path), attempt("paused", cause="preempted", ended_by_other=True)
    row = finished(0, attempts=(ended, attempt()), lineage=Lineage(generation=0, generations=2))
    found: Any = as_json(why_result(folder, config(), [row, running(1)], 0))
    assert keys(found) == (
        "study folder trial kind state cause message params attempts running policy advice log rank lines"
    )
    assert keys(found["attempts"][0]) == "job host start end seconds gpu_hours outcome cause message swept"
    assert [one["swept"] for one in found["attempts"]] == [True, False]
    other: Any = as_json(why_result(folder, config(), [row, running(1)], 1))
    assert keys(other["running"]) == "job host start"


def test_doctor_and_algorithm_keys() -> None:
    assert keys(Finding(kind="store", text="sqlite").as_json()) == "level what found change"
    view = AlgorithmView(
        name="tpe", when="w", cost="c", parallel="p", cannot=("x",), source="s", options={"n": "m"}
    )
    assert keys(as_json(view)) == "name when cost parallel cannot source options"


def test_plan_keys(tmp_path: Path) -> None:
    made = make_plan(StudyFolder(path=tmp_path / "s"), config(), [], now=NOW)
    found: Any = as_json(plan_view(made))
    assert keys(found) == (
        "study trials figures notes processes threads memory race jobs array_limit sbatch no_slurm modes recommended "
        "repeats planned actual"
    )
    assert keys(found["figures"]["trial_s"]) == "value source"
    assert keys(found["jobs"][0]) == "count throttle trials_per_job"
    assert keys(found["modes"][0]) == (
        "mode trials_per_job wall_s gpu_hours job_hours jobs arrays idle trials trials_per_hour steps reason own "
        "recommended"
    )
    assert keys(found["recommended"]) == "mode trials_per_job reason"
