"""Wrong ranges: one error with line and rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fixtures.wrong_studies import FINETUNE, HELLASWAG, Row

RANGES = [
    Row("r:", "r: {int: [0, 64], log: true}", "int[0]=0 with log: true; needs low > 0, e.g. 1"),
    Row(
        "learning_rate:",
        "learning_rate: {float: [0, 1e-2], log: true}",
        "float[0]=0 with log: true; needs low > 0, e.g. 1e-6",
    ),
    Row("r:", "r: {int: [64, 4]}", "int: [64, 4] needs low < high; a single value needs no range"),
    Row("r:", "r: {int: [1, 1e16]}", "int: [1, 1e+16] needs numbers up to 2^53"),
    Row("learning_rate:", "learning_rate: {float: [-1e308, 1e308]}", "needs finite numbers"),
    Row(
        "learning_rate:", "learning_rate: {float: [0, 1e400]}", "float.1=1e400 is beyond the range of double"
    ),
    Row(
        "learning_rate:",
        "learning_rate: {float: [0, " + "9" * 400 + "]}",
        "is beyond the range of double precision",
    ),
    Row(
        "learning_rate:",
        "learning_rate: {float: [0, 1], step: 1e-300}",
        "step: 1e-300 gives more than 1,000,000,000",
    ),
    Row("learning_rate:", "learning_rate: {normal: [0.1, 1e308]}", "reaches beyond 1.7e308"),
    Row(
        "learning_rate:",
        "learning_rate: {normal: [1, 0.1], step: 1e-300}",
        "gives more than 1,000,000,000 values",
    ),
    Row("r:", "r: {normal: [1e300, 1e299], int: true}", "reaches beyond 2^53 with int: true"),
    Row("r:", "r: {lognormal: [600, 1], int: true}", "reaches beyond 2^53 with int: true"),
    Row("optim:", f"optim: {{choice: {[*range(1001)]}}}", "choice: has 1001 options; needs at most 1,000"),
    Row(
        "+",
        "\n".join(["params:", *(f"  p{i}: {{float: [0, 1]}}" for i in range(196))]) + "  # <--",
        "the file has 201 ranges; needs at most 200",
    ),
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
        "prompt:",
        "prompt: {choice: [alpaca, chat]}",
        "data.prompt: is a range with chat, which score.chat_template: auto follows, so that the trials could not be "
        "compared; write score.chat_template: true or false",
        HELLASWAG,
    ),
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
        "+score:",
        "race: true",
        "score.race: compares the answers of trials to the same requests, and num_fewshot is a range",
        ("objective:", "objective: {task: hellaswag, metric: acc_norm, num_fewshot: {int: [0, 4]}}"),
    ),
    Row(
        "+score:",
        "generation: {float: [0.1, 0.9]}",
        "score.generation: is a range, but all trials are scored",
    ),
    Row(
        "+score:",
        "generation: {num_beams: {itn: [1, 4]}}",
        "score.generation.num_beams: 'itn' is not a kind of range; did you mean 'int'?",
    ),
    Row(
        "+score:",
        "generation: {temprature: {float: [0.1, 0.9]}}",
        "score.generation.temprature: unknown key; did you mean 'temperature'?",
    ),
    Row(
        "+score:",
        "generation: {do_sample: {choice: [true, false]}, temperature: {float: [0.1, 0.9]}}",
        "score.generation.temperature: has no effect with do_sample: false; remove it, or make it a range with when",
    ),
    Row(
        "+score:",
        "generation: {do_sample: true, temperature: {float: [0, 1]}}",
        "score.generation.temperature=0.0 needs more than 0",
    ),
    Row(
        "model:",
        "model: {path: a/b, dtype: {choice: [float32, bfloat16]}}",
        "model.dtype: is a range, but the baseline and all trials share one base model",
    ),
    Row("+data:", "streaming: {choice: [true, false]}", "same batches with it and without", HELLASWAG),
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


@pytest.mark.parametrize("row", RANGES, ids=lambda row: row.new.splitlines()[0])
def test_wrong_range_is_named(row: Row, check_row: Callable[[str, Row], None]) -> None:
    check_row(FINETUNE, row)
