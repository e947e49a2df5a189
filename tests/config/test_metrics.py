"""Directions of metrics by their names, and the metrics of lm-eval tasks."""

from __future__ import annotations

import pytest

from hpotune.config.lm_eval_tasks import Entry, TaskIndex
from hpotune.config.metrics import known_sense, plain_sense, task_metrics


@pytest.mark.parametrize(
    ("metric", "sense"),
    [
        ("acc_norm", "maximize"),
        ("exact_match,strict-match", "maximize"),
        ("eval_loss", "minimize"),
        ("word_perplexity", "minimize"),
        ("bits_per_byte", "minimize"),
        ("power", None),
        ("answer_rate", None),
        ("counter", None),
        ("passes", None),
        ("acc_loss", None),
    ],
)
def test_metric_name_gives_direction(metric, sense):
    assert known_sense(metric) == sense


@pytest.mark.parametrize(
    ("metric", "sense"),
    [
        ("loss", "minimize"),
        ("val_acc", "maximize"),
        ("f1", "maximize"),
        ("loss_of_trust", None),
        ("value", None),
    ],
)
def test_own_metric_needs_common_name(metric, sense):
    assert plain_sense(metric) == sense


FILES = {
    "one.yaml": "include: base\ntask: one\n",
    "base": "metric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "two.yaml": "task: two\nmetric_list:\n  - metric: !function own.score\n",
    "group.yaml": "group: all\ntask: [one]\naggregate_metric_list:\n  - metric: acc\n",
    "broken.yaml": "task: three\nmetric_list: [\n",
}


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("one", {"acc", "acc_norm"}),
        ("all", {"acc"}),
        ("two", None),
        ("three", None),
        ("tag", None),
        ("absent", None),
    ],
)
def test_task_metrics_come_from_its_file(name, metrics, tmp_path):
    for file, text in FILES.items():
        (tmp_path / file).write_text(text)
    alone = Entry(folder=str(tmp_path), members=None)
    group = Entry(folder=str(tmp_path), members=["one"])
    tag = Entry(folder=None, members=["one"])
    index = TaskIndex(entries={"one": alone, "two": alone, "three": alone, "all": group, "tag": tag})
    assert task_metrics(index, name) == metrics
