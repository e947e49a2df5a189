"""The fast imports of a trial read the same names of models as transformers does by itself."""

from __future__ import annotations

import gc
from pathlib import Path

import transformers
from transformers.utils.import_utils import define_import_structure

from hpotune.finetune.trial_imports import _import_model_names, import_training


def test_model_names_are_the_same() -> None:
    folder = Path(transformers.__file__).parent / "models"
    read = transformers.utils.import_utils.create_import_structure_from_path
    assert define_import_structure(folder) == define_import_structure(str(folder / "__init__.py"))
    _import_model_names()
    assert transformers.utils.import_utils.create_import_structure_from_path is read


def test_collector_runs_after_imports() -> None:
    frozen = gc.get_freeze_count()
    import_training()
    import_training()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen, "what a trial made is frozen by none of its successors"
