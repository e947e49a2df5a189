"""Wrong study files: each gives one clear line for each mistake, the right exit code, and no half-made study.

A row of a table edits one line of a right file: WHERE names the line by its key (`+train:` adds one below it, `+`
one at the end), NEW is what then stands there, SAYS is part of the message. The message must name the first new
line, or the one that ends in `# <--`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hpotune.cli import main
from hpotune.launch.prepare import prepare
from tests.cluster.conftest import cluster_script, slurm_cluster  # noqa: F401 - fixtures of the Slurm row

FINETUNE = """\
name: wrong
model: {path: meta-llama/Llama-3.2-1B}
data:
  path: rows.jsonl
  prompt: alpaca
lora:
  r: {int: [4, 64], log: true}
  lora_alpha: {expr: "2 * lora.r"}
train:
  learning_rate: {float: [1e-5, 1e-2], log: true}
  optim: {choice: [adamw_torch, sgd]}
  sgd_momentum: {float: [0.5, 0.99], when: {train.optim: sgd}}
score:
  objective: {metric: eval_loss}
search: {algorithm: tpe}
budget: {trials: 4}
resources: {time: "1:00:00"}
"""
FUNCTION = """\
name: wrong
python: own.py:bowl
params:
  x: {float: [-3, 3]}
  layers: {int: [1, 9]}
score:
  objective: {metric: value, direction: minimize}
budget: {trials: 4}
"""
COMMAND = """\
name: wrong
command: "echo {x}"
params:
  x: {float: [-3, 3]}
  kind: {choice: [a, b]}
  width: {int: [1, 9], when: {params.kind: b}}
score:
  objective: {metric: value, direction: minimize}
