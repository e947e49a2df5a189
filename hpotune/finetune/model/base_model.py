"""The frozen base model and its tokenizer.

A single rank loads a language model's weights from the file straight to its device. Several load them on their CPU,
and `fsdp.py` moves each rank's shard to its device, so that a base model larger than a GPU's memory is never whole on
one. The cost is host memory during loading: the size of the base model, times the ranks of the node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import safe_open

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model import hub
from hpotune.finetune.model.labels import base_config, label_options
from hpotune.finetune.model.quantized_base import quantization_options
from hpotune.finetune.trial_errors import TrialError, UserError
from hpotune.workspace.fetched_lock import pinned_commit

KNOWN_HEADS = ("classifier", "score")
"""Modules that peft trains and saves with every adapter of a classification, found by the end of their names."""
HEADS = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "sequence_classification": transformers.AutoModelForSequenceClassification,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A base model, and which of its modules are new."""

    module: torch.nn.Module
    new_modules: list[str]
    """Names of the modules whose weights are not in the checkpoint, but drawn at random (a classification head, a
    pooler). They are trained and saved with the adapter; otherwise a fresh base model would be another model. Also
    those that peft takes for a head by the end of their name, DistilBERT's pre_classifier."""
    when_sharded: Callable[[torch.nn.Module], None] | None = None
    """Called with the base model by `shard_base` once it is sharded; None: with one rank, or nothing is kept."""


def load_tokenizer(config: ModelConfig) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer, with a padding token (its end token if it has none).

    Raises: UserError if it has neither, or cannot be loaded.
    """
    path = config.tokenizer or config.path
    revision = pinned_commit("model", path, None) if config.tokenizer else config.revision
    try:
        with hub.explain_missing_model(path, revision):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                hub.model_folder(path), revision=revision, trust_remote_code=config.trust_remote_code
            )
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = first_line(error)
        key = "trust_remote_code" if "trust_remote_code" in str(error) else "tokenizer"
        raise UserError(f"model.{key}: the tokenizer of {path} cannot be loaded: {reason}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                "model.tokenizer: the tokenizer has neither a padding nor an end token; set another one"
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(
    config: ModelConfig,
    *,
    labels: Sequence[str] | None,
    pad_id: int,
    device: torch.device,
    seed: int,
    on_device: bool = False,
    staged: Path | None = None,
    whole: bool = False,
) -> BaseModel:
    """The base model, frozen and in evaluation mode; weights that are not in the checkpoint are drawn from `seed`.

    `labels`: the names of the classes in their order; None for a language model. `device`: where it will be.
    `on_device`: whether it is returned there, and not on the CPU. A new head is drawn on the CPU for all.
    `staged`: a copy of its files that is read instead of them (staged_model.py); None: there is none. `whole`: whether
    all weights will be trained; they are then at least float32.
    Raises: UserError as `meta_model`.
    """
    torch.manual_seed(seed)
    straight = on_device and labels is None and device.type != "cpu"
    dtype = base_dtype(config, device)
    with hub.explain_missing_model(config.path, config.revision):
        base = _from_pretrained(
            config,
            labels=labels,
            staged=staged,
            dtype=torch.promote_types(dtype, torch.float32) if whole else dtype,
            attn_implementation=config.attn_implementation,
            **({"device_map": device} if straight else {}),
            **quantization_options(config, dtype, device),
        )
    model = base.module.to(device) if on_device and config.quantization is None else base.module
    model.config.pad_token_id = pad_id
    model.config.use_cache = False  # training needs no key-value cache; generation enables it itself
    model.requires_grad_(False)
    return BaseModel(module=model.eval(), new_modules=base.new_modules)


def load_for_merging(config: ModelConfig, *, labels: Sequence[str] | None) -> BaseModel:
    """The base model in float32, or in float64 if that is its dtype: an adapter is added before the one rounding.

    Raises: UserError as `meta_model`.
    """
    stored = base_config(config).dtype or torch.float32
    with hub.explain_missing_model(config.path, config.revision):
        return _from_pretrained(config, labels=labels, dtype=torch.promote_types(stored, torch.float32))


def count_classes(config: ModelConfig, folder: Path) -> int:
    """The number of classes of the head that is saved with an adapter, in peft's format.

    The head's last layer is found by comparing a model of 2 with one of 3 classes.
    """
    two, three = (
        {name: tuple(p.shape) for name, p in _from_config(config, labels=labels).named_parameters()}
        for labels in (["0", "1"], ["0", "1", "2"])
    )
    last = [name for name, shape in two.items() if three[name] != shape]
    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        names = weights.keys()
        found = [name for name in names for end in last if name.endswith(f".{end}")]
        assert found, "peft saves the head of a classification"
        return int(weights.get_slice(found[0]).get_shape()[0])


def meta_model(config: ModelConfig, *, labels: Sequence[str] | None) -> BaseModel:
    """The base model on the meta device: its modules and shapes without weights, of which only the names are read.

    Weights that are not on this machine, but may be downloaded, are taken as complete; quantized ones too, because
    reading them needs a GPU.
    Raises: UserError if the model is not on this machine and offline, if transformers cannot build it, or if its
    weights do not fit (`new_modules`, the number of classes).
    """
    with explain_unusable_model(config):
        quantized = getattr(base_config(config), "quantization_config", None) is not None
        if quantized or not _has_weights(config):
            return BaseModel(module=_from_config(config, labels=labels), new_modules=[])
        return _from_pretrained(config, labels=labels, device_map="meta", local_files_only=True)


@contextlib.contextmanager
def explain_unusable_model(config: ModelConfig) -> Iterator[None]:
    """A context in which transformers' refusal to build the model becomes a UserError with the key that it is about."""
    try:
        yield
    except (TrialError, MemoryError):
        raise
    except Exception as error:
        reason = first_line(error)
        if "Unrecognized configuration class" in reason:
            raise UserError(
                f"model.task: transformers has no {config.task} model of the type of {config.path}; choose another "
                "base model"
            ) from error
        key = "trust_remote_code" if "trust_remote_code" in str(error) else "path"
        raise UserError(f"model.{key}: {config.path} cannot be loaded: {reason}") from error


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    if isinstance(error, KeyError):
        return f"the key {error} is missing"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _has_weights(config: ModelConfig) -> bool:
    """Whether the weights are on this machine; True also where they must be, so that loading says what is missing."""
    folder = hub.model_folder(config.path)
    if Path(folder).exists() or constants.HF_HUB_OFFLINE:
        return True
    names = (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    )
    return any(
        isinstance(try_to_load_from_cache(folder, name, revision=config.revision), str) for name in names
    )


