"""One study: its file read once, its paths resolved, its values validated, all errors with their lines. Never writes.

study file -> Source (values with lines) -> resolved (absolute paths) -> Study (space and config), which is handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpotune.config import comparability, library_keys
from hpotune.config.corners import config_at_corners, config_without_ranges
from hpotune.config.schema.study_config import PointConfig, StudyConfig
from hpotune.config.space import conditions, constraints, start_from
from hpotune.config.space.range_parsing import parse_space
from hpotune.config.space.ranges import Space, put_point
from hpotune.config.yaml_source import Mistake, Mistakes, Source, Value, read_source
from hpotune.errors import StudyFileError


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A valid study: what its file says, in types."""

    source: Source
    """The file's values, ranges included, and their lines."""
    space: Space
    config: StudyConfig
    """At the first corner of every range; sections without ranges are final."""

    @property
    def template(self) -> dict[str, Value]:
        """The file's values, ranges included."""
        return self.source.values

    def point(self, drawn: Mapping[str, Value]) -> PointConfig:
        """The sections of one trial at a drawn point.

        Raises: ValueError for a point at which an expression has a value that its field does not allow.
        """
        sections = {key: value for key, value in self.template.items() if key in PointConfig.model_fields}
        return PointConfig.model_validate(put_point(sections, self.space, drawn))

    def base(self) -> PointConfig:
        """The sections of the baseline: the first corner, with the tasks' own settings where theirs are searched."""
        sections = self.config.model_dump(include=set(PointConfig.model_fields))
        score = sections["score"]
        for r in self.space.ranges:
            if r.where[:2] == ("score", "generation"):  # its keys depend on each other
                score["generation"] = {}
            elif r.where == ("score", "num_fewshot"):
                score["num_fewshot"] = None
            elif r.where[:2] == ("score", "objective"):  # only num_fewshot may be a range there
                score["objective"][r.where[2] if len(r.where) > 3 else 0]["num_fewshot"] = None
        return PointConfig.model_validate(sections)


CONFIG_RULES: tuple[Callable[[dict[str, Value], StudyConfig], Iterable[Mistake]], ...] = (
    comparability.unused_keys,
    comparability.unmeasured_objectives,
    comparability.changing_forms,
    comparability.differently_asked,
    comparability.unmeasured_rule,
    comparability.unread_smoothing,
)
"""What is validated once the config is known."""


def load_study(path: Path) -> Study:
    """The study of a file whose paths are absolute already: a study folder's resolved.yaml.

    Raises: StudyFileError with every error, one line each.
    """
    return build_study(read_source(path))


def build_study(source: Source) -> Study:
    """The study of values that have been read.

    Raises: StudyFileError with every error, one line each.
    """
    mistakes: Mistakes = {}
    values, config = source.values, None
    space = parse_space(values, mistakes)
    errors = [*library_keys.unknown_keys(values)]
    if space is not None:
        space = constraints.with_constraints(values, space, mistakes)
        errors += [*conditions.mistakes(space), *start_from.mistakes(values, space)]
    keep(mistakes, errors)
    if space is None:
        config_without_ranges(values, mistakes)
    else:
        config = config_at_corners(values, space, mistakes)
    if config is not None:
        for rule in CONFIG_RULES:
            keep(mistakes, rule(values, config))
    if mistakes or space is None or config is None:
        raise StudyFileError(*source.messages(mistakes))
    return Study(source=source, space=space, config=config)


def keep(mistakes: Mistakes, more: Iterable[Mistake]) -> None:
    """Adds errors; the first one of each key is kept."""
    for key, text in more:
        mistakes.setdefault(key, text)
