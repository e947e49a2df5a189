"""The fields of peft.LoraConfig and transformers.TrainingArguments: their names, types and limits.

The libraries are not imported, because that takes seconds and a login node may not have them; their source is parsed
instead. If they are not installed, or have the recorded versions, a recorded list is used (`recorded_fields.json`,
written by `python -m hpotune.config.library_values`). library_keys.py lists the fields that a trial supports.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from hpotune.config.yaml_source import Value
from hpotune.errors import nearest

Library = Literal["lora", "train"]
_SOURCES: dict[Library, tuple[str, str, str]] = {
    "lora": ("peft", "tuners/lora/config.py", "LoraConfig"),
    "train": ("transformers", "training_args.py", "TrainingArguments"),
}
_NAMED: dict[str, tuple[str, str, str]] = {
    "optim": ("transformers", "training_args.py", "OptimizerNames"),
    "lr_scheduler_type": ("transformers", "trainer_utils.py", "SchedulerType"),
}
_SCHEDULES = ("transformers", "optimization.py", "TYPE_TO_SCHEDULER_FUNCTION")
_NOT_OF_THE_FILE = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
"""Arguments of transformers' schedules that the training loop sets."""
_WITHOUT_ARGUMENTS = ("constant", "constant_with_warmup")
"""Schedules to which transformers.get_scheduler passes no `lr_scheduler_kwargs`."""
UNFIT: dict[str, tuple[tuple[str, ...], str]] = {
    "optim": (
        ("lomo", "adalomo", "galore", "apollo", "schedule_free"),
        "updates weights in the backward pass or projects full weights: it cannot train an adapter",
    ),
    "lr_scheduler_type": (("reduce_lr_on_plateau", "greedy"), "needs evaluations during training"),
}
"""Field -> (prefixes of values that transformers has and a trial does not support, reason)."""
_RECORDED = Path(__file__).with_name("recorded_fields.json")
_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "None": "null",
    "list": "a list",
    "dict": "a mapping",
}
OWN_TYPES = {
    "global_batch_size": "int",
    "sgd_momentum": "float",
    "method": "Literal['lora', 'full']",
    "loraplus_lr_ratio": "float",
    "packing": "bool",
    "chunked_loss": "bool",
}
"""Fields of `train` that hpotune adds (sequences per step over all ranks; the momentum of `optim: sgd`; what is
trained; the learning rate of LoRA's B matrices over that of A; whether short rows share a sequence; whether the loss of
a large vocabulary is computed in chunks) -> type."""
AUTO_KEYS = frozenset({"per_device_train_batch_size", "activation_checkpointing"})
"""Fields of `train` that may be `auto`: a trial chooses them by its memory estimate (config/memory/)."""
_Limit = tuple[str, Callable[[float], bool]]
_ABOVE_0: _Limit = ("needs to be above 0", lambda value: value > 0)
_FROM_0: _Limit = ("needs to be 0 or more", lambda value: value >= 0)
_FROM_1: _Limit = ("needs to be 1 or more", lambda value: value >= 1)
_SHARE: _Limit = ("needs to be 0 or more and below 1", lambda value: 0 <= value < 1)
_LIMITS: tuple[tuple[Library, _Limit, str], ...] = (
    ("lora", _FROM_1, "r lora_alpha"),
    ("lora", _SHARE, "lora_dropout"),
    (
        "train",
        _ABOVE_0,
        "learning_rate num_train_epochs adam_epsilon logging_steps save_steps loraplus_lr_ratio",
    ),
    ("train", _FROM_1, "per_device_train_batch_size gradient_accumulation_steps global_batch_size"),
    ("train", _SHARE, "adam_beta1 adam_beta2 label_smoothing_factor sgd_momentum"),
    ("train", _FROM_0, "weight_decay max_grad_norm warmup_steps neftune_noise_alpha seed data_seed"),
    ("train", ("needs 1 or more, or -1 for none", lambda value: value >= 1 or value == -1), "max_steps"),
)
"""Section, limit of a number, and the fields that it holds for."""


