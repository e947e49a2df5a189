"""What all sections of a study file share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Json = Any  # a value that YAML and JSON can both write; the one place where the house says Any


class Section(BaseModel):
    """A part of the file: unknown keys are errors, `"8"` is not 8, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
