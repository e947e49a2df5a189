"""The fields of peft.LoraConfig and transformers.TrainingArguments with their types, without importing either.

Importing them takes seconds and a login node may not have them. Their source is read instead; where they are not installed,
a list recorded from known versions serves (`recorded_fields.json`, made by `python -m hpotune.study.library`).
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from hpotune.study.source import Value

Library = Literal["lora", "train"]
_SOURCES: dict[Library, tuple[str, str, str]] = {
    "lora": ("peft", "tuners/lora/config.py", "LoraConfig"),
    "train": ("transformers", "training_args.py", "TrainingArguments"),
}
_RECORDED = Path(__file__).with_name("recorded_fields.json")
_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
}


@cache
def field_types(library: Library) -> Mapping[str, str]:
    """Field name -> annotation as written, of the installed library, else as recorded."""
    package, file, name = _SOURCES[library]
    spec = importlib.util.find_spec(package)
    if spec and spec.origin:
        source = Path(spec.origin).parent / file
        if source.is_file():
            return _class_fields(ast.parse(source.read_text(encoding="utf-8")), name)
    recorded: dict[str, dict[str, str]] = json.loads(_RECORDED.read_text(encoding="utf-8"))
    return recorded[library]


def _class_fields(tree: ast.Module, name: str) -> dict[str, str]:
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def type_complaint(value: Value, annotation: str) -> str | None:
    """What is wrong with a value for a field annotated so; None where it fits or the type is not a plain one."""
    members = _members(ast.parse(annotation, mode="eval").body)
    if any(_fits(value, member) for member in members):
        return None
    names = [name if isinstance(name, str) else " | ".join(map(repr, name)) for name in members]
    hint = "; for a choice write {choice: [...]}" if isinstance(value, list) else ""
    return f"is {_kind(value)}; needs {' or '.join('null' if n == 'None' else n for n in names)}{hint}"


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
        head = ast.unparse(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if head in ("Optional", "Union"):
            return [m for item in inner for m in _members(item)] + (["None"] if head == "Optional" else [])
        if head == "Literal":
            return [tuple(item.value for item in inner if isinstance(item, ast.Constant))]
        return [head]
    return [ast.unparse(node)]


def _fits(value: Value, member: str | tuple[object, ...]) -> bool:
    if isinstance(
        member, tuple
    ):  # peft lists patterns such as pissa_niter_[number of iters] among its literals
        return value in member or (isinstance(value, str) and any("[" in str(m) for m in member))
    if member in ("list", "List", "tuple", "dict", "Dict"):
        return isinstance(value, (list if member.lower() != "dict" else dict))
    if member not in _SCALARS:
        return member.startswith("Any") or isinstance(
            value, (str, dict)
        )  # an enum is written as text, a config as a mapping
    return isinstance(value, _SCALARS[member]) and (member == "bool" or not isinstance(value, bool))


if __name__ == "__main__":
    _RECORDED.write_text(
        json.dumps({name: dict(field_types(name)) for name in _SOURCES}, indent=0) + "\n", encoding="utf-8"
    )