@cache
def field_types(library: Library) -> Mapping[str, str]:
    """Field name -> annotation as source text, from the installed library or else from the recorded list."""
    tree = _installed(*_SOURCES[library])
    return _recorded()[library] if tree is None else _class_fields(tree)


@cache
def named_values(field: str) -> tuple[str, ...]:
    """The values that `train.optim` or `train.lr_scheduler_type` may have in a trial; empty for other fields."""
    if field not in _NAMED:
        return ()
    tree = _installed(*_NAMED[field])
    names = list(_recorded()[field]) if tree is None else _enum_values(tree)
    return tuple(name for name in names if not name.startswith(UNFIT[field][0]))


@cache
def schedule_arguments() -> Mapping[str, Mapping[str, str]]:
    """Value of `train.lr_scheduler_type` -> argument of `lr_scheduler_kwargs` -> its default; required: empty text."""
    body = _installed_body(*_SCHEDULES[:2])
    if body is None:
        return {name: json.loads(text) for name, text in _recorded()["schedules"].items()}
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    of_type = next(
        node.value for node in body if isinstance(node, ast.Assign) and _assigns(node, _SCHEDULES[2])
    )
    assert isinstance(of_type, ast.Dict), "transformers lists its schedules in a dict"
    made = [value.id for value in of_type.values if isinstance(value, ast.Name)]
    names = [key.attr for key in of_type.keys if isinstance(key, ast.Attribute)]
    values = _enum_members(_NAMED["lr_scheduler_type"])
    return {
        values[name]: {} if values[name] in _WITHOUT_ARGUMENTS else _arguments(functions[function])
        for name, function in zip(names, made, strict=True)
    }


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _arguments(function: ast.FunctionDef) -> dict[str, str]:
    """The arguments that the study file may give -> default as source text; without a default: empty text."""
    given = function.args.args
    defaults = [""] * (len(given) - len(function.args.defaults)) + list(
        map(ast.unparse, function.args.defaults)
    )
    pairs = zip((argument.arg for argument in given), defaults, strict=True)
    return {name: default for name, default in pairs if name not in _NOT_OF_THE_FILE}


