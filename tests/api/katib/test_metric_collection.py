"""Katib's collectors as `score.collect`."""

from __future__ import annotations

from typing import Any

import pytest

from hpotune.api.katib.metric_collection import put_metric_collection, strategy
from hpotune.api.katib.study_draft import StudyDraft
from hpotune.config.schema import collect_config
from hpotune.errors import StudyFileError

FILE = {"fileSystemPath": {"path": "out.log", "kind": "File", "format": "JSON"}}


@pytest.mark.parametrize(
    ("given", "collect"),
    [
        ({"kind": "StdOut"}, {"kind": "stdout"}),
        ({"kind": "Push"}, {"kind": "push"}),
        ({"kind": "File", "source": FILE}, {"kind": "file", "path": "out.log", "format": "json"}),
        (
            {"kind": "StdOut", "source": {"filter": {"metricsFormat": ["(a)=(b)"]}}},
            {"kind": "stdout", "filter": ["(a)=(b)"]},
        ),
        ({"kind": "TensorFlowEvent", "path": "runs"}, {"kind": "tensorboard", "path": "runs"}),
        ({"kind": "None"}, None),
    ],
)
def test_collectors_become_keys(given: dict[str, Any], collect: dict[str, Any] | None) -> None:
    draft = StudyDraft()
    put_metric_collection(draft, given)
    assert draft.section("score").get("collect") == collect
    collect_config.CollectConfig.model_validate(collect or {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "PrometheusMetric"}, "needs a dict with a kind of StdOut, File"),
        ({"kind": "File", "paht": "x"}, "unknown key 'paht'"),
        ({"kind": "File", "source": {"httpGet": {}}}, "needs fileSystemPath and filter"),
    ],
)
def test_wrong_collectors_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyFileError, match=said):
        put_metric_collection(StudyDraft(), given)


def test_default_strategy_is_the_best_value() -> None:
    assert strategy(None, metric="loss", direction="minimize") == "min"
    assert strategy(None, metric="acc", direction="maximize") == "max"
    assert strategy({"acc": "latest"}, metric="acc", direction="maximize") == "last"
    with pytest.raises(StudyFileError, match="is not the objective's metric"):
        strategy({"other": "min"}, metric="acc", direction="maximize")
