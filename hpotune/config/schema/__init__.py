"""The sections of a study file: every key, its unit, its default; here what all of them share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Json = Any
"""A value of YAML or JSON; old name, to be replaced by `Value` of yaml_source.py."""


class Section(BaseModel):
    """A part of the file: unknown keys are errors, `"8"` is not 8, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
