"""A trial as a program with torch, transformers and peft only, that trains and evaluates as the trial did. Pure.

The program's text is below, with the setting put in as Python values. tests/exchange/formats/test_portable_script.py
runs it and compares its losses with the trial's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pprint import pformat

from hpotune.config.yaml_source import Value
from hpotune.exchange.formats.tool_file import ToolFile, header_lines
from hpotune.exchange.trial_setting import TrialSetting

_OWN = (
    "global_batch_size",
    "packing",
    "chunked_loss",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "sgd_momentum",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
)
"""Keys of `train` that the program does not hand to TrainingArguments as they are."""
_SEEDED_START = "pissa_niter_"

PROGRAM = '''\
"""
@header@
"""

import json
import math

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers.integrations.neftune import neftune_post_forward_hook

MODEL = @model@
REVISION = @revision@
TRUST_REMOTE_CODE = @trust@
ATTENTION = @attention@  # None: the default of transformers
DTYPE = torch.@dtype@  # of the frozen weights
LORA = @lora@
TRAIN = @train@  # fields of transformers.TrainingArguments
STEPS = @steps@  # optimizer steps of the whole run
GLOBAL_BATCH = @global_batch@  # rows of an optimizer step
MICRO_BATCH = @micro_batch@  # rows of a forward pass
EVAL_BATCH = @eval_batch@
MOMENTUM = @momentum@  # of SGD
SEED = @seed@
ADAPTER_SEED = @adapter_seed@
PAD = 0  # any token: the mask hides it
IGNORED = -100  # the label of a token that the loss does not count
HALF = DTYPE in (torch.bfloat16, torch.float16)
WIDE = torch.float64 if DTYPE == torch.float64 else torch.float32  # of the adapter


def read_rows(file):
    """The rows of a file: {input_ids, labels}."""
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def batch_of(rows, device):
    """The rows padded on the right: ids, mask, labels."""
    length = max(len(row["input_ids"]) for row in rows)

    def padded(key, filling):
        lists = [row[key] + [filling] * (length - len(row[key])) for row in rows]
        return torch.tensor(lists, device=device)

    return padded("input_ids", PAD), padded("attention_mask", 0), padded("labels", IGNORED)


def summed_loss(model, rows, device, smoothing=0.0):
    """The sum of the cross entropies of the counted tokens, and their number."""
    ids, mask, labels = batch_of(rows, device)
    with torch.autocast(device, dtype=DTYPE if HALF else None, enabled=HALF):
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        labels = labels[:, 1:]
        counted = labels != IGNORED
        logits, labels = logits[counted], labels[counted]
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    return loss, len(labels)


def rows_of_step(step, rows):
    """The indices of the rows of a step: each epoch is a permutation, cut into batches."""
    whole = rows // GLOBAL_BATCH if ARGS.dataloader_drop_last else math.ceil(rows / GLOBAL_BATCH)
    epoch, position = divmod(step, whole)
    seed = ARGS.seed if ARGS.data_seed is None else ARGS.data_seed
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return order[position * GLOBAL_BATCH : (position + 1) * GLOBAL_BATCH].tolist()


def make_model(device):
    """The frozen base model with a new adapter."""
    torch.manual_seed(SEED)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        MODEL, revision=REVISION, trust_remote_code=TRUST_REMOTE_CODE, dtype=DTYPE, attn_implementation=ATTENTION
    )
    base.config.use_cache = False
    base.requires_grad_(False)
    torch.manual_seed(ADAPTER_SEED)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **LORA))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or ".lora_" in name:
            parameter.data = parameter.data.to(WIDE)
    if ARGS.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    if ARGS.neftune_noise_alpha is not None:
        embeddings = base.get_input_embeddings()
        embeddings.neftune_noise_alpha = ARGS.neftune_noise_alpha
        embeddings.register_forward_hook(neftune_post_forward_hook)
    return model.to(device)


def make_optimizer(model):
    """Optimizer and learning rate schedule, as transformers' Trainer makes them."""
    kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(ARGS, model)
    if MOMENTUM is not None:
        options["momentum"] = MOMENTUM
    decaying = set(transformers.Trainer.get_decay_parameter_names(None, model))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for name, p in trained.items() if name in decaying], "weight_decay": ARGS.weight_decay},
        {"params": [p for name, p in trained.items() if name not in decaying], "weight_decay": 0.0},
    ]
    optimizer = kind([group for group in groups if group["params"]], **options)
    schedule = transformers.get_scheduler(
        ARGS.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=ARGS.get_warmup_steps(STEPS),
        num_training_steps=STEPS,
        scheduler_specific_kwargs=ARGS.lr_scheduler_kwargs,
    )
    return optimizer, schedule, list(trained.values())


