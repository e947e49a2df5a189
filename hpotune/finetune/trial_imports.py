"""The imports of a trial, made at once and fast: they take most of the start of its process.

Call `hub.prepare_environment` before: transformers and datasets read their environment at import.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path


def import_training() -> None:
    """Import all that trains and scores a trial without passes of the garbage collector, which never looks at it again.

    Else it looks at the objects of 4,000 modules several times while these are made: a fifth of the CPU seconds.
    """
    if "hpotune.finetune.pipeline" in sys.modules:
        return
    collects = gc.isenabled()
    gc.disable()
    try:
        _import_model_names()
        import hpotune.finetune.pipeline  # noqa: F401
    finally:
        if collects:
            gc.enable()
    gc.freeze()


def _import_model_names() -> None:
    """Import `transformers.models` with the names that `import transformers` has found.

    Both read the files of all models (3,000) for their names, and their caches have different keys. The names are the
    same, and the function that reads them is put back.
    """
    import transformers
    from transformers.utils import import_utils

    read = import_utils.create_import_structure_from_path
    folder = Path(transformers.__file__).parent / "models"
    import_utils.create_import_structure_from_path = lambda path: read(
        folder if Path(path) == folder / "__init__.py" else path
    )
    try:
        import transformers.models
    finally:
        import_utils.create_import_structure_from_path = read