budget: {trials: 4}
"""


class Row(NamedTuple):
    where: str
    new: str
    says: str
    also: tuple[str, str] | None = None
    """A second edit that the mistake needs."""


HELLASWAG = ("objective:", "objective: {task: hellaswag, metric: acc_norm}")
TWO = ("objective:", "objective: [{metric: eval_loss}, {metric: train_loss}]")
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
        "bugdet: unknown key; did you mean 'budget'? valid: budget,",
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
    Row("+lora:", "task_type: CAUSAL_LM", "lora.task_type: task_type is not honoured: hpotune sets it"),
    Row("+train:", "weight_deacy: 0.1", "did you mean 'weight_decay'?"),
    Row("+train:", "bf16: true", "write model.dtype instead"),
    Row("+train:", "fsdp: full_shard", "write resources.gpus"),
    Row("+train:", "eval_strategy: steps", "a trial is evaluated once"),
    Row("budget:", "budget: {parallel: 4}", "budget.trials is missing; add it (Trials that finished"),
    Row("+", "budget: {trials: 8}", "budget is given twice (first on line 16); remove one of them"),
    Row(
        "+lora:",
        "target_modules: all-linear\ntarget_modules: [q_proj]  # <--",
        "lora.target_modules is given twice",
    ),
]
RANGES = [
    Row("r:", "r: {int: [0, 64], log: true}", "int[0]=0 with log: true; needs low > 0, e.g. 1"),
    Row(
        "learning_rate:",
        "learning_rate: {float: [0, 1e-2], log: true}",
        "float[0]=0 with log: true; needs low > 0, e.g. 1e-6",
    ),
    Row("r:", "r: {int: [64, 4]}", "int: [64, 4] needs low < high; a single value needs no range"),
    Row("r:", "r: {int: [4]}", "int: [4] needs two numbers, [low, high]"),
    Row("r:", "r: {int: [4, 8, 16]}", "needs two numbers, [low, high]"),
    Row("r:", "r: {int: [4, many]}", "needs two numbers, [low, high]"),
    Row("r:", "r: {int: [0.5, 8]}", "needs whole numbers; write float for others"),
    Row("learning_rate:", "learning_rate: {float: [1e-5, .inf]}", "needs finite numbers"),
    Row(
        "r:",
        "r: {int: [4, 64], log: true, step: 4}",
        "step: 4 needs a positive whole number, without log: true",
    ),
    Row("r:", "r: {int: [4, 64], step: 0.5}", "step: 0.5 needs a positive whole number"),
    Row("r:", "r: {int: [4, 64], step: 100}", "step: 100 is wider than the range (60)"),
    Row("r:", "r: {int: [4, 64], log: yes}", "log: 'yes' needs true or false"),
    Row("r:", "r: {int: [4, 64], prior: 128}", "prior: 128 needs a number from 4 to 64"),
    Row("r:", "r: {int: [4, 64], prior: 4.5}", "prior: 4.5 needs a whole number"),
    Row("optim:", "optim: {choice: [sgd, adagrad], prior: lion}", "prior: 'lion' is not one of the choices"),
    Row("optim:", "optim: {choice: []}", "needs a list of at least one value"),
    Row("optim:", "optim: {choice: sgd}", "choice: 'sgd' needs a list of at least one value"),
    Row("optim:", "optim: {choice: [sgd, sgd]}", 'choice: "sgd" is given twice; needs different values'),
    Row("r:", "r: {choice: [8, {int: [16, 64]}]}", "is a range inside a range"),
    Row(
        "r:",
        "r: {int: [4, 64], float: [4, 64]}",
        "'int' is not allowed beside 'float'; needs one of float, int",
    ),
    Row(
        "r:",
        "r: {int: [4, 64], lgo: true}",
        "'lgo' is not allowed beside 'int'; needs int, confidence, log, prior, step, when",
    ),
    Row(
        "budget:",
        "budget: {trials: {int: [4, 8]}}",
        "budget.trials: is a range; ranges are allowed under model, data",
    ),
    Row("+", "params: {choice: [a, b]}", "params: is a range as a whole; give a range for one value"),
    Row(
        "objective:",
        "objective: {metric: {choice: [eval_loss, train_loss]}}",
        "all trials are scored in the same way",
    ),
    Row(
        "+score:",
        "batch_size: {int: [4, 16]}",
        "score.batch_size: is a range, but all trials are scored",
    ),
    Row(
        "model:",
        "model: {path: a/b, dtype: {choice: [float32, bfloat16]}}",
        "model.dtype: is a range, but the baseline and all trials share one base model",
    ),
    Row("+data:", "validation: {float: [0.1, 0.2]}", "use the same rows for validation", HELLASWAG),
    Row(
        "+data:",
        "max_length: {int: [64, 512]}",
        "data.max_length: is a range, but the objective eval_loss is measured on these rows",
    ),
    Row(
        "+lora:",
        "target_modules: [{choice: [a, b], when: {lora.r: 4}}]",
        "put the condition on the whole list",
    ),
]
LIMITS = [
    Row("r:", "r: {int: [0, 64]}", "lora.r=0 needs to be 1 or more"),
    Row("r:", "r: -8", "lora.r=-8 needs to be 1 or more"),
    Row("+lora:", "lora_dropout: {float: [0, 1]}", "lora.lora_dropout=1 needs to be 0 or more and below 1"),
    Row("learning_rate:", "learning_rate: -1e-4", "train.learning_rate=-0.0001 needs to be above 0"),
    Row("learning_rate:", "learning_rate: .inf", "train.learning_rate=inf needs a finite number"),
    Row("optim:", "optim: {choice: [sgd, adam]}", "train.optim='adam' is unknown; "),
    Row("optim:", "optim: {choice: [sgd, galore_adamw]}", "it cannot train an adapter here"),
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
    Row("prompt:", "prompt: alpacca", "data.prompt='alpacca' is no prompt; did you mean 'alpaca'?"),
    Row("+data:", "response: '{output}'", "data.response: belongs to a template"),
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
        "resources.gpus='A100:' needs a number a node, or TYPE:NUMBER",
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
        "env.setup: sets PGPASSWORD, a secret, and job scripts",
    ),
    Row("+", "store: mysql://host/db", "store='mysql://host/db' is no store; needs auto, sqlite, journal,"),
    Row("+", "store: 'sqlite://'", "lies in no file"),
    Row("+", "store: postgresql://me:geheim@host/db", "store='postgresql://me:***@host/db' holds a password"),
]
NAMES = [
    Row(
        "lora_alpha:",
        'lora_alpha: {expr: "round(64 * train.sgd_momentum)"}',
        "reads 'train.sgd_momentum', which has no value here; a conditional one needs the same `when`",
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
        "calls __import__('os'); it may call min, max",
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
        "reckons with 'adamw_torch', which is no number at train.optim='adamw_torch'",
    ),
    Row(
        "search:",
        "search: {algorithm: tpee}",
        "search.algorithm='tpee' is unknown; did you mean 'tpe'? valid: aco, asha, auto",
    ),
    Row(
        "search:",
        "search: {algorithm: tpe, options: {n_startup: 4}}",
        "search.options.n_startup is no option of tpe; did you mean 'n_startup_trials'?",
    ),
    Row(
        "search:",
        "search: {algorithm: random, options: {seed: 4}}",
        "is no option of random; it takes none: remove it",
    ),
    Row(
        "search:",
        "search: {algorithm: cmaes}",
        "cannot take conditions (train.sgd_momentum has `when`) or categories (",
        TWO,
    ),
    Row(
        "objective:",
        "objective: {metric: evl_loss}",
        "metric='evl_loss' needs a task beside it, or to be a number of training; did you mean 'eval_loss'?",
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
        "score.objective.limit: belongs to an lm-eval task; add task, or remove it",
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
        "eval_loss is an objective twice",
    ),
    Row("objective:", "objective: []", "score.objective=[] needs at least 1"),
]
TASKS = [
    Row(
        "objective:",
        "objective: {task: hellaswag, metric: acc_nrm}",
        "metric='acc_nrm' is not given by hellaswag; did you mean 'acc_norm'? valid: acc, acc_norm",
    ),
    Row(
        "objective:",
        "objective: {task: mmlu, metric: acc_norm}",
        "metric='acc_norm' is not given by mmlu; valid: acc",
    ),
    Row(
        "objective:",
        "objective: {task: helaswag, metric: acc_norm}",
        "'helaswag' is no lm-eval task; did you mean hellaswag",
    ),
    Row("+score:", "test:\n  - mmlu\n  - mmlu_abstract_algbra  # <--", "did you mean mmlu_abstract_algebra"),
    Row(
        "+score:",
        "record: [eval_los]",
        "'eval_los' is no lm-eval task and no number of the training; did you mean eval_loss",
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
        "'mmlu_stem' is sealed, but 'mmlu' in score.objective holds",
        ("objective:", "objective: {task: mmlu, metric: acc}"),
    ),
    Row(
        "+score:",
        "test: [mmlu]",
        "'mmlu' is sealed, but 'mmlu_anatomy' in score.objective holds mmlu_anatomy of it",
        ("objective:", "objective: {task: mmlu_anatomy, metric: acc}"),
    ),
    Row("+score:", "test: [arc_easy]\nrecord: [arc_easy]", "but 'arc_easy' in score.record is the same task"),
]
RUNGS = [
    Row("search:", "search: {pruner: ashaa}", "search.pruner='ashaa' needs 'none', 'asha', 'hyperband'"),
    Row(
        "search:",
        "search: {rungs: [0.5, 1]}",
        "search.rungs: is for a pruner, and there is none; add pruner: asha",
    ),
    Row("search:", "search: {pruner_options: {eta: 3}}", "is for a pruner, and there is none"),
    Row("search:", "search: {pruner: asha, rungs: half}", "needs a list of shares, e.g. [0.11, 0.33, 1]"),
    Row("search:", "search: {pruner: asha, rungs: [1]}", "[1] is one rung, so that nothing can be stopped"),
    Row(
        "search:",
        "search: {pruner: asha, rungs: [0.5, 0.2, 1]}",
        "[0.5, 0.2, 1] needs numbers above 0 that grow",
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
        "rate is no option of asha; valid: eta",
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
        "takes one objective, this study has 2; write asha or hyperband",
        TWO,
    ),
    Row(
        "search:",
        "search: {pruner: asha, rungs: {unit: steps, at: [10, 30]}}",
        "end at 30 steps, and train.max_steps is 40; make them equal",
        ("+train:", "max_steps: 40"),
    ),
]
FILES = [
    Row(
        "path:",
        "path: row.jsonl",
        "row.jsonl); paths are relative to the study file; did you mean 'rows.jsonl'?",
    ),
    Row("path:", "path: ./absent", "data.path='./absent' does not exist"),
    Row(
        "path:", "path: some/folder/of/rows", "is neither a file here nor a Hugging Face id (NAMESPACE/NAME)"
    ),
    Row("path:", "path: notes.txt", "is no data file; needs one of .json, .jsonl, .csv, .parquet"),
    Row("path:", "path: broken.jsonl", "is not jsonl with one record a row; look at its first line"),
    Row("path:", "path: broken.json", "is not json with one record a row"),
    Row("path:", "path: empty.csv", "is not csv with one record a row"),
    Row("prompt:", "prompt: text", "column 'text' is not in"),
    Row("prompt:", "prompt: '{instruktion}: '", "column 'instruktion' is not in"),
    Row(
        "prompt:",
        "prompt: chat",
        "needs the column messages, or instruction and output",
        ("path:", "path: other.csv"),
    ),
    Row("prompt:", "prompt: alpaca", "did you mean 'outputs'?", ("path:", "path: other.csv")),
    Row(
        "prompt:",
        "prompt: alpaca",
        "name others with data.columns: {ours: theirs}",
        ("path:", "path: near.json"),
    ),
    Row("+data:", "columns: {output: answer}", "column 'answer' is not in"),
    Row(
        "+data:",
        "columns: {ouput: output}",
        "data.columns.ouput is a column that 'alpaca' does not read; did you mean 'output'?",
    ),
    Row("model:", "model: {path: ./models/llama}", "model.path='./models/llama' does not exist"),
    Row("model:", "model: {path: /dev/null/model}", "model.path='/dev/null/model' does not exist"),
    Row(
        "model:", "model: {path: rows.jsonl}", "needs a folder with config.json and weights, or a .gguf file"
    ),
    Row("model:", "model: {path: folder}", "holds no config.json"),
    Row(
        "model:",
        "model: {path: 'package:llm_absent/model.gguf'}",
        "names the package 'llm_absent', which is not installed",
    ),
    Row(
        "path:",
        "path: {choice: [rows.jsonl, ./absent]}",
        "data.path='./absent' does not exist",
        HELLASWAG,
    ),
    Row(
        "path:", "path: s3://bucket/rows.jsonl", "is in a bucket, which a trial cannot read yet; download it"
    ),
    Row("+", "env: {container: images/own.sif}", "env.container='images/own.sif' does not exist"),
    Row(
        "prompt:",
        "response: '{output}'\nprompt: '{instruction}'",
        "data.response: is not used by sequence_classification",
        ("model:", "model: {path: a/b, task: sequence_classification}"),
    ),
    Row(
        "model:",
        "model: {path: a/b, num_labels: 3}",
        "model.num_labels: serves task: sequence_classification only",
    ),
    Row("+score:", "include_path: my_tasks", "score.include_path='my_tasks' does not exist"),
    Row("+score:", "include_path: rows.jsonl", "is a file; needs a folder"),
    Row("+", "data_root: /absent/root", "data_root='/absent/root' does not exist"),
    Row("+", "env: {venv: folder}", "is no virtual environment (no bin/activate)"),
]
FUNCTIONS = [
    Row("+", "keep: {best: 3}", "keep: is used by fine-tuning only, not by `python:`; remove it"),
    Row("+", "env: {offline: false}", "env.offline: is used by fine-tuning only"),
    Row(
        "objective:",
        "objective: {metric: answer_rate}",
        "score.objective.metric: 'answer_rate' has no known direction; add `direction: maximize`",
    ),
    Row("objective:", "objective: {metric: loss_of_trust}", "'loss_of_trust' has no known direction"),
    Row(
        "python:",
        "python: other.py:bowl",
        "other.py: No such file or directory); paths are relative to the study file",
    ),
    Row("python:", "python: own.py:bowls", "holds no function 'bowls'; did you mean 'bowl'? valid: bowl"),
    Row("python:", "python: own.py", "needs FILE.py:FUNCTION"),
    Row("python:", "python: notes.txt:bowl", "is not Python ("),
    Row(
        "python:",
        "python: own.py:bowl",
        "python and command exclude each other; keep one",
        ("+", "command: echo"),
    ),
    Row("python:", "python: own.py:bowl", "python and lora exclude each other", ("+", "lora: {r: 8}")),
    Row("score:", "score:", "lm-eval tasks need a model, and python has none", ("+score:", "test: [mmlu]")),
    Row("name:", "name: wrong", "model and data: are missing; fine-tuning needs both", ("python:", "")),
]
COMMANDS = [
    Row(
        "command:",
        'command: "echo {lr}"',
        "command reads {lr}, which is not under params; valid: kind, width, x",
    ),
    Row("command:", 'command: "echo {kin}"', "did you mean 'kind'?"),
    Row(
        "command:",
        'command: "echo {x"',
        "expected '}' before end of string; write {{ and }} for braces of the shell",
    ),
    Row("command:", "command: \"awk '{}' {x}\"", "holds {}; needs a bare name of params"),
    Row("command:", 'command: "echo {x:.3f}"', "holds {x:.3f}; needs a bare name of params"),
    Row(
        "command:",
        'command: "echo {width}"',
        "only some trials have it (when); let the program read $HPOTUNE_PARAM_WIDTH",
    ),
    Row("command:", "command: [echo, '{x}']", "command=['echo', '{x}'] needs text"),
]
WHOLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "study.yaml:1: has no `key: value` lines; `hpotune init` shows a study file"),
    "only remarks": (b"# soon\n", "study.yaml:1: has no `key: value` lines"),
    "a list": (b"- name: a\n", "study.yaml:1: has no `key: value` lines"),
    "one word": (b"study\n", "study.yaml:1: has no `key: value` lines"),
    "a tab": (b"name: a\nbudget:\n\ttrials: 4\n", "study.yaml:3: a tab is used for indentation"),
    "an open bracket": (b"name: a\nbudget: {trials: 4\n", "study.yaml:3: not YAML: "),
    "a lost indentation": (
        b"name: a\n  budget: 4\n",
        "study.yaml:2: not YAML: mapping values are not allowed here",
    ),
    "two documents": (b"name: a\n---\nname: b\n", "study.yaml:2: a second document starts here"),
    "Latin-1": (
        "name: gr\u00f6\u00dfe\n".encode("latin-1"),
        "study.yaml: is not text in UTF-8; needs a YAML file",
    ),
    "a binary file": (bytes(range(256)), "is not text in UTF-8"),
    "a NUL": (b"name: a\nparams: \0\n", "study.yaml:2: contains a control character"),
    "a value inside itself": (b"name: a\nparams: &p {x: *p}\n", "study.yaml:2: params.x contains itself"),
    "a tag": (b"name: !!python/object:os.system a\n", "study.yaml:1: name has the tag"),
}
CASES = [
    *((FINETUNE, row) for rows in (TYPES, KEYS, RANGES, LIMITS, NAMES, RUNGS, TASKS, FILES) for row in rows),
    *((FUNCTION, row) for row in FUNCTIONS),
    *((COMMAND, row) for row in COMMANDS),
]


def edit(text: str, where: str, new: str) -> str:
    """The text with one line replaced, or with lines added below it or at the end."""
    if where == "+":
        return f"{text}{new}\n"
    key = where.removeprefix("+")
    lines = text.splitlines()
    index = next(i for i, line in enumerate(lines) if line.strip().startswith(key))
    indent = " " * (len(lines[index]) - len(lines[index].lstrip()) + (2 if where.startswith("+") else 0))
    added = [indent + line for line in new.splitlines()]
    lines[index if not where.startswith("+") else index + 1 : index + 1] = added
    return "\n".join(lines) + "\n"


def marked(text: str, first: str) -> int:
    """The line that ends in the mark, else the first new one."""
    lines = text.splitlines()
    return 1 + next(
        (i for i, line in enumerate(lines) if "# <--" in line), lines.index(first) if first in lines else 0
    )


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the right files name."""
    monkeypatch.setenv("HPOTUNE_CACHE", str(cache))
    monkeypatch.delenv("HPOTUNE_DEBUG", raising=False)
    monkeypatch.delenv("HPOTUNE_DATA_ROOT", raising=False)
    row = '{"instruction": "a", "input": "", "output": "b"}\n'
    files = {
        "rows.jsonl": row,
        "broken.jsonl": "instruction,output\n",
        "broken.json": "[1, 2]",
        "empty.csv": "",
        "other.csv": "instruction,outputs\n",
        "near.json": '[{"instruction": "a", "answer": "b"}]',
        "notes.txt": "no Python\n",
        "own.py": "def bowl(x, layers):\n    return x\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


Call = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def hpotune(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command line in this process; gives its exit code and its lines on stderr."""

    def call(*words: object) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["hpotune", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        assert told.out == "" or stop.value.code == 0
        return int(stop.value.code or 0), told.err.splitlines()

    return call


@pytest.fixture
def refused(place: Path, hpotune: Call) -> Callable[..., str]:
    """Runs a verb that must refuse with one line and leave no study; gives the line."""

    def call(verb: str, *words: object, code: int) -> str:
        before = sorted(place.rglob("*"))
        got, lines = hpotune(verb, *words)
        assert (got, len(lines)) == (code, 1), lines
        assert lines[0].startswith("error: ")
        assert "Traceback" not in lines[0]
        assert "bug of hpotune" not in lines[0]
        assert sorted(place.rglob("*")) == before
        return lines[0].removeprefix("error: ")

    return call


@pytest.mark.parametrize("text", [FINETUNE, FUNCTION, COMMAND], ids=["finetune", "function", "command"])
def test_the_files_that_the_tables_edit_are_right(text, place, hpotune):
    (place / "study.yaml").write_text(text, encoding="utf-8")
    assert hpotune("check", place / "study.yaml") == (0, [])


@pytest.mark.parametrize(("base", "row"), CASES, ids=[row.new.splitlines()[0] for _, row in CASES])
def test_a_wrong_line_is_named_with_its_rule(base, row, place, refused):
    if row in TASKS:
        pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install hpotune[trial]")
    text = edit(edit(base, *row.also) if row.also else base, row.where, row.new)
    (place / "study.yaml").write_text(text, encoding="utf-8")
    said = refused("check", place / "study.yaml", code=2)
    indented = [line for line in text.splitlines() if line.strip() == row.new.splitlines()[0].strip()]
    assert said.startswith(f"study.yaml:{marked(text, indented[0] if indented else '')}: "), said
    assert row.says in said


@pytest.mark.parametrize(("content", "says"), WHOLE.values(), ids=WHOLE.keys())
def test_a_file_that_is_no_study_is_named_with_the_reason(content, says, place, refused):
    (place / "study.yaml").write_bytes(content)
    assert says in refused("check", place / "study.yaml", code=2)


SEVERAL = """\
name: wrong
model: {path: a/b, dtyp: auto}
data:
  path: absent.jsonl
  max_length: 4
lora:
  r: {int: [64, 4]}
  lora_alpha: {expr: "2 * lora.r"}
train:
  optim: adam
score:
  objective: {metric: eval_los}
budget: {trials: 0}
zz: 1
"""


def test_every_mistake_is_told_in_the_order_of_the_file_also_beside_a_wrong_range(place, hpotune):
    (place / "study.yaml").write_text(SEVERAL, encoding="utf-8")
    code, lines = hpotune("check", place / "study.yaml")
    assert code == 2
    told = [line.removeprefix("error: study.yaml:").split("=")[0].split(": ")[:2] for line in lines]
    assert told == [
        ["2", "model.dtyp"],
        ["5", "data.max_length"],
        ["7", "lora.r"],
        ["10", "train.optim"],
        ["12", "score.objective.metric"],
        ["13", "budget.trials"],
        ["14", "zz"],
    ]


def test_json_gives_the_same_lines_as_a_document(place, capsys, monkeypatch):
    (place / "study.yaml").write_text(SEVERAL, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["hpotune", "check", str(place / "study.yaml"), "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    told = json.loads(capsys.readouterr().out)
    assert stop.value.code == 2
    assert told["ok"] is False
    assert len(told["mistakes"]) == 7


def test_the_command_itself_says_the_same_as_this_process(place):
    (place / "study.yaml").write_text(edit(FUNCTION, "budget:", "budget: {trials: 0}"), encoding="utf-8")
    command = [sys.executable, "-m", "hpotune", "check", str(place / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: study.yaml:8: budget.trials=0 needs 1 or more\n"


def test_a_missing_column_is_seen_in_parquet(place, refused):
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="pyarrow is not installed: pip install hpotune[trial]"
    )
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"instruction": ["a"], "answer": ["b"]}), place / "rows.parquet")
    (place / "study.yaml").write_text(edit(FINETUNE, "path:", "path: rows.parquet"), encoding="utf-8")
    assert "study.yaml:5: data: column 'output' is not in" in refused("check", place / "study.yaml", code=2)
    (place / "rows.parquet").write_bytes(b"PAR2")
    assert "is not parquet" in refused("check", place / "study.yaml", code=2)


def test_a_study_file_that_is_not_there(place, refused):
    said = refused("check", place / "stduy.yaml", code=2)
    assert "stduy.yaml: no such file; `hpotune init` lists templates to start from" in said


@pytest.mark.parametrize("verb", ["check", "run", "submit", "status", "best", "trials", "cancel"])
def test_a_folder_without_a_study(verb, place, refused):
    assert "holds no study (no resolved.yaml); `hpotune run` or `submit` makes one" in refused(
        verb, place / "folder", code=2
    )


def test_a_study_file_that_may_not_be_read(place, refused):
    said = refused("check", place / "rows.jsonl" / "study.yaml", code=2)
    assert "cannot be read (Not a directory); needs a file you may read" in said


def right(place: Path, where: str = "", new: str = "") -> Path:
    """A right study of a function, one line edited."""
    path = place / "study.yaml"
    path.write_text(edit(FUNCTION, where, new) if where else FUNCTION, encoding="utf-8")
    return path


def test_a_folder_that_cannot_be_made(place, refused):
    said = refused("run", right(place), "--folder", place / "rows.jsonl" / "here", code=1)
    assert "cannot be written (Not a directory); free space, or choose another with --folder" in said


def test_a_folder_without_permission(place):
    study = right(place)
    (place / "folder").chmod(0o500)
    # root may write everywhere, unless that right is taken from it
    as_others = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    run = [sys.executable, "-m", "hpotune", "run", study, "--folder", place / "folder" / "a"]
    done = subprocess.run([*as_others, *run], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, "cannot be written (Permission denied)" in line) == (1, True), line
    assert list((place / "folder").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    disk = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mount is not allowed here; run the tests as root outside of a sandbox")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small_disk, place, refused):
    said = refused("run", right(place), "--folder", small_disk / "here", code=1)
    assert "cannot be written (No space left on device); free space" in said
    assert list(small_disk.iterdir()) == []


def test_an_unreachable_postgres(place, refused):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"postgresql://me@127.0.0.1:{closed.getsockname()[1]}/db"
        said = refused("run", right(place, "+", f"store: {url}"), code=4)
    assert said.startswith(f"{url}: cannot be opened (")
    assert "check host, port, database and PGPASSWORD or ~/.pgpass" in said


@pytest.mark.parametrize("url", ["sqlite:////absent/folder/a.db", "journal:////absent/folder/a.journal"])
def test_a_store_in_a_folder_that_is_not_there(url, place, refused):
    said = refused("run", right(place, "+", f"store: {url}"), code=4)
    assert said.startswith(f"{url}: cannot be opened (")
    assert "check that the folder exists and is writable" in said


def test_another_study_in_the_folder(place, refused, hpotune):
    study = prepare(right(place), chosen=None, data_root=None).folder.path
    right(place, "x:", "x: {float: [-4, 3]}")
    said = refused("run", place / "study.yaml", code=2)
    assert said.startswith(f"{study}: holds a study whose `params` differs from this file's")


def test_a_folder_of_other_things(place, refused):
    (place / "wrong").mkdir()
    (place / "wrong" / "letter.txt").write_text("mine", encoding="utf-8")
    assert "holds other files and no study; rename the study (name:)" in refused("run", right(place), code=2)
    assert (place / "wrong" / "letter.txt").read_text(encoding="utf-8") == "mine"


def test_absent_slurm(place, refused, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    said = refused("submit", right(place), code=3)
    assert said == "sbatch and srun not found: no Slurm here; submit from a login node, or use `hpotune run`"


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm_cluster")
def test_an_absent_partition(place, refused):
    said = refused("submit", right(place, "+", "resources: {partition: a10}"), code=3)
    assert said.startswith("resources.partition='a10' is not on this cluster; did you mean 'a100'? valid: ")
