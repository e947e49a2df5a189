"""Hands an adapter on: the adapter folder as it is, or merged into its base, with a model card. Run by `-m`.

    python -m hpotune.finetune.model.adapter_export FOLDER OUT [--merge] < card.json

The card: {base, revision, tokenizer, trust_remote_code, offline, params, score, baseline, date}; the first five
are the study's `model.path` … and `env.offline`, the others stand in the card as they come. OUT must not exist; it
appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from hpotune.config.schema.study_config import Json
from hpotune.errors import HpotuneError
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import UserError


def main(arguments: list[str], card: Mapping[str, Json]) -> None:
    """Writes OUT.

    Raises: UserError where FOLDER is no adapter or OUT is there already.
    """
    merge = "--merge" in arguments
    folder, out = (Path(argument) for argument in arguments if argument != "--merge")
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter; keep.best in the study file says whose are kept")
    if out.exists():
        raise UserError(f"{out} is there already; name another folder")
    unfinished = out.with_name(f"{out.name}.{os.getpid()}")
    try:
        if merge:
            _merged(folder, unfinished, card)
        else:
            _copied(folder, unfinished, str(card["base"]))
        (unfinished / "README.md").write_text(readme(card, merged=merge), encoding="utf-8")
        _readable(unfinished)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copied(folder: Path, out: Path, base: str) -> None:
    shutil.copytree(folder, out)
    # Training may have read the base from a cache of its own; who gets the adapter needs the public name.
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _merged(folder: Path, out: Path, card: Mapping[str, Json]) -> None:
    """Adds the adapter to the weights in float32, then rounds once, to the dtype of the base.

    Merged in bfloat16, a small adapter is lost in the rounding and a large one moves by it.
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
    options: dict[str, Json] = {
        "revision": card.get("revision"),
        "trust_remote_code": bool(card.get("trust_remote_code")),
    }
    dtype = AutoConfig.from_pretrained(path, **options).dtype
    words = dict(options)
    if card.get("tokenizer"):
        words["revision"] = None  # it is the base's
    head = AutoModelForCausalLM
    if str(PeftConfig.from_pretrained(folder).task_type).endswith("SEQ_CLS"):
        head, options["num_labels"] = AutoModelForSequenceClassification, _labels(folder)
    model = PeftModel.from_pretrained(head.from_pretrained(path, dtype=torch.float32, **options), folder)
    model.merge_and_unload().to(dtype or torch.float32).save_pretrained(out)
    tokenizer = hub.model_folder(str(card.get("tokenizer") or card["base"]))
    AutoTokenizer.from_pretrained(tokenizer, **words).save_pretrained(out)


def _labels(folder: Path) -> int:
    """Classes of the head that the adapter carries."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        names = weights.keys()
        heads = [name for name in names if name.endswith((".score.weight", ".classifier.weight"))]
        return int(weights.get_slice(heads[0]).get_shape()[0])


def _readable(folder: Path) -> None:
    """safetensors writes 0600 whatever the umask; colleagues shall read what is handed on."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def readme(card: Mapping[str, Json], *, merged: bool) -> str:
    """The model card: what it was made from, how, and what it scored beside the untouched base."""
    library = "transformers" if merged else "peft"
    kind = "weights with the adapter merged in" if merged else "LoRA adapter"
    lines = ["---", f"library_name: {library}"]
    if not str(card["base"]).startswith(("package:", "/", ".", "~")):
        lines.append(f"base_model: {card['base']}")
    lines += ["tags: [lora, hpotune]", "---", "", f"# {kind[0].upper()}{kind[1:]} for {card['base']}", ""]
    lines.append(f"Found by [hpotune](https://pypi.org/project/hpotune/) on {card['date']}.")
    for title, key in (("Score", "score"), ("The untouched base", "baseline"), ("Hyperparameters", "params")):
        lines += ["", f"## {title}", "", *_table(card.get(key))]
    return "\n".join(lines) + "\n"


def _table(value: Json) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{'not measured' if value is None else value}"]
    return ["| name | value |", "| --- | --- |", *(f"| {name} | {one} |" for name, one in value.items())]


if __name__ == "__main__":
    told = json.load(sys.stdin)
    hub.prepare(offline=bool(told.get("offline", True)))  # the base is where training found it
    try:
        main(sys.argv[1:], told)
    except HpotuneError as error:
        sys.exit(f"export: {error}")
