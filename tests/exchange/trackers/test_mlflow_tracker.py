"""MLflow's client reads back what was sent; a second call, and one without the record of the first, make no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.exchange.trackers.mlflow_tracker import MlflowTracker
from tests.exchange.trackers.conftest import SentStudy

pytest.importorskip("mlflow", reason="pip install 'hpotune[mlflow]'")


def test_client_prints_no_addresses() -> None:
    """It would print them on stdout, between the parts of the JSON."""
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT as QUIET

    MlflowTracker("http://127.0.0.1:1", experiment=None)
    assert QUIET.get() is True


def test_runs_are_read_back(sent_study: SentStudy, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sent_study.sync(MlflowTracker(uri, experiment=None))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("small").experiment_id

    def runs() -> dict[str, object]:
        return {one.data.tags["hpotune.run"]: one for one in client.search_runs([experiment])}

    found = runs()
    assert set(found) == {"study", "trial-0", "trial-1", "trial-2"}
    for row in sent_study.rows:
        run = found[f"trial-{row.number}"]
        assert run.info.status == "FINISHED"
        assert run.info.run_name == ("base model" if row.kind == "baseline" else f"trial {row.number}")
        assert run.data.tags["mlflow.parentRunId"] == found["study"].info.run_id
        assert run.data.params == {name: str(value) for name, value in row.params.items()}
        numbers = sent_study.numbers(row)
        assert {name: run.data.metrics[name] for name in numbers} == numbers
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(one.step, one.value) for one in history] == sent_study.losses(row.number)
    (sent_study.folder.path / "trackers" / "sent.json").rename(tmp_path / "sent.json")
    state = (tmp_path / "sent.json").read_text()
    identity = state.partition('"study": "')[2].partition('"')[0]
    (sent_study.folder.path / "trackers" / "sent.json").write_text(f'{{"study": "{identity}", "sent": {{}}}}')
    assert len(sent_study.sync(MlflowTracker(uri, experiment=None)).sent) == 3
    assert {key: run.info.run_id for key, run in runs().items()} == {
        key: run.info.run_id for key, run in found.items()
    }
    history = client.get_metric_history(found["trial-1"].info.run_id, "train/loss")
    assert len(history) == len(sent_study.losses(1)) == 80