def train(model, rows, device):
    """Train the adapter, and return the mean of the steps' losses."""
    optimizer, schedule, parameters = make_optimizer(model)
    model.train()
    losses = []
    for step in range(STEPS):
        chosen = sorted(rows_of_step(step, len(rows)), key=lambda index: len(rows[index]["input_ids"]))
        torch.manual_seed(int(np.random.SeedSequence([SEED, step, 0]).generate_state(1)[0]))  # of the dropout
        optimizer.zero_grad()
        total, counted = 0.0, 0
        for first in range(0, len(chosen), MICRO_BATCH):
            some = [rows[index] for index in chosen[first : first + MICRO_BATCH]]
            loss, tokens = summed_loss(model, some, device, ARGS.label_smoothing_factor)
            loss.backward()
            total, counted = total + loss.item(), counted + tokens
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(counted)  # the loss is the mean over the tokens of the whole step
        if ARGS.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, ARGS.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(total / counted)
        if (step + 1) % max(1, STEPS // 20) == 0:
            print(f"step {step + 1} of {STEPS}: loss {losses[-1]:.6g}", flush=True)
    return sum(losses) / len(losses)


def evaluate(model, rows, device):
    """The mean loss over the counted tokens of the rows."""
    model.eval()
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    total, counted = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(rows), EVAL_BATCH):
            loss, tokens = summed_loss(model, rows[first : first + EVAL_BATCH], device)
            total, counted = total + loss.item(), counted + tokens
    return total / counted


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = make_model(device)
    result = {"train_loss": train(model, read_rows("rows/train.jsonl"), device)}
    validation = read_rows("rows/validation.jsonl")
    if validation:
        result["eval_loss"] = evaluate(model, validation, device)
    model.save_pretrained("adapter")
    print(json.dumps(result))


ARGS = transformers.TrainingArguments(output_dir="output", report_to="none", use_cpu=True, seed=SEED, **TRAIN)

if __name__ == "__main__":
    main()
'''


def portable_script(setting: TrialSetting) -> ToolFile:
    """The program; it runs beside the folder `rows`."""
    point = setting.point
    train = {key: value for key, value in point.train.items() if key not in _OWN and value is not None}
    lora = {"target_modules": "all-linear", **{k: v for k, v in point.lora.items() if v is not None}}
    start = str(point.lora.get("init_lora_weights", True))
    if setting.ranks > 1 and (point.lora.get("lora_dropout") or point.train.get("neftune_noise_alpha")):
        setting.notes.append(
            f"the trial ran on {setting.ranks} ranks, each with its own random numbers for dropout; the "
            "program runs on one"
        )
    if start == "olora" or start.startswith("pissa"):
        setting.notes.append(
            f"lora.init_lora_weights={start}: changes the base weights, so that the adapter that the program saves "
            "fits only the changed ones; the trial saved an ordinary adapter"
        )
    if setting.model.tokenizer is not None:
        setting.notes.append(
            f"model.tokenizer={setting.model.tokenizer!r}: is only used for the rows, which are tokenized already"
        )
    header = "\n".join(header_lines(setting, run="python finetune.py", tool="the program"))
    values: Mapping[str, Value | str] = {
        "header": header.replace("\\", "/").replace('"""', "'''"),
        "model": repr(setting.model.path),
        "revision": repr(setting.model.revision),
        "trust": repr(setting.model.trust_remote_code),
        "attention": repr(setting.model.attn_implementation),
        "dtype": setting.dtype,
        "lora": pformat(lora, width=100),
        "train": pformat(train, width=100),
        "steps": repr(setting.steps),
        "global_batch": repr(setting.global_batch),
        "micro_batch": repr(setting.micro_batch),
        "eval_batch": repr(point.score.batch_size),
        "momentum": repr(point.train.get("sgd_momentum")),
        "seed": repr(setting.seed),
        "adapter_seed": repr(0 if start.startswith(_SEEDED_START) else setting.seed),
    }
    text = re.sub(r"@(\w+)@", lambda name: str(values[name[1]]), PROGRAM)
    return ToolFile(name="finetune.py", text=text, rows="tokens", notes=tuple(setting.notes))
