"""Wrong lm-eval tasks and rungs: one error with line and rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fixtures.wrong_studies import FINETUNE, HELLASWAG, TWO, Row

TASKS = [
    Row(
        "objective:",
        "objective: {task: hellaswag, metric: acc_nrm}",
        "metric='acc_nrm' is not a metric of hellaswag; did you mean 'acc_norm'? valid: acc, acc_norm",
    ),
    Row(
        "objective:",
        "objective: {task: mmlu, metric: acc_norm}",
        "metric='acc_norm' is not a metric of mmlu; valid: acc",
    ),
    Row(
        "objective:",
        "objective: {task: helaswag, metric: acc_norm}",
        "'helaswag' is not an lm-eval task; did you mean hellaswag",
    ),
    Row("+score:", "test:\n  - mmlu\n  - mmlu_abstract_algbra  # <--", "did you mean mmlu_abstract_algebra"),
    Row(
        "+score:",
        "record: [eval_los]",
        "'eval_los' is not an lm-eval task or a metric of training; did you mean eval_loss",
    ),
    Row(
        "+score:",
        "record: [{task: piqa, limt: 4}]",
        "score.record.0.limt: unknown key; did you mean 'limit'?",
    ),
    Row(
        "+score:",
        "record: [{task: piqaa, limit: 4}]",
        "'piqaa' is not an lm-eval task or a metric of training",
    ),
    Row("+score:", "record: [{task: piqa, limit: 0}]", "score.record.0.limit=0"),
    Row(
        "+score:",
        "record: [{task: eval_loss, limit: 4}]",
        "eval_loss is a number of the training, without settings",
    ),
    Row(
        "+score:", "record: [piqa, {task: piqa, limit: 4}]", "record: piqa has two settings, limit 4 and none"
    ),
    Row(
        "+score:",
        "record: [{task: hellaswag, limit: 4}]",
        "score.record: hellaswag has two settings, limit 4 and none; write one",
        HELLASWAG,
    ),
    Row(
        "+score:",
        "test: [{task: hellaswag, num_fewshot: 3}]",
        "'hellaswag' is sealed, but 'hellaswag' in score.objective is the same task",
        HELLASWAG,
    ),
    Row(
        "+score:",
        "test: [hellaswag]",
        "'hellaswag' is sealed, but 'hellaswag' in score.objective is the same task",
        HELLASWAG,
    ),
    Row(
        "+score:",
        "test: [mmlu_stem]",
        "'mmlu_stem' is sealed, but 'mmlu' in score.objective contains",
        ("objective:", "objective: {task: mmlu, metric: acc}"),
    ),
    Row(
        "+score:",
        "test: [mmlu]",
        "'mmlu' is sealed, but 'mmlu_anatomy' in score.objective contains mmlu_anatomy of it",
        ("objective:", "objective: {task: mmlu_anatomy, metric: acc}"),
    ),
    Row(
        "objective:",
        "objective: {task: gsm8k, metric: exact_match}",
        "score.objective: gsm8k has no metric 'exact_match'; did you mean 'exact_match,strict-match'? "
        "valid: exact_match,flexible-extract, exact_match,strict-match",
    ),
    Row(
        "objective:",
        "objective: {task: gsm8k, metric: exact_match,strict-match}",
        'if it belongs to the value before, quote that: metric: "exact_match,strict-match"',
    ),
    Row(
        "objective:",
        'objective: {task: humaneval, metric: "pass@1,create_test"}',
        "score.objective: humaneval executes the code that the model writes (unsafe_code); to allow it on the nodes, "
        "without a sandbox, write score.confirm_unsafe_code: true",
    ),
    Row(
        "objective:",
        "objective: {task: humaneval, metric: pass@1}\nconfirm_unsafe_code: true",
        "score.objective: humaneval has no metric 'pass@1'; valid: pass@1,create_test",
    ),
    Row("+score:", "test: [arc_easy]\nrecord: [arc_easy]", "but 'arc_easy' in score.record is the same task"),
]
RUNGS = [
    Row("search:", "search: {pruner: ashaa}", "search.pruner='ashaa' needs 'none', 'asha', 'hyperband'"),
    Row(
        "search:",
        "search: {rungs: [0.5, 1]}",
        "search.rungs: needs a pruner; add pruner: asha",
    ),
    Row("search:", "search: {pruner_options: {eta: 3}}", "needs a pruner"),
    Row("search:", "search: {pruner: asha, rungs: half}", "needs a list of shares, e.g. [0.11, 0.33, 1]"),
    Row("search:", "search: {pruner: asha, rungs: [1]}", "[1] is one rung, so that no trial can be pruned"),
    Row(
        "search:",
        "search: {pruner: asha, rungs: [0.5, 0.2, 1]}",
        "[0.5, 0.2, 1] needs increasing numbers above 0",
    ),
    Row(
        "search:",
        "search: {pruner: asha, rungs: [0.1, 0.5]}",
        "[0.1, 0.5] does not end with 1, the whole run",
    ),
    Row(
        "search:",
        "search: {pruner: asha, rungs: {unit: steps, at: [5, 9.5]}}",
        "needs whole numbers of steps",
    ),
    Row(
        "search:",
        "search: {pruner: asha, rungs: {unit: epochs, at: [1, 2]}}",
        "search.rungs.unit='epochs' needs",
    ),
    Row(
        "search:",
        "search: {pruner: asha, pruner_options: {rate: 3}}",
        "rate is not an option of asha; valid: eta",
    ),
    Row(
        "search:", "search: {pruner: asha, pruner_options: {eta: 1}}", "eta: 1 needs a number from 2 to 1000"
    ),
    Row(
        "search:",
        "search: {algorithm: bohb, pruner: median}",
        "median contradicts algorithm: bohb, which prunes by",
    ),
    Row("search:", "search: {pruner: wilcoxon}", "so the objective needs an lm-eval task; write median"),
    Row(
        "search:",
        "search: {pruner: asha, rungs: {unit: items, at: [9, 99]}}",
        "needs an lm-eval task as the objective",
    ),
    Row(
        "search:",
        "search: {pruner: median}",
        "supports one objective, this study has 2; write asha or hyperband",
        TWO,
    ),
    Row(
        "search:",
        "search: {pruner: asha, rungs: {unit: steps, at: [10, 30]}}",
        "end at 30 steps, and train.max_steps is 40; make them equal",
        ("+train:", "max_steps: 40"),
    ),
]


@pytest.mark.parametrize("row", TASKS, ids=lambda row: row.new.splitlines()[0])
def test_wrong_task_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install hpotune[trial]")
    check_row(FINETUNE, row)


@pytest.mark.parametrize("row", RUNGS, ids=lambda row: row.new.splitlines()[0])
def test_wrong_rung_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FINETUNE, row)
