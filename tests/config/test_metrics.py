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


FILTERS = "filter_list: [{name: strict-match, filter: []}, {name: flexible-extract, filter: []}]\n"
FILES = {
    "one.yaml": "include: base\ntask: one\n",
    "base": "metric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "two.yaml": f"task: two\nunsafe_code: true\nmetric_list:\n  - metric: !function own.score\n{FILTERS}",
    "four.yaml": f"task: four\nmetric_list: [{{metric: exact_match}}]\n{FILTERS}",
    "five.yaml": "task: five\nprocess_results: !function own.f\nmetric_list: [{metric: acc}]\n",
    "six.yaml": "task: six\nclass: !function own.Six\n",
    "seven.yaml": "{task: seven, metric_list: [{metric: acc}]}\n",
    "group.yaml": "group: all\ntask: [one]\naggregate_metric_list:\n  - metric: acc\n",
    "broken.yaml": "task: three\nmetric_list: [\n",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> TaskIndex:
    folder = tmp_path_factory.mktemp("tasks")
    for file, text in FILES.items():
        (folder / file).write_text(text)
    alone = Entry(folder=str(folder), members=None)
    entries = dict.fromkeys(("one", "two", "three", "four", "five", "six", "seven"), alone)
    entries["all"] = Entry(folder=str(folder), members=["one"])
    entries["tag"] = Entry(folder=None, members=["one"])
    return TaskIndex(entries=entries)


@pytest.mark.parametrize(
    ("name", "names", "filters"),
    [
        ("one", {"acc", "acc_norm"}, ("none",)),
        ("all", {"acc"}, None),
        ("two", None, ("strict-match", "flexible-extract")),
        ("five", None, ("none",)),
        ("seven", {"acc"}, ("none",)),
    ],
)
def test_task_metrics_come_from_its_file(name, names, filters, index):
    found = task_metrics(index, name)
    assert (found.names, found.filters) == (names, filters)
    assert found.runs_code == (name == "two")


@pytest.mark.parametrize("name", ["three", "six", "tag", "absent"])
def test_metrics_without_readable_file_are_unknown(name, index):
    assert task_metrics(index, name) is None


@pytest.mark.parametrize(
    ("name", "metric", "error"),
    [
        ("one", "acc_norm", None),
        (
            "one",
            "acc,none",
            "score.objective: one has no metric 'acc,none'; did you mean 'acc_norm'? valid: acc, acc_norm",
        ),
        ("one", "f1", "metric='f1' is not a metric of one; valid: acc, acc_norm"),
        ("all", "acc,strict", None),  # the tasks of the group have the filters
        ("all", "f1", "metric='f1' is not a metric of all; valid: acc"),
        ("two", "pass@1,strict-match", None),
        (
            "two",
            "pass@1",
            "score.objective: two has no metric 'pass@1'; valid: pass@1,flexible-extract, pass@1,strict-match",
        ),
        ("four", "exact_match,strict-match", None),
        (
            "four",
            "exact_match",
            "score.objective: four has no metric 'exact_match'; did you mean 'exact_match,strict-match'? "
            "valid: exact_match,flexible-extract, exact_match,strict-match",
        ),
        (
            "four",
            "exact_match,no-such",
            "score.objective: four has no metric 'exact_match,no-such'; did you mean 'exact_match,strict-match'? "
            "valid: exact_match,flexible-extract, exact_match,strict-match",
        ),
        ("five", "anything", None),
    ],
)
def test_metric_needs_one_filter_of_task(name, metric, error, index):
    assert task_metrics(index, name).mistake(name, metric) == error