def _from_config(config: ModelConfig, *, labels: Sequence[str] | None) -> torch.nn.Module:
    loaded = base_config(config)
    for name, value in label_options(labels, config).items():
        setattr(loaded, name, value)
    with torch.device("meta"):
        return HEADS[config.task].from_config(loaded, trust_remote_code=config.trust_remote_code)


def _from_pretrained(
    config: ModelConfig, *, labels: Sequence[str] | None, staged: Path | None = None, **options: object
) -> BaseModel:
    model, info = HEADS[config.task].from_pretrained(
        hub.model_folder(config.path) if staged is None else str(staged),
        revision=config.revision if staged is None else None,
        trust_remote_code=config.trust_remote_code,
        ignore_mismatched_sizes=True,  # raises below, with the key of the study file
        output_loading_info=True,
        **label_options(labels, config),
        **options,
    )
    if staged is not None:  # the adapter's config names the base model
        model.name_or_path = model.config.name_or_path = hub.model_folder(config.path)
    for name, stored, needed in sorted(info["mismatched_keys"]):
        if labels is not None and stored[1:] == needed[1:]:
            raise UserError(
                f"model.num_labels: the classification head of {config.path} has {stored[0]} classes, and "
                f"{needed[0]} are needed ({', '.join(labels)}); choose a base model without a head"
            )
        raise UserError(
            f"model.path: the weights of {config.path} do not fit its config: {name} is {tuple(stored)} and "
            f"should be {tuple(needed)}; download the model again"
        )
    return BaseModel(module=model, new_modules=new_modules(model, info["missing_keys"], config))


def new_modules(model: torch.nn.Module, missing: Collection[str], config: ModelConfig) -> list[str]:
    """The modules that own the parameters named in `missing`, which the checkpoint does not hold.

    Raises: UserError if they are not only the head and the pooler of a classification model.
    """
    names = sorted(set(missing) & {name for name, _ in model.named_parameters(remove_duplicate=False)})
    body = _body_names(model)
    lost = [name for name in names if config.task == "causal_lm" or name.startswith(body)]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise UserError(
            f"model.path: {config.path} holds no weights for {lost[0]}{more}, which would be random numbers; "
            f"its architecture is {', '.join(model.config.architectures or ['unknown'])}, and model.task is "
            f"{config.task}; choose a base model with these weights"
        )
    heads = KNOWN_HEADS if config.task == "sequence_classification" else ()
    alike = {name for name, _ in model.named_modules() if heads and name.endswith(heads)}
    return sorted(
        {name.rpartition(".")[0] for name in names} | {n for n in alike if n.split(".")[-1] not in heads}
    )


def _body_names(model: torch.nn.Module) -> tuple[str, ...]:
    """Prefixes of the parameters of the embeddings and the repeated layers."""
    names = {id(module): name for name, module in model.named_modules()}
    lists = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    embeddings = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)]
    own = names.get(id(model.get_input_embeddings()))
    return tuple(f"{name}." for name in [*lists, *embeddings, *([own] if own else [])])


def base_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the base model: model.dtype; auto means bfloat16 on a GPU and float32 on a CPU."""
    name = config.dtype
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    return getattr(torch, name)


def embedding_rows(model: torch.nn.Module) -> int:
    """The rows of the input embedding: token ids are below this number."""
    return len(model.get_input_embeddings().weight)
