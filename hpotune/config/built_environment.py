"""The environment that `hpotune env create` makes of `env.packages_to_install`: where it is, and whether it is whole.

NAME.env/KEY/ beside the study file, with environment.json, which is written last. KEY is a hash of the requirements,
the index and the Python that they are for, so that another list is another environment.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.config.yaml_source import Value

RECORD = "environment.json"


def environment_folder(home: Path, name: str, packages: Sequence[str], urls: Sequence[str]) -> Path:
    """Where the environment of these packages is, or would be. `home`: the folder of the study file."""
    facts = [sorted(packages), list(urls), sys.prefix, list(sys.version_info[:3])]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return home / f"{name}.env" / key


def is_whole(folder: Path) -> bool:
    """Whether the environment was built to its end."""
    return optional_object(folder / RECORD) is not None and (folder / "bin" / "python").exists()


def venv_of_packages(values: Mapping[str, Value], *, home: Path) -> str | None:
    """The environment for the packages of a study file; None: it names none.

    Raises: ValueError, as a predicate of the key, where it is not built, or the file names another environment.
    """
    env = values.get("env")
    packages = env.get("packages_to_install") if isinstance(env, dict) else None
    if not isinstance(env, dict) or not isinstance(packages, list) or not packages:
        return None
    url, venv = env.get("pip_index_url"), env.get("venv", "auto")
    urls = [url] if isinstance(url, str) else url if isinstance(url, list) else []
    if isinstance(venv, str) and venv != "auto":
        if is_whole(Path(venv)):
            return venv
        raise ValueError(f"is not installed into {venv}; remove env.venv, and run `hpotune env create STUDY`")
    folder = environment_folder(
        home, str(values.get("name")), [str(one) for one in packages], [str(u) for u in urls]
    )
    if not is_whole(folder):
        raise ValueError("is not installed yet; run `hpotune env create STUDY` on the login node")
    return str(folder)


def has_conda(folder: str) -> bool:
    """Whether a folder is a conda environment, which has no script bin/activate of its own."""
    return Path(folder, "conda-meta").is_dir()
