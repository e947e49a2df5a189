"""The program of accelerate.yaml: replace it with your own. It can be killed at any moment and continued."""

import argparse
import json
import os
import shutil

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoModelForCausalLM, AutoTokenizer

import hpotune

BATCH = 4

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True, help='JSON lines such as {"text": "..."}')
parser.add_argument("--steps", type=int, required=True)
arguments = parser.parse_args()
params = hpotune.params({"learning_rate": 2e-4, "weight_decay": 0.0})

accelerator = Accelerator()
set_seed(int(os.environ.get("HPOTUNE_SEED", "0")))
tokenizer = AutoTokenizer.from_pretrained(arguments.model)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
with open(arguments.data) as file:
    texts = [json.loads(line)["text"] for line in file]
held_out = max(1, len(texts) // 20)
model = AutoModelForCausalLM.from_pretrained(arguments.model)
optimizer = torch.optim.AdamW(
    model.parameters(), lr=params["learning_rate"], weight_decay=params["weight_decay"]
)
model, optimizer = accelerator.prepare(model, optimizer)


def loss_of(rows):
    """The mean loss of some texts."""
    batch = tokenizer(rows, max_length=512, truncation=True, padding=True, return_tensors="pt").to(
        accelerator.device
    )
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return model(**batch, labels=labels).loss


def rows_of(step):
    """This rank's texts of a step: a pure function of the step, so that a continued run sees the same ones."""
    first = (step * accelerator.num_processes + accelerator.process_index) * BATCH
    return [texts[held_out + (first + n) % (len(texts) - held_out)] for n in range(BATCH)]


def evaluate():
    """The mean loss of the texts that are held out, the same on every rank."""
    model.eval()
    with torch.no_grad():
        parts = [texts[n : min(n + BATCH, held_out)] for n in range(0, held_out, BATCH)]
        result = sum(loss_of(part).item() * len(part) for part in parts) / held_out
    model.train()
    return result


def save(step):
    """Write a checkpoint whole or not at all, and delete the one before."""
    folder, earlier = hpotune.checkpoint_dir(), hpotune.last_checkpoint()
    if folder is None:
        return
    accelerator.save_state(str(folder / ".new"))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (folder / ".new").rename(folder / f"step-{step}")
        if earlier is not None and earlier.parent == folder:
            shutil.rmtree(earlier)
    accelerator.wait_for_everyone()


step = saved = 0
checkpoint = hpotune.last_checkpoint()
if checkpoint is not None:
    accelerator.load_state(str(checkpoint))
    step = saved = int(checkpoint.name.rpartition("-")[2])

model.train()
while step < arguments.steps and not hpotune.should_stop(step=step):
    loss = loss_of(rows_of(step))
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    step += 1
    if step % max(1, arguments.steps // 9) == 0:
        save(step)
        saved = step
        hpotune.report({"loss": loss, "eval_loss": evaluate()}, step=step, steps=arguments.steps)
if step > saved:
    save(step)
hpotune.report({"eval_loss": evaluate()}, step=step, steps=arguments.steps)
accelerator.end_training()
