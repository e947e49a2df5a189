"""The sections of a study file: every key with its unit and default. This file holds their base class."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base class of all sections: unknown keys are errors, text is not converted to numbers, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
