"""The program of axolotl.yaml: it fine-tunes with axolotl, scores with lm-eval, and prints the scores."""

import argparse
import json
import subprocess
from pathlib import Path

import lm_eval
import torch
import yaml

import hpotune

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True, help='JSON lines of {"instruction": …, "input": …, "output": …}')
parser.add_argument("--task", required=True, help="of lm-eval")
parser.add_argument("--limit", type=int, help="items of the task, if not all")
parser.add_argument("--steps", type=int, required=True)
arguments = parser.parse_args()

params = hpotune.params({"learning_rate": 2e-4, "lora_r": 16, "alpha_per_r": 2, "lora_dropout": 0.0})
out = hpotune.checkpoint_dir() or Path("out")
out.mkdir(parents=True, exist_ok=True)

config = {
    "base_model": arguments.model,
    "adapter": "lora",
    "lora_r": params["lora_r"],
    "lora_alpha": params["alpha_per_r"] * params["lora_r"],
    "lora_dropout": params["lora_dropout"],
    "lora_target_linear": True,
    "datasets": [{"path": arguments.data, "ds_type": "json", "type": "alpaca"}],
    "val_set_size": 0.05,
    "sequence_len": 512,
    "sample_packing": False,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "max_steps": arguments.steps,
    "learning_rate": params["learning_rate"],
    "lr_scheduler": "cosine",
    "optimizer": "adamw_torch",
    "warmup_ratio": 0.05,
    "bf16": "auto",
    "seed": 0,
    "output_dir": str(out / "axolotl"),
}
(out / "config.yaml").write_text(yaml.safe_dump(config))
subprocess.run(["axolotl", "train", str(out / "config.yaml")], check=True)

scored = lm_eval.simple_evaluate(
    model="hf",
    model_args={"pretrained": arguments.model, "peft": str(out / "axolotl")},
    tasks=[arguments.task],
    batch_size=16,
    limit=arguments.limit,
    device="cuda" if torch.cuda.is_available() else "cpu",
)
scores = scored["results"][arguments.task]
print(
    json.dumps(
        {name.removesuffix(",none"): value for name, value in scores.items() if name.endswith(",none")}
    )
)
