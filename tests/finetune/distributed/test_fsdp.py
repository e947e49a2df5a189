"""A model of which all weights are trained, on one, two and four ranks: the same weights, and what each rank holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.finetune.trial_errors import Paused
from hpotune.records.trial import TrialSpec
from hpotune.worker.objective.process import PAUSE_SIGNAL, StopRequest
from tests.finetune.warm.conftest import _forked_ranks as _forked_ranks
from tests.finetune.warm.conftest import at_step, worker
from tests.fixtures.tiny_trials import curve_lines, model_distance, run_here

EXACT = 1e-9  # float64, but the model's norms compute in float32
# 40 rows in batches of 7: ranks with unequal shares, micro-batches without rows, a smaller last batch of an epoch.
TRAIN = {
    "method": "full",
    "global_batch_size": 7,
    "per_device_train_batch_size": 2,
    "gradient_checkpointing": True,
}
CLIPPED = 0.05
"""A gradient's norm that every step exceeds, so that a wrong norm is a wrong step."""


@pytest.fixture
def trial(make_spec: Callable[..., TrialSpec]) -> Callable[..., TrialSpec]:
    """A full fine-tuning of twelve steps."""

    def make(name: str, *, train: dict | None = None, **sections: dict) -> TrialSpec:
        return make_spec(name, train=TRAIN | (train or {}), **sections)

    return make


@pytest.mark.parametrize(
    ("ranks", "train"),
    [(2, {"max_grad_norm": CLIPPED}), (4, {"max_grad_norm": 0, "optim": "sgd", "learning_rate": 0.05})],
)
def test_ranks_train_same_model(trial: Callable[..., TrialSpec], ranks: int, train: dict) -> None:
    alone, together = (trial(name, train=train) for name in ("one", "more"))
    with worker(processes=ranks) as run:
        more = run(together)
    assert more.state == "finished", (Path(together.folder) / "log.txt").read_text()
    one = run_here(alone)
    assert model_distance(alone, together) < EXACT
    assert more.values == pytest.approx(one.values, abs=EXACT)
    assert more.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], abs=EXACT)
    assert more.metrics["base_share_per_rank"] == pytest.approx(1 / ranks, abs=0.02)
    assert more.metrics["trainable_parameters"] == one.metrics["trainable_parameters"]
    assert {name: check["ok"] for name, check in more.checks.items()} == {"moved": True, "reload": True}


def test_half_precision_is_same_on_ranks(trial: Callable[..., TrialSpec]) -> None:
    alone, together = (
        trial(name, model={"dtype": "bfloat16"}, train={"optim": "sgd", "learning_rate": 0.1, "max_steps": 3})
        for name in ("one", "two")
    )
    with worker(processes=2) as run:
        two = run(together)
    one = run_here(alone)
    # sums of float32 gradients in another order, then a rounding to bfloat16: at most its last bit
    assert model_distance(alone, together) <= 2**-8
    assert two.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], rel=1e-3)


def test_one_rank_continues_checkpoint_of_two(trial: Callable[..., TrialSpec]) -> None:
    stop, long = StopRequest(), {"max_steps": 20}
    unbroken, paused = trial("unbroken", train=long), trial("paused", train=long)
    at_step(paused, 3, lambda: stop.request(PAUSE_SIGNAL))
    with worker(processes=2, stop=stop) as run:
        assert run(paused).state == "paused"
    assert 3 <= len(curve_lines(paused)) < 20
    run_here(paused), run_here(unbroken)
    assert model_distance(unbroken, paused) < EXACT


def test_paused_model_is_continued_exactly(trial: Callable[..., TrialSpec]) -> None:
    calls = iter(range(-1, 1000))
    unbroken, paused = trial("unbroken"), trial("paused")
    with pytest.raises(Paused):
        run_here(paused, stop_requested=lambda: next(calls) >= 5)
    files = {file.name for file in (Path(paused.folder) / "checkpoint").iterdir()}
    assert "state.pt" in files
    assert len(files) == 2
    run_here(paused), run_here(unbroken)
    assert model_distance(unbroken, paused) == 0
    assert not (Path(paused.folder) / "checkpoint").exists()
