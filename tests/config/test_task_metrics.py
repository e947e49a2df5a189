"""The metrics of lm-eval tasks, read from their files."""

from __future__ import annotations

import pytest

from hpotune.config.lm_eval_tasks import Entry, TaskIndex
from hpotune.config.task_metrics import task_metrics

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
def test_metrics_are_those_of_the_file_or_nothing_is_said(name, metrics, tmp_path):
    for file, text in FILES.items():
        (tmp_path / file).write_text(text)
    alone = Entry(folder=str(tmp_path), members=None)
    group = Entry(folder=str(tmp_path), members=["one"])
    tag = Entry(folder=None, members=["one"])
    index = TaskIndex(entries={"one": alone, "two": alone, "three": alone, "all": group, "tag": tag})
    assert task_metrics(index, name) == metrics
