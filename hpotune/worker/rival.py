"""Two trials item by item at a rung: whether one is surely worse, by what lm-eval scored of both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.schedule.promotion import surely_worse
from hpotune.workspace.folder import StudyFolder

if TYPE_CHECKING:
    import numpy as np


def surely_worse_than(folder: StudyFolder, config: StudyConfig, number: int, other: int, rung: int) -> bool:
    """Whether a trial's items at a rung are worse than another's by more than chance; False where none were kept."""
    ladder, objective = config.search.ladder, config.score.objective[0]
    assert ladder is not None, "asked only of studies with rungs"
    mine, theirs = (_items(folder.trial(n) / f"items-{rung}.npz", objective) for n in (number, other))
    if mine is None or theirs is None or len(mine) != len(theirs):
        return False
    sign = 1.0 if objective.sense == "maximize" else -1.0
    return surely_worse((sign * (mine - theirs)).tolist(), threshold=ladder.options["p_threshold"])


def _items(file: Path, objective: Objective) -> np.ndarray | None:
    """The objective's metric item by item, shape (items,), in the order of the documents."""
    import numpy as np

    try:
        with np.load(file) as kept:
            name = f"{objective.task}/{objective.metric}"
            return np.asarray(kept[name]) if name in kept.files else None
    except (OSError, ValueError):
        return None
