"""Export of what a trial trained: a copy of an adapter, its base model with it merged in, or a copy of a whole model.

    python -m hpotune.finetune.model.adapter_export FOLDER OUT [--merge] < request.json

The request: {base, revision, tokenizer, trust_remote_code, offline}: the study's `model.path` … and `env.offline`. OUT
must not exist; it is written to a temporary name and renamed, so that it is complete or missing. Prints {labels,
losses, whole} as JSON: the names of the classes, with --merge the losses of a fixed batch before and after merging, and
whether FOLDER holds a whole model (train.method: full), to which the tokenizer is added; --merge changes nothing there.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.config.schema.study_config import ModelConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import HpotuneError
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import SanityCheckFailure, UserError
from hpotune.workspace.atomic_files import set_usual_mode

if TYPE_CHECKING:
    import torch


TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 2e-2, "float16": 1e-2}
"""Allowed relative difference of the loss after merging: the merged weights are rounded once to their dtype."""
BATCH = (2, 64)
"""Rows and tokens of the fixed batch: random, since an export needs no data; fewer where the model takes fewer."""


def main(arguments: list[str], card: Mapping[str, Value]) -> dict[str, Value]:
    """Write OUT; what is printed.

    Raises: UserError if FOLDER holds no adapter, or OUT exists; SanityCheckFailure if the merged weights have another
    loss than base model and adapter.
    """
    merge = "--merge" in arguments
    folder, out = (Path(argument) for argument in arguments if argument != "--merge")
    whole = not (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file()
    if not whole and not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} holds no adapter and no model; keep.best in the study file sets how many trials keep theirs"
        )
    if out.exists():
        raise UserError(f"{out} exists; name another folder")
    unfinished = out.with_name(f"{out.name}.{secrets.token_hex(8)}")
    try:
        if merge and card.get("quantization"):
            raise UserError(
                f"--merge: the adapter was trained and scored on weights rounded to 4 bits ({card['quantization']}), "
                "and merged into the unrounded ones it would be another model; export the adapter without --merge"
            )
        losses = _write_merged(folder, unfinished, card) if merge and not whole else None
        if whole:
            _copy_model(folder, unfinished, card)
        elif not merge:
            _copy_adapter(folder, unfinished, str(card["base"]))
        _make_readable(unfinished)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    labels: list[Value] = [*_stored_labels(folder)]
    return {"labels": labels, "losses": None if losses is None else list(losses), "whole": whole}


def _copy_model(folder: Path, out: Path, card: Mapping[str, Value]) -> None:
    """The model's files and the tokenizer with which it was trained."""
    from hpotune.finetune.model.base_model import load_tokenizer

    shutil.copytree(folder, out)
    known = {key: card.get(key) for key in ("revision", "tokenizer")}
    config = ModelConfig.model_validate(
        {"path": card["base"], "trust_remote_code": bool(card.get("trust_remote_code")), **known}
    )
    load_tokenizer(config).save_pretrained(out)


def _copy_adapter(folder: Path, out: Path, base: str) -> None:
    shutil.copytree(folder, out)
    # Training may have loaded the base model from a local path; users of the export need the name in the study file.
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _write_merged(folder: Path, out: Path, card: Mapping[str, Value]) -> tuple[float, float]:
    """Add the adapter to the base weights in float32, round once to the base model's dtype, and save the model.

    Added in bfloat16, a small adapter would be lost in the rounding and a large one changed by it. Returns the losses
    of a fixed batch: of base model and adapter, and of the merged weights as read back from disk.
    Raises: SanityCheckFailure where they differ.
    """
    import torch

    from hpotune.finetune.distributed.ranks import Ranks
    from hpotune.finetune.model.adapter import attach_saved_adapter
    from hpotune.finetune.model.base_model import HEADS, load_for_merging, load_tokenizer
    from hpotune.finetune.model.labels import base_config
    from hpotune.finetune.model.merging import merge

    config = _model_config(folder, card)
    base = load_for_merging(config, labels=_labels(folder, config))
    _check_complete(base.new_modules, folder, config)
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    adapted = attach_saved_adapter(base.module, folder, ranks=ranks)
    before = _batch_loss(adapted, config)
    merged = merge(adapted)
    tokenizer = load_tokenizer(config)
    if config.task == "sequence_classification" and merged.config.pad_token_id is None:
        merged.config.pad_token_id = tokenizer.pad_token_id  # as in training
    dtype = base_config(config).dtype or torch.float32
    merged.to(dtype).save_pretrained(out)
    tokenizer.save_pretrained(out)
    del base, adapted, merged
    saved = HEADS[config.task].from_pretrained(out, trust_remote_code=config.trust_remote_code, dtype=dtype)
    after = _batch_loss(saved, config)
    check_merged(before, after, dtype=str(dtype).removeprefix("torch."))
    return before, after


def _batch_loss(model: torch.nn.Module, config: ModelConfig) -> float:
    """The mean cross entropy of a fixed batch: of the next token, or of the first class; of a number its square."""
    import torch
    from torch.nn import functional

    from hpotune.finetune.model.base_model import embedding_rows
    from hpotune.finetune.model.model_checks import position_limit

    rows = embedding_rows(model)
    ids = torch.randint(rows, BATCH, generator=torch.Generator().manual_seed(0))[:, : position_limit(model)]
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.double()
    if logits.shape[-1] == 1:
        return float(logits.square().mean())
    if config.task == "sequence_classification":
        return float(functional.cross_entropy(logits, torch.zeros(len(ids), dtype=torch.long)))
    return float(functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


def check_merged(before: float, after: float, *, dtype: str) -> None:
    """Check that the merged weights have the loss of base model and adapter.

    Raises: SanityCheckFailure.
    """
    allowed = TOLERANCE.get(dtype, TOLERANCE["bfloat16"])
    if not (math.isfinite(after) and abs(after - before) <= allowed * max(abs(before), 1e-12)):
        raise SanityCheckFailure(
            f"--merge: the merged weights in {dtype} have a loss of {after:.6g} on a fixed batch, base model and "
            f"adapter {before:.6g} (allowed: a relative difference of {allowed:g}); export the adapter without --merge"
        )


def _model_config(folder: Path, card: Mapping[str, Value]) -> ModelConfig:
    """The `model` section of the adapter's trial, as far as an export needs it."""
    adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    labelled = adapter.get("task_type") == "SEQ_CLS"
    known = {
        key: card.get(key) for key in ("revision", "tokenizer", *(("problem_type",) if labelled else ()))
    }
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


if __name__ == "__main__":
    card = json.load(sys.stdin)
    hub.prepare_environment(
        offline=bool(card.get("offline", True))
    )  # as in training, so that the base is found
    try:
        written = main(sys.argv[1:], card)
    except HpotuneError as error:
        sys.exit(f"export: {error}")
    sys.stdout.write(json.dumps(written) + "\n")
