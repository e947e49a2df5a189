"""The program of transformers.yaml: replace it with your own. The lines that hpotune needs are numbered."""

import argparse
import json

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

import hpotune

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True, help='JSON lines such as {"text": "..."}')
parser.add_argument("--steps", type=int, required=True)
arguments = parser.parse_args()

params = hpotune.params({"learning_rate": 2e-4, "weight_decay": 0.0, "warmup_steps": 0})  # 1

tokenizer = AutoTokenizer.from_pretrained(arguments.model)
with open(arguments.data) as file:
    rows = [dict(tokenizer(json.loads(line)["text"], max_length=512, truncation=True)) for line in file]
held_out = max(1, len(rows) // 20)

trainer = Trainer(
    model=AutoModelForCausalLM.from_pretrained(arguments.model),
    args=TrainingArguments(
        output_dir="out",  # in a trial: its checkpoint folder
        max_steps=arguments.steps,
        per_device_train_batch_size=4,
        eval_strategy="steps",
        eval_steps=max(1, arguments.steps // 9),
        save_steps=max(1, arguments.steps // 9),
        save_total_limit=2,
        report_to=[],
        **params,
    ),
    train_dataset=rows[held_out:],
    eval_dataset=rows[:held_out],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    callbacks=[hpotune.TrainerCallback()],  # 2
)
trainer.train(resume_from_checkpoint=hpotune.last_checkpoint())  # 3
