"""Keys of `train` that an optimizer or a schedule does not read, or needs; the libraries are the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from hpotune.config.dependent_keys import OF_OPTIMIZERS, OPTIM_ARGS, dependent_key_mistakes, optimizer_keys
from hpotune.config.library_values import _recorded, named_values, schedule_arguments
from hpotune.finetune.training.optimizer import training_arguments
from hpotune.finetune.trial_errors import UserError

BETA = {"float": [0.8, 0.99]}
BOTH = {"choice": ["adamw_torch", "sgd"]}
RIGHT = [
    {},
    {"adam_beta2": 0.99},
    {"optim": "adamw_torch_fused", "adam_epsilon": 1e-7},
    {"optim": BOTH, "adam_beta2": 0.99},
    {"optim": BOTH, "adam_beta2": {**BETA, "when": {"train.optim": "adamw_torch"}}},
    {"optim": BOTH, "sgd_momentum": {**BETA, "when": {"train.optim": ["sgd"]}}},
    {"optim": "lion_8bit", "adam_beta1": 0.9},
    {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=true"},
    {"optim": "rmsprop", "optim_args": {"choice": ["alpha=0.9", "alpha=0.99,eps=1e-6"]}},
    {"optim": {"choice": ["sgd", "rmsprop"]}, "optim_args": "momentum=0.9,alpha=0.9"},
    {"optim": {"expr": "'sgd'"}, "adam_beta1": 0.9},
    {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.5}},
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": {"float": [0, 0.5]}}},
    {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": '{"min_lr": 1e-6}'},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5}},
    {
        "lr_scheduler_type": {"choice": ["linear", "cosine_with_min_lr"]},
        "lr_scheduler_kwargs": {
            "choice": [{"min_lr_rate": 0.1}, {"min_lr": 0.0}],
            "when": {"train.lr_scheduler_type": "cosine_with_min_lr"},
        },
    },
    {"lr_scheduler_type": {"choice": ["constant", "linear"]}, "warmup_steps": 10},
    {"lr_scheduler_type": "constant", "warmup_steps": 0},
    {"max_steps": 9, "num_train_epochs": 2},
    {"max_steps": -1, "num_train_epochs": {"int": [1, 3]}},
]  # fmt: skip
WRONG = [
    ({"optim": "sgd", "adam_beta1": 0.9}, "adam_beta1", "has no effect with optim: sgd; remove it"),
    ({"optim": "adafactor", "adam_epsilon": 1e-7}, "adam_epsilon", "has no effect with optim: adafactor"),
    ({"optim": "lion_32bit", "adam_epsilon": 1e-7}, "adam_epsilon", "has no effect with optim: lion_32bit"),
    ({"optim": "grokadamw", "adam_beta1": 0.9}, "adam_beta1", "has no effect with optim: grokadamw"),
    ({"sgd_momentum": 0.9}, "sgd_momentum", "has no effect with optim: adamw_torch; remove it"),
    ({"optim": BOTH, "adam_beta2": BETA}, "adam_beta2", "optim: sgd; add when: {train.optim: [adamw_torch]}"),
    (
        {"optim": BOTH, "sgd_momentum": 0.9}, "sgd_momentum",
        "write it as {choice: [0.9], when: {train.optim: [sgd]}}",
    ),
    (
        {"optim": BOTH, "adam_beta2": {**BETA, "when": {"train.optim": ["adamw_torch", "sgd"]}}}, "adam_beta2",
        "has no effect with optim: sgd",
    ),
    ({"optim_args": "momentum=0.9"}, "optim_args", "momentum, which optim: adamw_torch does not read from optim_args"),
    ({"optim_args": "beta1=0.8"}, "optim_args", "does not read from optim_args; write train.adam_beta1"),
    ({"optim": "sgd", "optim_args": "weight_decay=0.1"}, "optim_args", "write train.weight_decay"),
    ({"optim": "sgd", "optim_args": "momentun=0.1"}, "optim_args", "did you mean 'momentum'? valid: dampening"),
    ({"optim": "sgd", "optim_args": "momentum"}, "optim_args", "needs pairs of name and value"),
    ({"optim": "sgd", "optim_args": "momentum=a"}, "optim_args", "momentum=a; momentum needs a number"),
    ({"optim": "sgd", "optim_args": "nesterov=on"}, "optim_args", "nesterov=on; nesterov needs true or false"),
    ({"optim": "sgd", "optim_args": "momentum=0,momentum=1"}, "optim_args", "gives momentum twice"),
    (
        {"optim": "sgd", "optim_args": "momentum=0.9", "sgd_momentum": 0.9}, "optim_args",
        "gives momentum beside train.sgd_momentum; remove one",
    ),
    ({"optim": "rmsprop_bnb", "optim_args": "alpha=0.9"}, "optim_args", "which optim: rmsprop_bnb does not read"),
    ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "lr_scheduler_kwargs", "lr_scheduler_type: linear; it has none"),
    (
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 2}}, "lr_scheduler_kwargs",
        "'num_cycle' is not an argument of lr_scheduler_type: cosine; did you mean 'num_cycles'?",
    ),
    (
        {"lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {"last_epoch": 2}}, "lr_scheduler_kwargs",
        "'last_epoch' is not an argument of lr_scheduler_type: constant_with_warmup",
    ),
    (
        {"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type",
        "lr_scheduler_type: cosine_with_min_lr needs one of min_lr and min_lr_rate; give one",
    ),
    (
        {"lr_scheduler_type": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0, "min_lr_rate": 0}},
        "lr_scheduler_kwargs", "needs one of min_lr and min_lr_rate",
    ),
    (
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"decay_type": "linear"}},
        "lr_scheduler_kwargs", "num_decay_steps is missing, which lr_scheduler_type: warmup_stable_decay needs",
    ),
    (
        {"lr_scheduler_type": {"choice": ["cosine", "linear"]}, "lr_scheduler_kwargs": {"num_cycles": 2}},
        "lr_scheduler_kwargs", "'num_cycles' is not an argument of lr_scheduler_type: linear",
    ),
    ({"max_steps": 9, "num_train_epochs": {"int": [1, 3]}}, "num_train_epochs", "has no effect with max_steps: 9"),
    ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "warmup_steps", "lr_scheduler_type: constant; write"),
    (
        {"lr_scheduler_type": {"choice": ["constant", "linear"]}, "warmup_steps": {"int": [0, 9]}}, "warmup_steps",
        "add when: {train.lr_scheduler_type: [linear]}",
    ),
]  # fmt: skip


@pytest.mark.parametrize("train", RIGHT, ids=repr)
def test_keys_that_are_read(train):
    assert list(dependent_key_mistakes(train)) == []


@pytest.mark.parametrize(("train", "key", "says"), WRONG, ids=repr)
def test_key_without_effect_is_refused(train, key, says):
    [(where, text)] = dependent_key_mistakes(train)
    assert where == ("train", key)
    assert says in text


def optimizer_options(optim: str, **more) -> object:
    args = transformers.TrainingArguments(
        output_dir="/tmp", use_cpu=True, report_to="none", optim=optim, **more
    )
    kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(args, torch.nn.Linear(1, 1))
    return kind, options


@pytest.mark.parametrize(
    "optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"]
)
def test_tables_follow_transformers(optim):
    default = optimizer_options(optim)
    read = {key for key in OF_OPTIMIZERS[:3] if optimizer_options(optim, **{key: 0.5}) != default}
    assert read == optimizer_keys(optim) - {"sgd_momentum"}
    every = sorted({name for names in OPTIM_ARGS.values() for name in names} | {"lr", "betas", "block_size"})
    read = {name for name in every if optimizer_options(optim, optim_args=f"{name}=1") != default}
    assert read == OPTIM_ARGS.get(optim, {}).keys()


def test_every_optimizer_has_its_keys():
    no_keys = {optim for optim in named_values("optim") if not optimizer_keys(optim)}
    assert no_keys == {
        "adafactor", "adagrad", "grokadamw", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
    }  # fmt: skip
    assert OPTIM_ARGS.keys() <= set(named_values("optim"))


def test_recorded_schedules_have_the_names():
    assert _recorded()["schedules"].keys() == schedule_arguments().keys()
    assert set(named_values("lr_scheduler_type")) <= schedule_arguments().keys()


STEPS = {"max_steps": 10, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"optim": "sgd", "optim_args": "nesterov=true"}, "train.optim: sgd does not accept its arguments (Nesterov"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 0.1}}, "lr_end (0.1) must be smaller"),
        ({"lr_scheduler_type": "polynomial", "warmup_steps": 10}, "has no rate at step 10 of 10 after a warm-up"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "train.lr_scheduler_kwargs: cosine_with_min_lr does not accept"),
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0.1}}, "times learning_rate"),
        (
            {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 11}},
            "num_decay_steps: 11 and a warm-up of 0 steps are more than the 10 steps of the run; lower one",
        ),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 1, "decay_type": ""},
            },
            "Unknown decay type: ",
        ),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "x"}}, "could not convert"),
        ({"optim": "stable_adamw"}, "train.optim: stable_adamw: You need to install `torch-optimi`"),
    ],
)  # fmt: skip
def test_trial_refuses_before_its_model(train, says):
    with pytest.raises(UserError) as error:
        training_arguments({**STEPS, **train}, seed=0, folder=Path("/tmp"))
    assert says in str(error.value)
    assert str(error.value).startswith("train.")


@pytest.mark.parametrize("kind", named_values("lr_scheduler_type"))
def test_every_schedule_is_accepted(kind):
    needed = {"cosine_with_min_lr": {"min_lr": 0.0}, "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1}}
    needed["warmup_stable_decay"] = {"num_decay_steps": 4}
    train = {"lr_scheduler_type": kind, "lr_scheduler_kwargs": needed.get(kind)}
    given = {key: value for key, value in train.items() if value is not None}
    assert list(dependent_key_mistakes(given)) == []
    assert training_arguments({**STEPS, **given}, seed=0, folder=Path("/tmp")).max_steps == 10


def test_tf32_passes_without_gpu():
    assert training_arguments({**STEPS, "tf32": True}, seed=0, folder=Path("/tmp")).max_steps == 10


def test_auto_batch_needs_global_batch() -> None:
    auto = {"per_device_train_batch_size": "auto"}
    [(key, text)] = dependent_key_mistakes(auto)
    assert (key, "write global_batch_size" in text) == (("train", "per_device_train_batch_size"), True)
    assert [*dependent_key_mistakes(auto | {"global_batch_size": 16})] == []
    among = {"per_device_train_batch_size": {"choice": ["auto", 8]}}
    assert len([*dependent_key_mistakes(among)]) == 1
    sometimes = {"global_batch_size": {"choice": [8, 16], "when": {"train.optim": "sgd"}}}
    assert len([*dependent_key_mistakes(auto | sometimes)]) == 1
