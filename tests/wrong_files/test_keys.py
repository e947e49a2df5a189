"""Wrong types and unknown or doubled keys: one error with line and rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fixtures.wrong_studies import FINETUNE, Row

TYPES = [
    Row("model:", "model:", "model: is missing; fine-tuning needs both, or give python: or command:"),
    Row("budget:", "budget: {trials: many}", "budget.trials='many' needs a whole number"),
    Row("budget:", "budget: {trials: 4.5}", "budget.trials=4.5 needs a whole number"),
    Row("budget:", "budget: {trials: true}", "budget.trials=true needs a whole number"),
    Row("name:", "name: 2024", "name=2024 needs text; put it in quotes: '2024'"),
    Row("+data:", "max_length: long", "data.max_length='long' needs a whole number"),
    Row("+data:", "revision: 1.10", "data.revision=1.1 needs text; put it in quotes"),
    Row("+", "checks: {baseline: yes}", "checks.baseline='yes' needs true or false"),
    Row("+", "data_root: [a, b]", "data_root=['a', 'b'] needs text"),
    Row("search:", "search:", "search is empty; needs keys with values, or remove the line"),
    Row("model:", "model: meta-llama/Llama-3.2-1B", "model='meta-llama/Llama-3.2-1B' needs keys with values"),
    Row(
        "model:", "model: {path: a/b, dtype: bf16}", "model.dtype='bf16' needs 'auto', 'float32', 'bfloat16'"
    ),
    Row("+", "keep: {best: most}", "keep.best='most' needs a whole number or 'all'"),
    Row("+", "env: {modules: cuda}", "env.modules='cuda' needs a list"),
    Row("+", "env: {vars: {OMP_NUM_THREADS: 1}}", "env.vars.OMP_NUM_THREADS=1 needs text; put it in quotes"),
    Row("r:", "r: 8.5", "lora.r=8.5 is a number; needs a whole number"),
    Row(
        "r:",
        "r: [8, 16]",
        "lora.r=[8, 16] is a list; needs a whole number; for a choice write {choice: [...]}",
    ),
    Row("r:", "r: {choice: [8, sixteen]}", "lora.r='sixteen' is text; needs a whole number"),
    Row("+lora:", "use_dora: 1", "lora.use_dora=1 is a whole number; needs true or false"),
    Row("+lora:", "bias: some", "lora.bias='some' is text; needs none | all | lora_only"),
    Row("learning_rate:", "learning_rate: 2e-4x", "train.learning_rate='2e-4x' is text; needs a number"),
    Row("+train:", "global_batch_size: 3.5", "train.global_batch_size=3.5 is a number; needs a whole number"),
]
KEYS = [
    Row(
        "budget:",
        "bugdet: {trials: 4}\nbudget: {trials: 4}",
        "bugdet: unknown key; did you mean 'budget'? valid: best, budget,",
    ),
    Row("search:", "search: {algoritm: tpe}", "search.algoritm: unknown key; did you mean 'algorithm'?"),
    Row(
        "objective:",
        "objective: {metrc: eval_loss}",
        "score.objective.metrc: unknown key; did you mean 'metric'?",
    ),
    Row(
        "objective:",
        "objective:\n  - metric: eval_loss\n  - metirc: train_loss  # <--",
        "unknown key; did you mean 'metric'?",
    ),
    Row("resources:", "resources: {gpu: 4}", "resources.gpu: unknown key; did you mean 'gpus'?"),
    Row("+lora:", "rank: 8", "lora.rank: unknown key 'rank'; "),
    Row("+lora:", "lora_dropuot: 0.1", "did you mean 'lora_dropout'?"),
    Row("+lora:", "task_type: CAUSAL_LM", "lora.task_type: task_type is not supported: hpotune sets it"),
    Row("+train:", "weight_deacy: 0.1", "did you mean 'weight_decay'?"),
    Row("+train:", "bf16: true", "write model.dtype instead"),
    Row("+train:", "fsdp: full_shard", "write resources.gpus"),
    Row("+train:", "eval_strategy: steps", "a trial is evaluated once"),
    Row(
        "budget:",
        "budget: {parallel: 4}",
        "budget.trials is missing; add it (Number of finished or pruned trials",
    ),
    Row("+", "budget: {trials: 8}", "budget is given twice (first on line 16); remove one of them"),
    Row(
        "+lora:",
        "target_modules: all-linear\ntarget_modules: [q_proj]  # <--",
        "lora.target_modules is given twice",
    ),
]


@pytest.mark.parametrize("row", TYPES, ids=lambda row: row.new.splitlines()[0])
def test_wrong_type_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FINETUNE, row)


@pytest.mark.parametrize("row", KEYS, ids=lambda row: row.new.splitlines()[0])
def test_wrong_key_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FINETUNE, row)
