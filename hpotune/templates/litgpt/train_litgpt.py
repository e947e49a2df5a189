"""The program of litgpt.yaml: it fine-tunes with LitGPT, scores with lm-eval, and prints the scores."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml

import hpotune

parser = argparse.ArgumentParser()
parser.add_argument("--checkpoint", required=True, help="a folder that `litgpt download` wrote")
parser.add_argument(
    "--data", required=True, help='a JSON list of {"instruction": …, "input": …, "output": …}'
)
parser.add_argument("--task", required=True, help="of lm-eval")
parser.add_argument("--limit", help="items of the task, if not all")
parser.add_argument("--steps", type=int, required=True)
arguments = parser.parse_args()

params = hpotune.params({"learning_rate": 2e-4, "lora_r": 16, "alpha_per_r": 2, "lora_dropout": 0.0})
out = hpotune.checkpoint_dir() or Path("out")
out.mkdir(parents=True, exist_ok=True)

config = {
    "data": {
        "class_path": "litgpt.data.JSON",
        "init_args": {"json_path": arguments.data, "val_split_fraction": 0.05, "mask_prompt": True},
    },
    "train": {
        "max_steps": arguments.steps,
        "global_batch_size": 16,
        "micro_batch_size": 4,
        "lr_warmup_steps": max(1, arguments.steps // 20),
        "max_seq_length": 512,
    },
    "eval": {"interval": max(1, arguments.steps // 4), "max_new_tokens": 1},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": params["learning_rate"]}},
    "lora_r": params["lora_r"],
    "lora_alpha": params["alpha_per_r"] * params["lora_r"],
    "lora_dropout": params["lora_dropout"],
    "lora_key": True,
    "lora_projection": True,
    "lora_mlp": True,
    "precision": "bf16-true" if torch.cuda.is_available() else "32-true",
    "devices": max(1, torch.cuda.device_count()),
    "out_dir": str(out),
}
(out / "config.yaml").write_text(yaml.safe_dump(config))


def litgpt(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "litgpt", *words], check=True)


litgpt("finetune_lora", arguments.checkpoint, "--config", str(out / "config.yaml"))
limit = ["--limit", arguments.limit] if arguments.limit else []
litgpt("evaluate", str(out / "final"), "--tasks", arguments.task, "--batch_size", "16", *limit)

scores = json.loads((out / "final" / "evaluate" / "results.json").read_text())["results"][arguments.task]
shutil.rmtree(out / "final" / "evaluate")  # the whole model once more
(out / "final" / "lit_model.pth").unlink()  # `litgpt merge_lora` makes it again from lit_model.pth.lora
print(
    json.dumps(
        {name.removesuffix(",none"): value for name, value in scores.items() if name.endswith(",none")}
    )
)
