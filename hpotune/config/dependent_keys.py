"""Keys of `train` that only some optimizers or schedules read: an error where one would have no effect, or is missing.

Works on the values of the file, ranges included, without the libraries. A fixed value may be read by some choices of
`optim` only; a range that is not read at some of them needs `when`, because the search would vary it for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from hpotune.config.library_values import schedule_arguments
from hpotune.config.space.range_parsing import range_kind
from hpotune.config.yaml_source import Mistake, Value
from hpotune.errors import nearest

Train = Mapping[str, Value]
_ADAM = frozenset({"adam_beta1", "adam_beta2", "adam_epsilon"})
_BETAS = frozenset({"adam_beta1", "adam_beta2"})
_PREFIXES: tuple[tuple[str, frozenset[str]], ...] = (
    ("adamw", _ADAM),
    ("paged_adamw", _ADAM),
    ("stable_adamw", _ADAM),
    ("ademamix", _ADAM),
    ("paged_ademamix", _ADAM),
    ("lion", _BETAS),
    ("paged_lion", _BETAS),
    ("sgd", frozenset({"sgd_momentum"})),
)
"""Start of a value of `optim` -> keys of `train` that it reads, of those in OF_OPTIMIZERS; others read none of them."""
OF_OPTIMIZERS = (*sorted(_ADAM), "sgd_momentum")
NUMBER, WHOLE, FLAG, TEXT = "a number", "a whole number", "true or false", "text"
_OF_ADEMAMIX = {
    **dict.fromkeys(("beta1", "beta2", "beta3", "alpha", "eps"), NUMBER),
    **dict.fromkeys(("t_alpha", "t_beta3"), WHOLE),
}
OPTIM_ARGS: dict[str, dict[str, str]] = {
    "sgd": {"momentum": NUMBER, "dampening": NUMBER, "nesterov": FLAG},
    "adagrad": {"lr_decay": NUMBER, "eps": NUMBER},
    "rmsprop": {"momentum": NUMBER, "alpha": NUMBER, "eps": NUMBER, "centered": FLAG},
    "adamw_anyprecision": {
        "use_kahan_summation": FLAG, "momentum_dtype": TEXT, "variance_dtype": TEXT,
        "compensation_buffer_dtype": TEXT,
    },
    "ademamix": _OF_ADEMAMIX,
    "ademamix_8bit": _OF_ADEMAMIX,
    "paged_ademamix_32bit": _OF_ADEMAMIX,
    "paged_ademamix_8bit": _OF_ADEMAMIX,
    "grokadamw": {
        "alpha_init": NUMBER, "lamb": NUMBER, "gamma": NUMBER, "grokking_signal_decay_rate": NUMBER,
        "gradient_clipping": NUMBER,
    },
    "adamw_torch_4bit": {"bf16_stochastic_round": FLAG},
    "adamw_torch_8bit": {"bf16_stochastic_round": FLAG},
    "stable_adamw": {"max_lr": NUMBER},
}  # fmt: skip
"""Value of `optim` -> names that transformers' Trainer reads from `optim_args` -> what each needs; none for others.

