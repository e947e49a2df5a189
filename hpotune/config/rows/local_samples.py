"""The first rows of a study's data on this machine, for its columns: of a file, or of a folder's file of the split.

Reads about a megabyte of one file, of a folder of `save_to_disk` its description. What `datasets` alone can find, such
as the files of a card with options, is not looked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import yaml

from hpotune.config.rows.data_files import DATA_FILES, file_sample
from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.schema.data_config import DataConfig
from hpotune.config.text_files import read_file
from hpotune.config.yaml_source import Value

PLAIN_CONFIG = {"config_name", "data_files", "default", "description"}
"""Keys of a card's configuration that do not change how its files are read."""

Sample = tuple[Sequence[Mapping[str, Value]], str]
"""Rows, and the file that they are of."""


def local_sample(data: DataConfig, data_root: str | None) -> Sample | None:
    """Some rows of the data; None if it is not on this machine, or only a trial can tell which file it reads.

    Raises: DataFileError for a file that cannot be read.
    """
    rooted = Path(data_root, data.path) if data_root else None
    path = rooted if rooted and rooted.exists() else Path(data.path)
    split = data.split.replace(" ", "").partition("+")[0].partition("[")[0]
    if path.is_file():
        return (file_sample(path).rows, str(path)) if path.suffix in DATA_FILES else None
    for folder in (path, path / split):
        if (folder / "state.json").is_file():
            return _saved_sample(folder / "dataset_info.json")
    if not path.is_dir() or (path / "dataset_dict.json").is_file():
        return None
    file = _file_of_split(path, data, split)
    return (file_sample(file).rows, str(file)) if file else None


def _saved_sample(description: Path) -> Sample | None:
    """A row without values that has the columns of a folder of `save_to_disk`."""
    try:
        features = json.loads(read_file(description)).get("features")
    except OSError as error:
        raise DataFileError(f"{description}: cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataFileError(f"{description}: cannot be read ({error})") from error
    if not isinstance(features, dict):
        return None
    return [{name: _empty_value(feature) for name, feature in features.items()}], str(description.parent)


def _empty_value(feature: Value) -> Value:
    """None, or the fields of a struct, from the description of a feature."""
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "Sequence":
        feature = feature.get("feature")
    if not isinstance(feature, dict) or "_type" in feature:
        return None
    return {name: _empty_value(inner) for name, inner in feature.items()}


def _file_of_split(folder: Path, data: DataConfig, split: str) -> Path | None:
    """The first file of a split, by the folder's card, or by its name."""
    configs = card_configs(folder / "README.md")
    if configs:
        return _file_of_card(folder, configs, data, split)
    inner = sorted(path for path in folder.rglob("*") if path.suffix in DATA_FILES)
    files = [path for path in inner if data.name is None or data.name in path.parts]
    own = [path for path in files if path.name.startswith(split)]
    if not own and split == "train" and len(files) == 1:  # of any name
        own = files
    return own[0] if own else None


def card_configs(card: Path) -> list[dict[str, Value]]:
    """The configurations that a card lists in its YAML."""
    try:
        header = read_file(card).decode().replace("\r\n", "\n").partition("---\n")[2].partition("\n---")[0]
        values = yaml.safe_load(header)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    configs = values.get("configs") if isinstance(values, dict) else None
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []


def _file_of_card(
    folder: Path, configs: Iterable[dict[str, Value]], data: DataConfig, split: str
) -> Path | None:
    named = [config for config in configs if config.get("config_name") == (data.name or "default")]
    if len(named) != 1 or not named[0].keys() <= PLAIN_CONFIG:
        return None
    listed = named[0].get("data_files")
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and entry.get("split") == split:
            patterns = cast(
                "list[str]", entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            )
            files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
            return next((path for path in files if path.suffix in DATA_FILES), None)
    return None
