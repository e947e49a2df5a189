"""Unknown names: one error with line, rule and the nearest valid name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fixtures.wrong_studies import FINETUNE, TWO, Row

NAMES = [
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "round(64 * train.sgd_momentum)"}',
        "reads 'train.sgd_momentum', which has no value here; a conditional value needs the same `when`",
    ),
    Row(
        "sgd_momentum:",
        "sgd_momentum: {float: [0, 0.9], when: {train.optm: sgd}}",
        "when reads 'train.optm', which does not exist; did you mean 'train.optim'?",
    ),
    Row(
        "sgd_momentum:",
        "sgd_momentum: {float: [0, 0.9], when: {train.optim: lion}}",
        "train.optim is never 'lion'; its choices are 'adamw_torch', 'sgd'",
    ),
    Row(
        "sgd_momentum:",
        "sgd_momentum: {float: [0, 0.9], when: {lora.r: 128}}",
        "lora.r is never 128: its range is 4 to 64",
    ),
    Row(
        "sgd_momentum:",
        "sgd_momentum: {float: [0, 0.9], when: {data.prompt: chat}}",
        "data.prompt is never 'chat': it is 'alpaca'",
    ),
    Row("sgd_momentum:", "sgd_momentum: {float: [0, 0.9], when: sgd}", "when: needs {name: value}"),
    Row(
        "optim:",
        "optim: {choice: [sgd, adagrad], when: {train.sgd_momentum: 0.5}}",
        "depends on itself (train.optim -> train.sgd_momentum -> train.optim)",
    ),
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "lora.lora_alpha + 1"}',
        "depends on itself (lora.lora_alpha -> lora.lora_alpha)",
    ),
    Row(
        "lora_alpha:", 'lora_alpha: {expr: "2 * lora.rank"}', "expr reads 'lora.rank', which does not exist; "
    ),
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "2 * budget.trials"}',
        "expr reads 'budget.trials', which does not exist; ",
    ),
    Row(
        "lora_alpha:",
        """lora_alpha: {expr: "__import__('os')"}""",
        "calls __import__('os'); allowed functions: min, max",
    ),
    Row("lora_alpha:", 'lora_alpha: {expr: "2 *"}', "expr: '2 *' is not an expression"),
    Row("lora_alpha:", "lora_alpha: {expr: 2}", 'expr: 2 needs text, such as "2 * lora.r"'),
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "lora.r / 2"}',
        "lora.lora_alpha=2.0 is a number; needs a whole number (expr 'lora.r / 2' at lora.r=4; // and",
    ),
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "lora.r - 64"}',
        "lora.lora_alpha=-60 needs to be 1 or more (expr 'lora.r - 64' at lora.r=4)",
    ),
    Row("lora_alpha:", 'lora_alpha: {expr: "64 // (lora.r - 64)"}', "lora.lora_alpha=-2 needs"),
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "64 // (64 - lora.r)"}',
        "expr '64 // (64 - lora.r)' cannot be computed: ",
    ),
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "2 * train.optim"}',
        "computes with 'adamw_torch', which is not a number at train.optim='adamw_torch'",
    ),
    Row(
        "search:",
        "search: {algorithm: tpee}",
        "search.algorithm='tpee' is unknown; did you mean 'tpe'? valid: aco, asha, auto",
    ),
    Row(
        "search:",
        "search: {algorithm: tpe, options: {n_startup: 4}}",
        "search.options.n_startup is not an option of tpe; did you mean 'n_startup_trials'?",
    ),
    Row(
        "search:",
        "search: {algorithm: random, options: {seed: 4}}",
        "is not an option of random; it has no options: remove it",
    ),
    Row(
        "search:",
        "search: {algorithm: cmaes}",
        "does not support conditions (train.sgd_momentum has `when`) or categories (",
        TWO,
    ),
    Row(
        "objective:",
        "objective: {metric: evl_loss}",
        "metric='evl_loss' needs a task, or is not a metric of training; did you mean 'eval_loss'?",
    ),
    Row(
        "objective:",
        "objective: {metric: seconds}",
        "metric: 'seconds' has no known direction; add `direction: maximize` or",
    ),
    Row(
        "objective:",
        "objective: {metric: seconds, direction: minimize}",
        "metric='seconds' is not measured by fine-tuning",
    ),
    Row(
        "objective:",
        "objective: {metric: samples_per_second, direction: maximize}",
        "is not defined for the base model; write checks: {baseline: false}",
    ),
    Row(
        "objective:",
        "objective: {metric: eval_loss, limit: 100}",
        "score.objective.limit: needs an lm-eval task; add task, or remove limit",
    ),
    Row(
        "objective:",
        "objective: {metric: eval_loss, direction: down}",
        "score.objective.direction='down' needs 'maximize' or 'minimize'",
    ),
    Row(
        "objective:",
        "objective: {metric: eval_loss}",
        "metric='eval_loss' needs data.validation above 0",
        ("+data:", "validation: 0"),
    ),
    Row(
        "objective:",
        "objective:\n  - metric: eval_loss\n  - metric: eval_loss  # <--",
        "eval_loss is given twice as an objective",
    ),
    Row("objective:", "objective: []", "score.objective=[] needs at least 1"),
]


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.new.splitlines()[0])
def test_wrong_name_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FINETUNE, row)
