"""Numbers outside their limits: one error with line and rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fixtures.wrong_studies import FINETUNE, Row

LIMITS = [
    Row("r:", "r: {int: [0, 64]}", "lora.r=0 needs to be 1 or more"),
    Row("r:", "r: -8", "lora.r=-8 needs to be 1 or more"),
    Row("+lora:", "lora_dropout: {float: [0, 1]}", "lora.lora_dropout=1.0 needs to be 0 or more and below 1"),
    Row("learning_rate:", "learning_rate: -1e-4", "train.learning_rate=-0.0001 needs to be above 0"),
    Row("learning_rate:", "learning_rate: .inf", "train.learning_rate=inf needs a finite number"),
    Row("optim:", "optim: {choice: [sgd, adam]}", "train.optim='adam' is unknown; "),
    Row("optim:", "optim: {choice: [sgd, galore_adamw]}", "it cannot train an adapter"),
    Row("+train:", "lr_scheduler_type: cosin", "is unknown; did you mean 'cosine'? valid: constant"),
    Row("+train:", "lr_scheduler_type: reduce_lr_on_plateau", "needs evaluations during training"),
    Row("+train:", "num_train_epochs: 0", "train.num_train_epochs=0 needs to be above 0"),
    Row("+train:", "per_device_train_batch_size: 0", "needs to be 1 or more"),
    Row("+data:", "max_length: 4", "data.max_length=4 needs 8 or more"),
    Row("+data:", "validation: -1", "data.validation=-1 needs 0 or more"),
    Row("+data:", "validation: 1.5", "data.validation: 1.5 needs a share below 1 or a whole number of rows"),
    Row("+data:", "rows: 100\nvalidation: 100  # <--", "100 of 100 rows leaves none for training"),
    Row("+data:", "split: train[:100", "data.split='train[:100' needs a split, such as train, train[:1000]"),
    Row("+data:", "split: test", "a single file has one split, train"),
    Row("prompt:", "prompt: alpacca", "data.prompt='alpacca' is not a known prompt; did you mean 'alpaca'?"),
    Row("+data:", "response: '{output}'", "data.response: needs a template as prompt"),
    Row("budget:", "budget: {trials: 10000000}", "budget.trials=10000000 needs 1000000 or less"),
    Row(
        "budget:",
        "budget: {trials: 4, parallel: 1000000000}",
        "budget.parallel=1000000000 needs 10000 or less",
    ),
    Row("budget:", f"budget: {{trials: 1{'0' * 30}}}", "needs "),
    Row(
        "resources:",
        "resources:\n  account: |  # <--\n    mine",
        "contains a line break or tab, U+000A; needs one line",
    ),
    Row(
        "resources:", "resources: {extra: {Wrap: x}}", "Wrap: is no option; needs the long name of an option"
    ),
    Row("budget:", "budget: {trials: 0}", "budget.trials=0 needs 1 or more"),
    Row("budget:", "budget: {trials: 4, parallel: -2}", "budget.parallel=-2 needs 1 or more"),
    Row("budget:", "budget: {trials: 4, gpu_hours: 0}", "budget.gpu_hours=0 needs more than 0"),
    Row(
        "budget:",
        "budget: {trials: 4, until: tomorrow}",
        "budget.until='tomorrow' needs a date such as 2026-12-24",
    ),
    Row("budget:", "budget: {trials: 4, until: 2026}", "budget.until=2026 needs a date such as 2026-12-24"),
    Row("name:", "name: my/study", "name='my/study' needs letters, digits, . _ -"),
    Row(
        "resources:",
        "resources: {gpus: 'A100:'}",
        "resources.gpus='A100:' needs a number of GPUs per node, or TYPE:NUMBER",
    ),
    Row("resources:", "resources: {gpus: [4]}", "resources.gpus=[4] needs a whole number or text"),
    Row(
        "resources:",
        "resources: {time: 12h}",
        "resources.time='12h' needs minutes, MM:SS, HH:MM:SS or D-HH:MM:SS",
    ),
    Row(
        "resources:",
        "resources:\n  mem: 64G\n  mem_per_gpu: 16G  # <--\n  gpus: 4",
        "mem and mem_per_gpu exclude each other",
    ),
    Row("resources:", "resources: {mem: lots}", "resources.mem='lots' needs a number with K, M, G or T"),
    Row("resources:", "resources: {cpus_per_gpu: 8}", "resources.cpus_per_gpu: needs gpus"),
    Row("+", "execution: {mode: asnyc}", "needs 'sequential', 'batch' or 'async'; did you mean 'async'?"),
    Row("+", "execution: {lease_s: 1}", "execution.lease_s=1 needs 10 or more"),
    Row("+", "retry: {node: -1}", "retry.node=-1 needs 0 or more"),
    Row("+", "retry: {nodes: 1}", "retry.nodes: unknown key; did you mean 'node'?"),
    Row("+", "retry: {preempted: often}", "retry.preempted='often' needs a whole number"),
    Row("+", "plan: {trial_s: 0}", "plan.trial_s=0 needs more than 0"),
    Row("+", "plan: {queue: 60}", "plan.queue: unknown key; did you mean 'queue_s'?"),
    Row("resources:", "resources: {follow_up: never}", "resources.follow_up='never'"),
    Row("budget:", "budget: {trials: 4, wall_time: soon}", "budget.wall_time='soon' needs minutes, MM:SS"),
    Row("budget:", "budget: {trials: 4, on_end: stop}", "budget.on_end='stop' needs 'drain' or 'cancel'"),
    Row(
        "budget:", "budget: {trials: 4, max_equal_failures: 0}", "budget.max_equal_failures=0 needs 1 or more"
    ),
    Row(
        "+",
        "execution: {trials_per_job: 0}",
        "execution.trials_per_job=0 needs auto or a number of at least 1",
    ),
    Row(
        "+", "env: {vars: {HF_TOKEN: hf_abc}}", "env.vars.HF_TOKEN: is a secret, and job scripts are readable"
    ),
    Row("+", "env: {vars: {PGPASSWORD: geheim}}", "env.vars.PGPASSWORD: is a secret"),
    Row("+", "env: {vars: {MYSQL_PWD: geheim}}", "env.vars.MYSQL_PWD: is a secret"),
    Row("+", "env: {vars: {AWS_SECRET_ACCESS_KEY: geheim}}", "env.vars.AWS_SECRET_ACCESS_KEY: is a secret"),
    Row(
        "+",
        "env: {setup: [export PGPASSWORD=geheim]}",
        "env.setup.0: sets PGPASSWORD, a secret, and job scripts",
    ),
    Row(
        "+",
        "store: mysql://host/db",
        "store='mysql://host/db' is not a known store; needs auto, sqlite, journal,",
    ),
    Row("+", "store: 'sqlite://'", "is in memory, so that no other process can read it"),
    Row("+", "store: postgresql://me:geheim@host/db", "store='postgresql://me:***@host/db' holds a password"),
]


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row.new.splitlines()[0])
def test_wrong_number_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FINETUNE, row)