Left out: `weight_decay`, which the parameter groups set, and arguments that transformers passes on as text where the
optimizer needs a number or a truth value (`block_size`, `kahan_sum`, `decouple_lr`, all those of rmsprop_bnb).
Source: transformers, trainer_optimizer.py.
"""
_CHECKS: dict[str, Callable[[str], object]] = {NUMBER: float, WHOLE: int, TEXT: str}
_FLAGS = ("true", "false")


def dependent_key_mistakes(train: Train) -> Iterator[Mistake]:
    """An error for each key of `train` that its optimizer or schedule does not read, or that a schedule lacks."""
    optimizers = _possible(train, "optim", "adamw_torch")
    if optimizers:
        yield from _unread_optimizer_keys(train, optimizers)
        yield from _optim_args_mistakes(train, optimizers)
    yield from _unread_epochs(train)
    if "auto" in _possible(train, "per_device_train_batch_size", "") and not _always(
        train, "global_batch_size"
    ):
        rule = "auto needs global_batch_size: otherwise the batch of a step would depend on the memory"
        key = "per_device_train_batch_size"
        yield ("train", key), f"train.{key}: {rule}; write global_batch_size, e.g. 16, without `when`"
    schedules = _possible(train, "lr_scheduler_type", "linear")
    if schedules:
        yield from _unread_warmup(train, schedules)
        yield from _schedule_mistakes(train, schedules)


def optimizer_keys(optim: str) -> frozenset[str]:
    """The keys of OF_OPTIMIZERS that an optimizer reads."""
    return next((keys for start, keys in _PREFIXES if optim.startswith(start)), frozenset())


def _possible(train: Train, key: str, default: str) -> list[str]:
    """The values that a key may have; empty if they cannot be known here (an expression, a wrong type)."""
    given = train.get(key, default)
    listed = given.get("choice") if isinstance(given, dict) else [given]
    return [value for value in listed if isinstance(value, str)] if isinstance(listed, list) else []


def _always(train: Train, key: str) -> bool:
    """Whether every point has the key."""
    given = train.get(key)
    return given is not None and not (isinstance(given, dict) and "when" in given)


def _present_at(value: Value, key: str, possible: Iterable[str]) -> list[str]:
    """The values of `train.KEY` at which another value exists; none if its `when` reads other names only."""
    when = value.get("when") if isinstance(value, dict) and range_kind(value) else None
    if not isinstance(when, dict):
        return list(possible)
    wanted = when.get(f"train.{key}", [])
    return [name for name in possible if name in (wanted if isinstance(wanted, list) else [wanted])]


def _next_step(value: Value, key: str, reading: Iterable[str]) -> str:
    names = ", ".join(reading)
    if not names:
        return "remove it"
    if isinstance(value, dict) and range_kind(value):
        return f"add when: {{train.{key}: [{names}]}}"
    return f"remove it, or write it as {{choice: [{json.dumps(value)}], when: {{train.{key}: [{names}]}}}}"


def _unread_optimizer_keys(train: Train, optimizers: list[str]) -> Iterator[Mistake]:
    for key in OF_OPTIMIZERS:
        if key not in train:
            continue
        present = _present_at(train[key], "optim", optimizers)
        unread = [name for name in present if key not in optimizer_keys(name)]
        is_fixed = range_kind(train[key]) is None and key in _ADAM
        if unread and not (is_fixed and len(unread) < len(present)):
            reading = [name for name in optimizers if key in optimizer_keys(name)]
            rule = f"has no effect with optim: {unread[0]}"
            yield ("train", key), f"train.{key}: {rule}; {_next_step(train[key], 'optim', reading)}"


def _optim_args_mistakes(train: Train, optimizers: list[str]) -> Iterator[Mistake]:
    given = train.get("optim_args")
    options = given.get("choice") if isinstance(given, dict) else [given]
    present = _present_at(given, "optim", optimizers)
    for text in options if isinstance(options, list) else []:
        error = _optim_args_error(text, train, present) if isinstance(text, str) and present else None
        if error:
            yield ("train", "optim_args"), f"train.optim_args={text!r} {error}"
            return


def _optim_args_error(text: str, train: Train, optimizers: list[str]) -> str | None:
    """The error of one value of `optim_args`, where it is read by one of these optimizers."""
    pairs = [pair.partition("=") for pair in text.replace(" ", "").split(",")]
    if not all(name and separator and value for name, separator, value in pairs):
        return "needs pairs of name and value, such as momentum=0.9,nesterov=true"
    names = [name for name, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        return f"gives {twice} twice; remove one"
    if "momentum" in names and "sgd_momentum" in train:
        return "gives momentum beside train.sgd_momentum; remove one"
    return next(filter(None, (_argument_error(name, value, optimizers) for name, _, value in pairs)), None)


def _argument_error(name: str, value: str, optimizers: list[str]) -> str | None:
    reading = [optim for optim in optimizers if name in OPTIM_ARGS.get(optim, {})]
    if not reading:
        known = sorted({known for optim in optimizers for known in OPTIM_ARGS.get(optim, {})})
        own = {"weight_decay": "train.weight_decay", "lr": "train.learning_rate"}
        adam = {"beta1": "train.adam_beta1", "beta2": "train.adam_beta2", "eps": "train.adam_epsilon"}
        near = (own | (adam if optimizer_keys(optimizers[0]) & _ADAM else {})).get(name)
        hint = f"write {near}" if near else nearest(name, known) if known else "remove it"
        return f"has {name}, which optim: {optimizers[0]} does not read from optim_args; {hint}"
    need = OPTIM_ARGS[reading[0]][name]
    try:
        fits = value.lower() in _FLAGS if need == FLAG else _CHECKS[need](value) is not None
    except ValueError:
        fits = False
    return None if fits else f"has {name}={value}; {name} needs {need}"


def _unread_epochs(train: Train) -> Iterator[Mistake]:
    """An error for a range of epochs beside a number of steps, which takes precedence."""
    steps, epochs = train.get("max_steps"), train.get("num_train_epochs")
    if isinstance(steps, int) and steps > 0 and range_kind(epochs) is not None:
        rule = f"has no effect with max_steps: {steps}; remove one of the two"
        yield ("train", "num_train_epochs"), f"train.num_train_epochs: {rule}"


def _unread_warmup(train: Train, schedules: list[str]) -> Iterator[Mistake]:
    """An error for a warm-up beside a constant rate, which has none."""
    given = train.get("warmup_steps")
    if given is None or given == 0:
        return
    present = _present_at(given, "lr_scheduler_type", schedules)
    is_fixed = range_kind(given) is None
    if "constant" in present and not (is_fixed and present != ["constant"]):
        reading = [name for name in schedules if name != "constant"]
        step = _next_step(given, "lr_scheduler_type", reading) if reading else "write constant_with_warmup"
        yield (
            ("train", "warmup_steps"),
            f"train.warmup_steps: has no effect with lr_scheduler_type: constant; {step}",
        )


def _schedule_mistakes(train: Train, schedules: list[str]) -> Iterator[Mistake]:
    """Errors of `lr_scheduler_kwargs`: names that a schedule does not take, and those that it needs."""
    given = train.get("lr_scheduler_kwargs")
    is_choice = isinstance(given, dict) and range_kind(given) is not None
    present = _present_at(given, "lr_scheduler_type", schedules)
    options = given.get("choice") if isinstance(given, dict) and is_choice else [given]
    where = ("train", "lr_scheduler_kwargs") if given is not None else ("train", "lr_scheduler_type")
    for schedule in schedules:
        for option in (options if isinstance(options, list) else []) if schedule in present else [None]:
            arguments = _arguments_at(option, schedule)
            error = None if arguments is None else _arguments_error(arguments, schedule)
            if error:
                yield where, f"train.lr_scheduler_kwargs: {error}"
                return


def _arguments_at(value: Value, schedule: str) -> set[str] | None:
    """The names of the arguments that exist with a schedule; None if they cannot be known here."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if value is None:
        return set()
    if not isinstance(value, dict):
        return None
    at = "lr_scheduler_type"
    return {name for name, inner in value.items() if _present_at(inner, at, [schedule])}


def _arguments_error(given: set[str], schedule: str) -> str | None:
    if schedule not in schedule_arguments():
        return None
    valid = schedule_arguments()[schedule]
    unknown = sorted(given - valid.keys())
    if unknown:
        hint = nearest(unknown[0], valid) if valid else "it has none: remove it"
        return f"{unknown[0]!r} is not an argument of lr_scheduler_type: {schedule}; {hint}"
    missing = sorted(name for name, default in valid.items() if not default and name not in given)
    if missing:
        return f"{missing[0]} is missing, which lr_scheduler_type: {schedule} needs; add it"
    bounds = {"min_lr", "min_lr_rate"}
    if bounds <= valid.keys() and len(given & bounds) != 1:
        return f"lr_scheduler_type: {schedule} needs one of min_lr and min_lr_rate; give one"
    return None
