"""A trial that continues from its parent's checkpoint: the same run with equal values, its own values otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hpotune.finetune.trial_errors import Paused, UserError
from tests.fixtures.tiny_trials import adapter_distance, run_here

EXACT = 1e-12
WARM = {
    "train": {"warmup_steps": 3, "lr_scheduler_type": "cosine", "save_steps": 1},
    "lora": {"lora_dropout": 0.2},
}
HALF = {"rung": {"index": 0, "unit": "share", "budget": 0.5, "last": False}}
LAST = {"rung": {"index": 1, "unit": "share", "budget": 1.0, "last": True}}


def with_train(**values):
    return {**WARM, "train": WARM["train"] | values}


@pytest.fixture
def parent(make_spec):
    """A trial that has trained half of the run."""
    spec = make_spec("parent", spec=HALF, **WARM)
    run_here(spec)
    return spec


def child_of(make_spec, parent, name="child", *, spec=LAST, **sections):
    return make_spec(name, spec={**spec, "number": 2, "parent": parent.folder}, **(sections or WARM))


def rates(spec) -> list[tuple[int, float]]:
    lines = (Path(spec.folder) / "curve.jsonl").read_text().splitlines()
    return [(line["step"], line["lr"]) for line in map(json.loads, lines)]


def groups(spec) -> list[dict]:
    state = torch.load(Path(spec.folder) / "checkpoint" / "state.pt", weights_only=True)
    return state["optimizer"]["param_groups"]


def test_equal_values_continue_parents_run(make_spec, parent):
    whole, child = make_spec("whole", **WARM), child_of(make_spec, parent)
    straight, found = run_here(whole), run_here(child)
    assert adapter_distance(whole, child) < EXACT
    assert found.values == pytest.approx(straight.values, abs=EXACT)
    assert found.metrics["train_loss"] == pytest.approx(straight.metrics["train_loss"], abs=EXACT)
    assert rates(child) == rates(whole)[6:]
    assert (Path(parent.folder) / "checkpoint").is_dir()


@pytest.mark.parametrize(
    "train",
    [{"learning_rate": 1e-3}, {"weight_decay": 0.9}, {"adam_beta2": 0.5}, {"max_grad_norm": 1e-3}],
    ids=str,
)
def test_other_values_change_the_run(make_spec, parent, train):
    whole, child = make_spec("whole", **WARM), child_of(make_spec, parent, **with_train(**train))
    run_here(whole)
    run_here(child)
    assert adapter_distance(whole, child) > 1e-6


def test_new_learning_rate_follows_schedule(make_spec, parent):
    other = make_spec("other", **with_train(learning_rate=1e-3))
    child = child_of(make_spec, parent, **with_train(learning_rate=1e-3))
    run_here(other)
    run_here(child)
    assert rates(child) == rates(other)[6:]
    assert rates(child)[0][0] == 7


def test_new_schedule_starts_at_parents_step(make_spec, parent):
    train = {"lr_scheduler_type": "linear", "warmup_steps": 0}
    other, child = (
        make_spec("other", **with_train(**train)),
        child_of(make_spec, parent, **with_train(**train)),
    )
    run_here(other)
    run_here(child)
    assert rates(child) == rates(other)[6:]


def test_optimizer_keeps_parents_state(make_spec, parent):
    new = {"learning_rate": 1e-3, "weight_decay": 0.25, "adam_beta1": 0.5, "adam_epsilon": 1e-5}
    rung = {"rung": {"index": 1, "unit": "share", "budget": 0.75, "last": False}}
    child = child_of(make_spec, parent, spec=rung, **with_train(**new))
    run_here(child)
    [group] = groups(child)
    assert (group["initial_lr"], group["weight_decay"], group["eps"]) == (1e-3, 0.25, 1e-5)
    assert tuple(group["betas"]) == (0.5, 0.999)
    assert group["lr"] < 1e-3
    state = torch.load(Path(child.folder) / "checkpoint" / "state.pt", weights_only=True)
    assert {float(one["step"]) for one in state["optimizer"]["state"].values()} == {9.0}


def test_first_step_equals_adamw(make_spec, parent):
    """AdamW of torch from the parent's state with the child's values gives the child's weights after one step."""
    gradients = {}
    steps = {"rung": {"index": 1, "unit": "steps", "budget": 7, "last": False}}
    new = with_train(learning_rate=1e-3, weight_decay=0.25, adam_beta1=0.5, max_grad_norm=0.0)
    child = child_of(make_spec, parent, spec=steps, **new)
    before = torch.load(Path(parent.folder) / "checkpoint" / "state.pt", weights_only=True)
    run_here(child)
    after = torch.load(Path(child.folder) / "checkpoint" / "state.pt", weights_only=True)
    for index, (name, weight) in enumerate(before["adapter"].items()):
        old, now = before["optimizer"]["state"][index], after["optimizer"]["state"][index]
        gradients[name] = (now["exp_avg"] - 0.5 * old["exp_avg"]) / 0.5
        lr = rates(child)[0][1]
        first, second = now["exp_avg"] / (1 - 0.5**7), now["exp_avg_sq"] / (1 - 0.999**7)
        expected = weight * (1 - lr * 0.25) - lr * first / (second.sqrt() + 1e-8)
        assert torch.allclose(after["adapter"][name], expected, atol=EXACT, rtol=0)
        squares = 0.999 * old["exp_avg_sq"] + 0.001 * gradients[name] ** 2
        assert torch.allclose(now["exp_avg_sq"], squares, atol=EXACT, rtol=0)


def test_paused_child_resumes_own_checkpoint(make_spec, parent):
    new = with_train(learning_rate=1e-3)
    straight, broken = child_of(make_spec, parent, "straight", **new), child_of(make_spec, parent, **new)
    run_here(straight)
    with pytest.raises(Paused):
        run_here(broken, stop_requested=lambda: (Path(broken.folder) / "checkpoint").exists())
    run_here(broken)
    assert adapter_distance(straight, broken) < EXACT
    assert rates(broken) == rates(straight)


def test_missing_parent_checkpoint_is_an_error(make_spec, parent):
    gone = make_spec("gone", **WARM)
    with pytest.raises(UserError, match=r"gone/checkpoint: the parent's checkpoint, .* is missing"):
        run_here(child_of(make_spec, gone))


@pytest.mark.parametrize("other", [{"lora": {"r": 8}}, {"train": {"max_steps": 20}}], ids=str)
def test_fixed_settings_must_equal_parents(make_spec, parent, other):
    sections = {name: WARM[name] | other.get(name, {}) for name in WARM}
    with pytest.raises(UserError, match=r"parent/checkpoint: this trial cannot continue from its parent"):
        run_here(child_of(make_spec, parent, **sections))
