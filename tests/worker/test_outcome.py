"""What is recorded of a trial's result."""

from __future__ import annotations

import numpy as np

from hpotune.records.trial import TrialResult
from hpotune.worker.outcome import RecordedOutcome, items_significantly_worse, outcome_text


def test_keys_left_out_are_named():
    result = TrialResult(number=1, state="finished", values=[0.5], left_out={"curve": "list of 3"})
    text = outcome_text(RecordedOutcome(kind="finished", result=result))
    assert text == "finished: [0.5]; warning: not recorded, since no number: curve (list of 3)"


def test_items_of_trials_are_compared(new_study):
    search = {"algorithm": "random", "pruner": "median"}
    folder, store = new_study(search=search)
    score = store.config.score.model_copy(
        update={
            "objective": [store.config.score.objective[0].model_copy(update={"task": "t", "metric": "acc"})]
        }
    )
    config = store.config.model_copy(
        update={"score": score, "search": store.config.search.model_copy(update={"pruner": "wilcoxon"})}
    )
    good, bad = np.ones(40), np.ones(40)
    bad[:12] = 0
    for number, items in ((1, good), (2, bad)):
        folder.trial(number).mkdir(parents=True)
        np.savez(folder.trial(number) / "items-0.npz", **{"t/acc": items, "t/doc_id": np.arange(40)})
    up = score.objective[0].model_copy(update={"direction": "maximize"})
    config = config.model_copy(update={"score": score.model_copy(update={"objective": [up]})})
    assert items_significantly_worse(folder, config, 2, 1, 0)
    assert not items_significantly_worse(folder, config, 1, 2, 0)
    assert not items_significantly_worse(folder, config, 2, 3, 0)
