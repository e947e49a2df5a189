"""Item scores as a trial stored them: items.npz, the arrays `TASK/doc_id` and `TASK/METRIC` of each task. Only read.

numpy is imported when a file is read: most verbs read none.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from hpotune.config.json_file import read_regular

if TYPE_CHECKING:
    import numpy as np

_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)
"""What zipfile and numpy raise for files that are cut or overwritten."""


def read_items(file: Path, names: Sequence[str]) -> list[np.ndarray] | None:
    """The arrays of these names, each of shape (items,) and of one length; None where they are not there."""
    arrays = read_arrays(file)
    found = [arrays[name] for name in names if name in arrays]
    usable = len(found) == len(names) and len({array.shape for array in found}) == 1
    return found if usable and all(array.dtype.kind in "biuf" for array in found) else None


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """All arrays of one dimension, of numbers or text.

    A missing or damaged file is the same as one without arrays: comparisons of trials do without it then.
    """
    import numpy as np

    try:
        with np.load(io.BytesIO(read_regular(file)), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except _DAMAGE:
        return {}
    return {name: array for name, array in arrays.items() if array.ndim == 1 and array.dtype.kind in "biufU"}
