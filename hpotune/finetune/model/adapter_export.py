"""Export of an adapter: a copy of its folder, or its base model with the adapter merged in, with a model card.

    python -m hpotune.finetune.model.adapter_export FOLDER OUT [--merge] < card.json

The card: {base, revision, tokenizer, trust_remote_code, offline, params, score, baseline, date}; the first five are the
study's `model.path` … and `env.offline`, the others are printed in the card. OUT must not exist; it is written to a
temporary name and renamed, so that it is complete or missing.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import HpotuneError
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import UserError
from hpotune.workspace.atomic_files import set_usual_mode


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
    unfinished = out.with_name(f"{out.name}.{secrets.token_hex(8)}")
    try:
        if merge:
            _write_merged(folder, unfinished, card)
        else:
            _copy_adapter(folder, unfinished, str(card["base"]))
        text = model_card(card, merged=merge, labels=_stored_labels(folder))
        (unfinished / "README.md").write_text(text, encoding="utf-8")
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

    from hpotune.finetune.distributed.ranks import Ranks
    from hpotune.finetune.model.adapter import attach_saved_adapter
    from hpotune.finetune.model.base_model import load_for_merging, load_tokenizer
    from hpotune.finetune.model.labels import base_config
    from hpotune.finetune.model.merging import merge

    config = _model_config(folder, card)
    base = load_for_merging(config, labels=_labels(folder, config))
    _check_complete(base.new_modules, folder, config)
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    merged = merge(attach_saved_adapter(base.module, folder, ranks=ranks))
    tokenizer = load_tokenizer(config)
    if config.task == "sequence_classification" and merged.config.pad_token_id is None:
        merged.config.pad_token_id = tokenizer.pad_token_id  # as in training
    merged.to(base_config(config).dtype or torch.float32).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _model_config(folder: Path, card: Mapping[str, Value]) -> ModelConfig:
    """The `model` section of the adapter's trial, as far as an export needs it."""
    adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    labelled = adapter.get("task_type") == "SEQ_CLS"
    known = {key: card.get(key) for key in ("revision", "tokenizer")}
    return ModelConfig.model_validate(
        {
            "path": card["base"],
            "trust_remote_code": bool(card.get("trust_remote_code")),
            "task": "sequence_classification" if labelled else "causal_lm",
            **known,
        }
    )


def _labels(folder: Path, config: ModelConfig) -> list[str] | None:
    """The names of the classes; LABEL_0 … for an adapter of an older hpotune, which did not save them."""
    from hpotune.finetune.model.base_model import count_classes

    if config.task == "causal_lm":
        return None
    return _stored_labels(folder) or [f"LABEL_{i}" for i in range(count_classes(config, folder))]


def _stored_labels(folder: Path) -> list[str]:
    from hpotune.finetune.model.labels import read_labels

    return read_labels(folder) or []


def _check_complete(new_modules: list[str], folder: Path, config: ModelConfig) -> None:
    """Check that the adapter holds every module that its base model lacks.

    Raises: UserError for an adapter of an older hpotune without one, which was drawn at random in its trial.
    """
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        names = list(weights.keys())
    for module in new_modules:
        if not any(f".{module}." in name for name in names):
            raise UserError(
                f"{folder} does not hold {module}, which {config.path} lacks and the trial drew at random; run the "
                "study again to get an adapter with it"
            )


def _make_readable(folder: Path) -> None:
    """Make the export readable as the umask allows: safetensors writes 0600 for every umask."""
    for path in (folder, *folder.rglob("*")):
        set_usual_mode(path)


def model_card(card: Mapping[str, Value], *, merged: bool, labels: Sequence[str] = ()) -> str:
    """The model card in Markdown: base model, date, scores of trial and base model, classes, hyperparameters."""
    library = "transformers" if merged else "peft"
    kind = "weights with the adapter merged in" if merged else "LoRA adapter"
    lines = ["---", f"library_name: {library}"]
    if not str(card["base"]).startswith(("package:", "/", ".", "~")):
        lines.append(f"base_model: {card['base']}")
    lines += ["tags: [lora, hpotune]", "---", "", f"# {kind[0].upper()}{kind[1:]} for {card['base']}", ""]
    lines.append(f"Found by [hpotune](https://pypi.org/project/hpotune/) on {card['date']}.")
    if labels:
        lines += ["", "## Classes", "", *_table({str(number): name for number, name in enumerate(labels)})]
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
