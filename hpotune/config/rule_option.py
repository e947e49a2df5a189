"""The value of `--rule`: the section `best` of a study file on one line, with or without its braces."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from hpotune.config import messages
from hpotune.config.comparability import unmeasured_rule
from hpotune.config.schema import Section
from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.yaml_source import parse_source
from hpotune.errors import StudyFileError, nearest

EXAMPLE = "'maximize: hellaswag/acc_norm, subject_to: \"peak_memory_gb <= 38\"'"


class _File(Section):
    """A study file of which only `best` is read, so that errors name its keys."""

    best: BestRule


def parse_rule(text: str, config: StudyConfig, *, measured: Collection[str]) -> BestRule:
    """The rule of a command line, for the trials of a study.

    `measured`: the names of all numbers of its finished trials; empty while there are none.

    Raises: StudyFileError for text that is no rule, and for a name that the study's trials do not measure.
    """
    inner = text.strip()
    braces = inner if inner.startswith("{") else f"{{{inner}}}"
    try:
        values = parse_source(f"best: {braces}\n", path=Path("--rule")).values
    except StudyFileError as error:
        reason = "; ".join(error.mistakes).removeprefix("--rule:1: ")
        raise StudyFileError(f"--rule {text!r}: {reason}; write e.g. {EXAMPLE}") from None
    try:
        rule = _File.model_validate(values).best
    except ValidationError as error:
        texts = [found for _, found in messages.mistakes(error, values)]
        raise StudyFileError(
            *(f"--rule {text!r}: {found}; write e.g. {EXAMPLE}" for found in texts)
        ) from None
    mistakes = [found for _, found in unmeasured_rule({}, config.model_copy(update={"best": rule}))]
    if mistakes:
        raise StudyFileError(*(f"--rule {text!r}: {found}" for found in mistakes))
    lacking = sorted(rule.names - {*measured}) if measured else []
    if lacking:
        raise StudyFileError(
            f"--rule {text!r}: no finished trial measured {lacking[0]!r}; {nearest(lacking[0], measured)}"
        )
    return rule
