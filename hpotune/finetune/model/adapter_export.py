"""Export of an adapter: a copy of its folder, or its base model with the adapter merged in, with a model card.

    python -m hpotune.finetune.model.adapter_export FOLDER OUT [--merge] < card.json

The card: {base, revision, tokenizer, trust_remote_code, offline, params, score, baseline, date}; the first five are the
study's `model.path` … and `env.offline`, the others are printed in the card. OUT must not exist; it is written to a
temporary name and renamed, so that it is complete or missing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from hpotune.config.yaml_source import Value
from hpotune.errors import HpotuneError
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import UserError


def main(arguments: list[str], card: Mapping[str, Value]) -> None:
    """Write OUT.

    Raises: UserError if FOLDER holds no adapter, or OUT exists.
    """
    merge = "--merge" in arguments
    folder, out = (Path(argument) for argument in arguments if argument != "--merge")
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} holds no adapter; keep.best in the study file sets how many trials keep theirs"
        )
    if out.exists():
        raise UserError(f"{out} exists; name another folder")
    unfinished = out.with_name(f"{out.name}.{os.getpid()}")
    try:
        if merge:
            _write_merged(folder, unfinished, card)
        else:
            _copy_adapter(folder, unfinished, str(card["base"]))
        (unfinished / "README.md").write_text(model_card(card, merged=merge), encoding="utf-8")
        _make_readable(unfinished)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy_adapter(folder: Path, out: Path, base: str) -> None:
    shutil.copytree(folder, out)
    # Training may have loaded the base model from a local path; users of the export need the name in the study file.
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _write_merged(folder: Path, out: Path, card: Mapping[str, Value]) -> None:
    """Add the adapter to the base weights in float32, round once to the base model's dtype, and save the model.

    Added in bfloat16, a small adapter would be lost in the rounding and a large one changed by it.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    path = hub.model_folder(str(card["base"]))
    options: dict[str, Value] = {
        "revision": card.get("revision"),
        "trust_remote_code": bool(card.get("trust_remote_code")),
    }
    dtype = AutoConfig.from_pretrained(path, **options).dtype
    tokenizer_options = dict(options)
    if card.get("tokenizer"):
        tokenizer_options["revision"] = None  # the revision belongs to model.path
    model_class = AutoModelForCausalLM
    if str(PeftConfig.from_pretrained(folder).task_type).endswith("SEQ_CLS"):
        model_class, options["num_labels"] = AutoModelForSequenceClassification, _num_labels(folder)
    base = model_class.from_pretrained(path, dtype=torch.float32, **options)
    model = PeftModel.from_pretrained(base, folder)
    model.merge_and_unload().to(dtype or torch.float32).save_pretrained(out)
    tokenizer = hub.model_folder(str(card.get("tokenizer") or card["base"]))
    AutoTokenizer.from_pretrained(tokenizer, **tokenizer_options).save_pretrained(out)


def _num_labels(folder: Path) -> int:
    """The number of classes of the classification head saved with the adapter."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        names = weights.keys()
        heads = [name for name in names if name.endswith((".score.weight", ".classifier.weight"))]
        return int(weights.get_slice(heads[0]).get_shape()[0])


def _make_readable(folder: Path) -> None:
    """Make the export readable by all users: safetensors writes 0600 for every umask."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def model_card(card: Mapping[str, Value], *, merged: bool) -> str:
    """The model card in Markdown: base model, date, scores of the trial and of the base model, hyperparameters."""
    library = "transformers" if merged else "peft"
    kind = "weights with the adapter merged in" if merged else "LoRA adapter"
    lines = ["---", f"library_name: {library}"]
    if not str(card["base"]).startswith(("package:", "/", ".", "~")):
        lines.append(f"base_model: {card['base']}")
    lines += ["tags: [lora, hpotune]", "---", "", f"# {kind[0].upper()}{kind[1:]} for {card['base']}", ""]
    lines.append(f"Found by [hpotune](https://pypi.org/project/hpotune/) on {card['date']}.")
    for title, key in (("Score", "score"), ("Base model", "baseline"), ("Hyperparameters", "params")):
        lines += ["", f"## {title}", "", *_table(card.get(key))]
    return "\n".join(lines) + "\n"


def _table(value: Value) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{'not measured' if value is None else value}"]
    return ["| name | value |", "| --- | --- |", *(f"| {name} | {one} |" for name, one in value.items())]


if __name__ == "__main__":
    card = json.load(sys.stdin)
    hub.prepare_environment(
        offline=bool(card.get("offline", True))
    )  # as in training, so that the base is found
    try:
        main(sys.argv[1:], card)
    except HpotuneError as error:
        sys.exit(f"export: {error}")
