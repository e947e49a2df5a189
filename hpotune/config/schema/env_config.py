"""The section `env` of a study file: the environment of a job."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from hpotune.config.schema import Section
from hpotune.config.schema.resources import check_line
from hpotune.config.text_files import wrong_character


class EnvConfig(Section):
    """The environment of a job."""

    modules: list[str] = Field(default=[])
    """`module load` lines, in order."""
    venv: str | None = "auto"
    """A virtual environment (of venv or uv), or the folder of a conda environment, to activate; auto: the one in which
    hpotune runs now, or the one that `hpotune env create` made of packages_to_install; null: none."""
    packages_to_install: list[str] = Field(default=[])
    """Requirements as pip reads them (`sacrebleu>=2.4`), beside those of hpotune's environment. `hpotune env create`
    installs them on the login node; jobs install nothing."""
    pip_index_url: str | list[str] | None = None
    """Where pip looks for packages_to_install; of a list the first is the index, the others are extra ones. No
    passwords: pip reads those of ~/.netrc. null: pip's own setting."""
    container: str | None = None
    """An Apptainer image in which ranks, functions and commands run: a local file or a URL (docker://…). hpotune must
    be installed in it, or be found at the same path inside and outside. null: none."""
    setup: list[str] = Field(default=[])
    """Shell lines that run first, unchanged; no secrets: the job script is readable."""
    vars: dict[str, str] = Field(default={})
    """Environment variables; no secrets: the job script is readable."""
    offline: bool = True
    """Sets HF_HUB_OFFLINE=1 in trials; otherwise a node without internet access retries downloads for minutes."""

    stage: str | None = None
    """A folder on the node's own disk, such as `$TMPDIR`, to which the base model is copied once a node, for all ranks,
    trials and jobs that see it there. Trials load the copy; where there is no room, the model itself. null: no copy."""

    @field_validator("modules")
    @classmethod
    def _one_line_each(cls, value: list[str]) -> list[str]:
        for name in value:
            check_line(name)
        return value

    @field_validator("packages_to_install")
    @classmethod
    def _requirements(cls, value: list[str]) -> list[str]:
        for one in value:
            check_line(one)
            if one.strip().startswith("-"):
                raise ValueError(f"{one}: is an option of pip; needs a requirement, such as sacrebleu>=2.4")
        return value

    @field_validator("pip_index_url")
    @classmethod
    def _no_password(cls, value: str | list[str] | None) -> str | list[str] | None:
        for url in [value] if isinstance(value, str) else value or []:
            check_line(url)
            if not re.match(r"(https?|file)://", url):
                raise ValueError(f"{url}: needs the address of an index, such as https://pypi.org/simple")
            if re.match(r"\w+://[^/]*@", url):
                raise ValueError("holds a name or password; remove it, pip reads ~/.netrc")
        return value

    @model_validator(mode="after")
    def _packages_somewhere(self) -> EnvConfig:
        if self.packages_to_install and self.container is not None:
            raise ValueError(
                "packages_to_install: install them in the image of env.container, and remove this key"
            )
        if self.packages_to_install and self.venv is None:
            raise ValueError("packages_to_install: needs venv: auto, the environment that env create makes")
        return self

    @property
    def index_urls(self) -> list[str]:
        """The index and the extra ones; empty: pip's own."""
        return [self.pip_index_url] if isinstance(self.pip_index_url, str) else self.pip_index_url or []

    @field_validator("venv", "container")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        if value is not None:
            check_line(value)
        return value

    @field_validator("stage")
    @classmethod
    def _folder_of_a_node(cls, value: str | None) -> str | None:
        if value is None:
            return None
        check_line(value)
        if not re.match(r"/|\$(\{[A-Za-z_]\w*\}|[A-Za-z_]\w*)(/|$)", value, re.ASCII):
            raise ValueError(
                "needs an absolute folder of the node, or a variable of the job, such as $TMPDIR"
            )
        return value

    @field_validator("vars")
    @classmethod
    def _exportable(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                raise ValueError(f"{name}: is not a valid variable name; needs letters, digits and _")
            wrong = wrong_character(value[name], one_line=True)
            if wrong is not None:
                raise ValueError(f"{name}: contains {wrong}; needs one line")
        return value
