"""The ranges of a preset (`space: NAME`) in a study that exists: those with which it was made. Reads, never writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hpotune.config.space.preset_filling import filled_keys, stored_ranges
from hpotune.config.yaml_source import Source, Value, read_source
from hpotune.errors import StudyFileError
from hpotune.workspace.folder import StudyFolder


def with_stored_preset(source: Source, folder: StudyFolder, *, written: Mapping[str, Value]) -> Source:
    """The source with the preset's ranges of its study's folder; as it is without a preset, or before there is a study.

    `written`: the values of the file as the user wrote them.
    Raises: StudyFileError where the folder's resolved.yaml cannot be read.
    """
    if written.get("space") is None or not folder.resolved_file.is_file():
        return source
    values = stored_ranges(
        source.values,
        written=written,
        stored=folder.read_resolved().values,
        written_then=written_values(folder, written),
    )
    return replace(source, values=values)


def preset_in(folder: StudyFolder, values: Mapping[str, Value]) -> tuple[str, tuple[str, ...]] | None:
    """Name of a study's preset, and the keys that came from it; None without one. `values`: of its resolved.yaml."""
    name = values.get("space")
    return None if name is None else (str(name), filled_keys(values, written_values(folder, values)))


def written_values(folder: StudyFolder, otherwise: Mapping[str, Value]) -> Mapping[str, Value]:
    """The values of the user's study file, of which the folder keeps a copy; `otherwise`: where it cannot be read."""
    try:
        return read_source(folder.study_file).values
    except StudyFileError:
        return otherwise
