"""The sections of a study file: every key with its unit and default. This file holds their base class."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base class of all sections: unknown keys are errors, text is not converted to numbers, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


def field_text(section: type[BaseModel], name: str) -> str:
    """The string under a field, in the section or in a class that it inherits from; empty if it has none.

    Read from the source when it is asked for: pydantic's `use_attribute_docstrings` parses every section at import,
    which is a fifth of the time of `hpotune check --static`.
    """
    for owner in section.__mro__:
        if issubclass(owner, Section) and name in vars(owner).get("__annotations__", {}):
            return _text_under(ast.parse(textwrap.dedent(inspect.getsource(owner))), name)
    return ""


def _text_under(tree: ast.Module, name: str) -> str:
    body = tree.body[0]
    assert isinstance(body, ast.ClassDef), "the source of a class"
    for field, text in pairwise(body.body):
        named = (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and field.target.id == name
        )
        if named and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            return inspect.cleandoc(str(text.value.value))
    return ""
