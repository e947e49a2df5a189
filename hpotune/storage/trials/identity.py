"""What makes two studies one: a hash of the sections that their trials depend on."""

from __future__ import annotations

import hashlib
import json

from hpotune.config.load import Study
from hpotune.workspace.folder import SAME


def identity(study: Study) -> str:
    """A hash of the sections that make a study what it is; 1 and 1.0, null and nothing are the same."""
    same = {key: study.template[key] for key in SAME if study.template.get(key) is not None}
    plain = json.loads(json.dumps(same), parse_float=lambda text: _whole(float(text)))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _whole(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def other_study(url: str, name: str) -> str:
    """The complaint about a store that holds another study of this name."""
    theirs = url.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver that is installed
    return (
        f"{url}: holds a study {name!r} of this folder whose sections were others, and results of two studies cannot "
        f"be compared; rename this one (name:), or `optuna delete-study --study-name {name} --storage {theirs}`"
    )