def _enum_members(source: tuple[str, str, str]) -> dict[str, str]:
    """Member -> value of an enum of an installed library."""
    found = _installed(*source)
    assert found is not None, "asked where the library is installed"
    return {
        target.id: str(node.value.value)
        for node in found.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _installed(package: str, file: str, name: str) -> ast.ClassDef | None:
    """The syntax tree of a class of an installed library; None if the library is not installed."""
    body = _installed_body(package, file) or []
    return next((node for node in body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _installed_body(package: str, file: str) -> list[ast.stmt] | None:
    """The statements of a file of an installed library; None if it is not installed, or is the recorded version."""
    spec = importlib.util.find_spec(package)
    source = Path(spec.origin).parent / file if spec and spec.origin else None
    if source is None or not source.is_file() or _is_recorded(package, source=source):
        return None
    return _body(source)


def _body(source: Path) -> list[ast.stmt]:
    return ast.parse(source.read_text(encoding="utf-8")).body


def _is_recorded(package: str, *, source: Path) -> bool:
    """Whether the installed version is the recorded one: by a folder's name, since importlib.metadata takes 10 ms."""
    version = _recorded().get("versions", {}).get(package)
    folder = next(parent for parent in source.parents if parent.name == package).parent
    return (folder / f"{package}-{version}.dist-info").is_dir()


@cache
def _recorded() -> dict[str, dict[str, str]]:
    recorded: dict[str, dict[str, str]] = json.loads(_RECORDED.read_text(encoding="utf-8"))
    return recorded


def _enum_values(found: ast.ClassDef) -> list[str]:
    values = [node.value for node in found.body if isinstance(node, ast.Assign)]
    return [str(value.value) for value in values if isinstance(value, ast.Constant)]


def _class_fields(found: ast.ClassDef) -> dict[str, str]:
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def value_error(library: Library, name: str, value: Value) -> str | None:
    """The error of a value of `lora.NAME` or `train.NAME` in type, name or limits; None if it is valid."""
    if library == "train" and name in AUTO_KEYS and value == "auto":
        return None
    annotation = OWN_TYPES.get(name) if library == "train" else None
    annotation = annotation or field_types(library).get(name)
    wrong_type = type_error(value, annotation) if annotation else None
    return wrong_type or _name_error(name, value) or _limit_error(library, name, value)


def _name_error(name: str, value: Value) -> str | None:
    valid = named_values(name)
    if not valid or value in valid or not isinstance(value, str):
        return None
    starts, why = UNFIT[name]
    return why if value.startswith(starts) else f"is unknown; {nearest(value, valid)}"


def _limit_error(library: Library, name: str, value: Value) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value):
        return "needs a finite number"
    rules = [limit for section, limit, names in _LIMITS if section == library and name in names.split()]
    return next((rule for rule, holds in rules if not holds(value)), None)


def type_error(value: Value, annotation: str) -> str | None:
    """The error of a value for a field with this annotation; None if it fits, or if the type cannot be checked."""
    members = _members(ast.parse(annotation, mode="eval").body)
    if any(_fits(value, member) for member in members):
        return None
    names = list(dict.fromkeys(map(_word, members)))
    hint = "; for a choice write {choice: [...]}" if isinstance(value, list) else ""
    return f"is {_kind(value)}; needs {' or '.join(names)}{hint}"


def _word(member: str | tuple[object, ...]) -> str:
    if isinstance(member, tuple):
        return " | ".join(map(str, member))
    return _WORDS.get(member.lower(), _WORDS.get(member, "a mapping" if "onfig" in member else "text"))


def _kind(value: Value) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true/false",
        int: "a whole number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _members(node: ast.expr) -> list[str | tuple[object, ...]]:
    """`Optional[Union[list[str], str]]` as ['list', 'str', 'None']; a Literal as the tuple of its values."""
    if isinstance(node, ast.BinOp):
        return _members(node.left) + _members(node.right)
    if isinstance(node, ast.Constant):
        return _members(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else ["None"]
    if isinstance(node, ast.Subscript):
        generic = ast.unparse(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if generic in ("Optional", "Union"):
            return [m for item in inner for m in _members(item)] + (["None"] if generic == "Optional" else [])
        if generic == "Literal":
            return [tuple(item.value for item in inner if isinstance(item, ast.Constant))]
        return [generic]
    return [ast.unparse(node)]


def _fits(value: Value, member: str | tuple[object, ...]) -> bool:
    if isinstance(member, tuple):
        # peft has patterns such as pissa_niter_[number of iters] among its literals
        patterns = [str(m).partition("[")[0] for m in member if "[" in str(m)]
        return value in member or (isinstance(value, str) and value.startswith(tuple(patterns)))
    if member in ("list", "List", "tuple", "dict", "Dict"):
        return isinstance(value, dict if member.lower() == "dict" else list)
    if member in _SCALARS:
        return isinstance(value, _SCALARS[member]) and (member == "bool" or not isinstance(value, bool))
    # in YAML an enum value is text, a nested config is a mapping
    return member.startswith("Any") or isinstance(value, (str, dict))


def installed_fields() -> dict[str, object]:
    """What `recorded_fields.json` holds, read anew from the source of the installed libraries.

    Raises: AssertionError if a library is not installed.
    """
    _recorded()["versions"] = {}
    for read in (field_types, named_values, schedule_arguments):
        read.cache_clear()
    from importlib.metadata import version  # 10 ms, and only recording needs it

    fields: dict[str, object] = {"versions": {package: version(package) for package, *_ in _SOURCES.values()}}
    fields |= {name: dict(field_types(name)) for name in _SOURCES}
    for field, source in _NAMED.items():
        enum = _installed(*source)
        assert enum is not None, "recorded where the libraries are installed"
        fields[field] = dict.fromkeys(_enum_values(enum), "")
    return fields | {"schedules": {name: json.dumps(found) for name, found in schedule_arguments().items()}}


if __name__ == "__main__":
    _RECORDED.write_text(json.dumps(installed_fields(), indent=0) + "\n", encoding="utf-8")
