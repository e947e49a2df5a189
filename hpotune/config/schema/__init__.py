"""The sections of a study file: every key with its unit and default. This file holds their base class."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Json = Any
"""A value of YAML or JSON; old name, to be replaced by `Value` of yaml_source.py."""


class Section(BaseModel):
    """Base class of all sections: unknown keys are errors, text is not converted to numbers, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
