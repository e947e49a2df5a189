"""Training compared with an independent loop, and with itself for settings that must not change it; in float64."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers

from hpotune.finetune.trial_errors import NotFinite, UserError
from tests.fixtures.tiny_trials import adapter_distance, adapter_of, run_here

EXACT = 1e-12  # float64 sums in another order

ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


def reference(
    home: Path, *, rows: int, steps: int, lr: float, decay: float, warmup: int, clip: float, optim: str
):
    """An independent reference: peft, torch.optim and a plain loop over one full batch."""
    torch.manual_seed(3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "model")
    base = transformers.AutoModelForCausalLM.from_pretrained(home / "model", dtype=torch.float64)
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config).train()
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    texts = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()][:rows]
    # One padded batch, and division after the backward pass: Llama's norms compute in float32 whatever the dtype,
    # so that other shapes or another scale of the gradient round differently (1e-9 after eight steps of SGD).
    ids = torch.full((rows, 128), tokenizer.pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, row in enumerate(texts):
        prompt = tokenizer(ALPACA.format(**row))["input_ids"]
        whole = torch.tensor(prompt + tokenizer(row["output"])["input_ids"] + [tokenizer.eos_token_id])
        ids[i, : len(whole)], mask[i, : len(whole)] = whole, 1
        labels[i, len(prompt) : len(whole)] = whole[len(prompt) :]
    longest = int(mask.sum(1).max())
    ids, mask, labels = ids[:, :longest], mask[:, :longest], labels[:, :longest]
    parameters = [p for p in model.parameters() if p.requires_grad]
    if optim == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=decay)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay)
    losses = []
    for step in range(steps):
        share = step / warmup if step < warmup else (steps - step) / (steps - warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        optimizer.zero_grad()
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        flat, wanted = logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1)
        loss, counted = (
            torch.nn.functional.cross_entropy(flat, wanted, reduction="sum"),
            (wanted != -100).sum(),
        )
        loss.backward()
        for parameter in parameters:
            parameter.grad /= counted
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        losses.append(loss.item() / int(counted))
    return peft.get_peft_model_state_dict(model), losses


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_training_equals_plain_loop(home, make_spec, tmp_path, optim):
    rows, steps, lr = 6, 8, 2e-2
    file = tmp_path / "few.jsonl"
    file.write_text("".join((home / "rows.jsonl").read_text().splitlines(keepends=True)[:rows]))
    train = {"learning_rate": lr, "max_steps": steps, "global_batch_size": rows, "warmup_steps": 0.25}
    train |= {"weight_decay": 0.1, "max_grad_norm": 0.5, "optim": optim}
    train |= (
        {"sgd_momentum": 0.9}
        if optim == "sgd"
        else {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6}
    )
    score = {"objective": [{"metric": "train_loss"}]}
    spec = make_spec(
        data={"path": str(file), "validation": 0, "prompt": "alpaca", "response": None},
        train=train,
        score=score,
    )
    result = run_here(spec)
    wanted, losses = reference(
        home, rows=rows, steps=steps, lr=lr, decay=0.1, warmup=2, clip=0.5, optim=optim
    )
    found = adapter_of(spec)
    assert found.keys() == wanted.keys()
    assert max(float((found[name] - wanted[name]).abs().max()) for name in found) < EXACT
    assert result.values == pytest.approx([sum(losses) / steps], abs=EXACT)
    curve = [json.loads(line) for line in (Path(spec.folder) / "curve.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in curve] == pytest.approx(losses, abs=EXACT)


@pytest.mark.parametrize("change", [{"per_device_train_batch_size": 3}, {"gradient_checkpointing": True}])
def test_memory_settings_keep_the_result(make_spec, change):
    one, other = make_spec("one"), make_spec("other", train=change)
    losses = [run_here(spec).values[0] for spec in (one, other)]
    assert adapter_distance(one, other) < EXACT
    assert losses[0] == pytest.approx(losses[1], abs=EXACT)


def test_accumulation_equals_global_batch_size(make_spec):
    train = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    one, other = make_spec("one"), make_spec("other")
    settings = {key: value for key, value in one.point.train.items() if key != "global_batch_size"} | train
    other = other.model_copy(update={"point": one.point.model_copy(update={"train": settings})})
    run_here(one), run_here(other)
    assert adapter_distance(one, other) < EXACT


def test_dropout_and_noise_are_reproducible(make_spec):
    settings = {"lora": {"lora_dropout": 0.3}, "train": {"neftune_noise_alpha": 5.0}}
    one, same, plain = make_spec("one", **settings), make_spec("same", **settings), make_spec("plain")
    for spec in (one, same, plain):
        run_here(spec)
    assert adapter_distance(one, same) == 0
    assert adapter_distance(one, plain) > 1e-4


def test_smoothing_equals_trainers(make_spec, home):
    spec = make_spec(train={"label_smoothing_factor": 0.1, "max_steps": 1, "global_batch_size": 40})
    smoothed = run_here(spec).metrics["train_loss"]
    plain = run_here(make_spec("plain", train={"max_steps": 1, "global_batch_size": 40})).metrics[
        "train_loss"
    ]
    logits, labels = torch.randn(1, 5, 11, dtype=torch.float64), torch.tensor([[1, -100, 3, 4, 5]])
    ours = torch.nn.functional.cross_entropy(
        logits[labels != -100], labels[labels != -100], label_smoothing=0.1
    )
    theirs = transformers.trainer_pt_utils.LabelSmoother(epsilon=0.1)({"logits": logits}, labels)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)  # theirs sums in float32
    assert smoothed != pytest.approx(plain, abs=1e-6)


def test_infinite_loss_has_cause_nan(make_spec):
    with pytest.raises(NotFinite) as caught:
        run_here(make_spec(train={"learning_rate": 1e200, "max_grad_norm": 0.0, "optim": "sgd"}))
    assert caught.value.cause == "nan"


def test_classifier_learns_its_classes(home, make_spec, tmp_path):
    rows = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]
    file = tmp_path / "classes.jsonl"
    file.write_text("".join(json.dumps({"text": r["input"], "label": r["output"]}) + "\n" for r in rows))
    spec = make_spec(
        model={"task": "sequence_classification"},
        data={"path": str(file), "prompt": "text", "response": None},
        train={"max_steps": 40, "learning_rate": 1e-2},
        score={"objective": [{"metric": "eval_accuracy"}]},
    )
    result = run_here(spec)
    assert result.values[0] >= 0.75  # four topics: chance is 0.25
    assert result.metrics["final_train_loss"] < 0.3
    assert any("score" in name for name in adapter_of(spec))


def test_baseline_has_loss_of_base_model(make_spec):
    spec = make_spec(spec={"kind": "baseline", "number": 0})
    result = run_here(spec)
    trained = run_here(make_spec("trained", train={"global_batch_size": 40, "max_steps": 1}))
    assert result.metrics["train_loss"] == pytest.approx(trained.metrics["train_loss"], abs=EXACT)
    assert result.metrics["final_train_loss"] == result.metrics["train_loss"]
    assert (result.metrics["steps"], result.metrics["trainable_parameters"]) == (0, 0)
    assert not (Path(spec.folder) / "adapter").exists()


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"train": {"learning_rat": 1.0}}, "did you mean 'learning_rate'"),
        ({"train": {"fsdp": "full_shard"}}, "fully_shard"),
        ({"train": {"optim": "adamw_bnb"}}, "bnb|bitsandbytes"),
        ({"train": {"optim": "lomo"}}, "cannot train an adapter"),
        ({"train": {"sgd_momentum": 0.9}}, "only with optim: sgd"),
        ({"train": {"gradient_accumulation_steps": 2}}, "exclude each other"),
        ({"train": {"lr_scheduler_type": "nope"}}, "nope"),
        ({"lora": {"megatron_core": "x"}}, "Megatron"),
        ({"lora": {"init_lora_weights": "eva"}}, "pass over the data"),
    ],
)
def test_unsupported_setting_is_user_error(make_spec, section, part):
    with pytest.raises(UserError, match=part):
        run_here(make_spec(**section))
