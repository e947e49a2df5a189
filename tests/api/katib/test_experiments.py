"""A tuning of a Python function, run here as a Katib program runs it: arguments have their effect while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hpotune
from hpotune import search
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.exchange.imports.katib_settings import max_failed


def curve(parameters: dict[str, Any]) -> dict[str, float]:
    import os

    distance = (float(parameters["x"]) - 0.25) ** 2
    for scale in (3.0, 1.0, 2.0):
        print(f"loss={scale * distance}")
    return {"scaled": parameters["factor"] * distance, "greeting": len(os.environ["GREETING"])}


def failing(parameters: dict[str, Any]) -> None:
    raise RuntimeError(f"no value at {parameters['x']}")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> hpotune.KatibClient:
    """The client of a study that has ended: three trials of which the smallest reported loss counts."""
    folder = tmp_path_factory.mktemp("runs")
    client = hpotune.KatibClient(namespace="team", folder=folder, where="local")
    client.tune(
        "curve", objective=curve, parameters={"x": search.double(0.0, 1.0), "factor": 10},
        objective_metric_name="loss", objective_type="minimize", additional_metric_names=["scaled"],
        max_trial_count=3, parallel_trial_count=1, env_per_trial={"GREETING": "hello"},
        study={"store": f"sqlite:///{folder}/curve.db"},
    )  # fmt: skip
    return client


def test_trials_run_as_arguments_say(client: hpotune.KatibClient) -> None:
    trials = client.get_trials("curve")
    assert [one.state for one in trials] == ["finished"] * 3
    for one in trials:
        distance = (float(str(one.params["params.x"])) - 0.25) ** 2
        assert one.values["loss"] == pytest.approx(distance)  # the smallest of the three reports
        assert one.metrics["scaled"] == pytest.approx(10 * distance)
        assert one.metrics["greeting"] == 5


def test_best_is_as_katib_returns_it(client: hpotune.KatibClient) -> None:
    best = client.get_optimal_hyperparameters("curve")
    assert best is not None
    (assigned,) = best.parameter_assignments
    assert assigned.name == "x"
    smallest = min(one.values["loss"] for one in client.get_trials("curve"))
    assert (best.observation.metrics[0].name, float(best.observation.metrics[0].latest)) == ("loss", smallest)
    assert f"'best_trial_name': '{best.best_trial_name}'" in str(best)


def test_experiment_has_succeeded(client: hpotune.KatibClient) -> None:
    found = client.wait_for_experiment_condition("curve", polling_interval=1)
    assert (found.status.trials, found.status.trials_succeeded, found.status.trials_failed) == (3, 3, 0)
    assert client.is_experiment_succeeded("curve")
    assert not client.is_experiment_running("curve")
    assert [one.name for one in client.list_experiments()] == ["curve"]
    details = client.get_success_trial_details("curve")
    assert {one["name"] for one in details} == {"curve-0", "curve-1", "curve-2"}
    assert client.get_trial_metrics("curve-1")[0].name == "loss"
    assert any(line.startswith("loss=") for line in client.get_job_logs("curve", "curve-1"))


def test_names_without_study_are_refused(client: hpotune.KatibClient) -> None:
    with pytest.raises(StudyFileError, match="other: no study of this name here"):
        client.get_experiment("other")
    with pytest.raises(StudyFileError, match="curve-9: no such trial"):
        client.get_trial_metrics("curve-9")
    with pytest.raises(StudyFileError, match="expected_condition: 'Done' is unknown"):
        client.wait_for_experiment_condition("curve", expected_condition="Done")


def test_budget_is_edited_in_total(client: hpotune.KatibClient) -> None:
    client.edit_experiment_budget("curve", max_trial_count=4)
    assert len(client.get_trials("curve")) == 4
    assert client.delete_experiment("curve") == ()
    assert len(client.get_trials("curve")) == 4


def test_other_call_under_name_is_refused(client: hpotune.KatibClient) -> None:
    with pytest.raises(StudyFileError, match="is there already, of another study or an edited one"):
        client.tune(
            "curve", objective=curve, parameters={"x": search.double(0.0, 2.0)}, objective_metric_name="loss",
            objective_type="minimize", max_trial_count=3,
        )  # fmt: skip


def test_goal_and_policy_end_study(tmp_path: Path) -> None:
    hpotune.tune(
        "goal", objective=curve, parameters={"x": search.double(0.0, 1.0), "factor": 1},
        env_per_trial={"GREETING": ""}, objective_metric_name="loss", objective_type="minimize",
        max_trial_count=5, parallel_trial_count=1, objective_goal=10.0, resume_policy="Never",
        where="local", folder=tmp_path, study={"store": f"sqlite:///{tmp_path}/goal.db"},
    )  # fmt: skip
    assert len(hpotune.get_trials("goal", folder=tmp_path)) == 1
    with pytest.raises(StudyFileError, match="resume_policy: Never"):
        hpotune.edit_experiment_budget("goal", max_trial_count=9, folder=tmp_path)


def test_failed_trials_end_study(tmp_path: Path) -> None:
    with pytest.raises(HpotuneError):
        hpotune.tune(
            "bad", objective=failing, parameters={"x": search.int(1, 9)}, objective_metric_name="loss",
            objective_type="minimize", max_trial_count=5, max_failed_trial_count=2, parallel_trial_count=1,
            where="local", folder=tmp_path, study={"store": f"sqlite:///{tmp_path}/bad.db"},
        )  # fmt: skip
    assert [one.state for one in hpotune.get_trials("bad", folder=tmp_path)] == ["failed"] * (
        max_failed(2) + 1
    )
    with pytest.raises(HpotuneError, match="failed"):
        hpotune.wait_for_experiment_condition("bad", polling_interval=1, folder=tmp_path)


def pushing(parameters: dict[str, Any]) -> None:
    import hpotune

    for loss in (3.0, 1.0, 2.0):
        hpotune.report_metrics({"loss": str(loss * parameters["x"])})


def test_pushed_metrics_are_read(tmp_path: Path) -> None:
    hpotune.tune(
        "pushed", objective=pushing, parameters={"x": search.int(2, 2)}, objective_metric_name="loss",
        objective_type="minimize", max_trial_count=1, metrics_collector_config={"kind": "Push"},
        metric_strategies={"loss": "latest"}, where="local", folder=tmp_path,
        study={"store": f"sqlite:///{tmp_path}/pushed.db"},
    )  # fmt: skip
    (trial,) = hpotune.get_trials("pushed", folder=tmp_path)
    assert trial.values == {"loss": 4.0}
    with pytest.raises(StudyFileError, match="report_metrics: loss='low' is no number"):
        hpotune.report_metrics({"loss": "low"})
