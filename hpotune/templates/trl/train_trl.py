"""The program of trl.yaml: replace it with your own. The lines that hpotune needs are numbered."""

import argparse
import json

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import hpotune

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True, help='JSON lines such as {"text": "..."}')
parser.add_argument("--steps", type=int, required=True)
arguments = parser.parse_args()

params = hpotune.params({"learning_rate": 2e-4, "r": 16, "alpha_per_r": 2})  # 1

with open(arguments.data) as file:
    rows = Dataset.from_list([{"text": json.loads(line)["text"]} for line in file])
held_out = max(1, len(rows) // 20)

trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(arguments.model),
    processing_class=AutoTokenizer.from_pretrained(arguments.model),
    args=SFTConfig(
        output_dir="out",  # in a trial: its checkpoint folder
        max_steps=arguments.steps,
        max_length=512,
        bf16=torch.cuda.is_available(),
        per_device_train_batch_size=4,
        learning_rate=params["learning_rate"],
        eval_strategy="steps",
        eval_steps=max(1, arguments.steps // 9),
        save_steps=max(1, arguments.steps // 9),
        save_total_limit=2,
        report_to=[],
    ),
    peft_config=LoraConfig(
        r=params["r"], lora_alpha=params["alpha_per_r"] * params["r"], target_modules="all-linear"
    ),
    train_dataset=rows.select(range(held_out, len(rows))),
    eval_dataset=rows.select(range(held_out)),
    callbacks=[hpotune.TrainerCallback()],  # 2
)
trainer.train(resume_from_checkpoint=hpotune.last_checkpoint())  # 3
