"""Merging of an adapter into its base model, also where weights are shared.

peft adds the adapter to the weight that each layer holds. A weight that belongs to two modules (an embedding and the
tied head, the copies of a layer made by layer_replication) would change in both, although the adapter is on one of
them; so every module gets a weight of its own first, and the config says that they are not tied.
"""

from __future__ import annotations

from collections import defaultdict

import peft
import torch


def merge(model: peft.PeftModel) -> torch.nn.Module:
    """The base model with the adapter merged in and with a config that describes it; `model` is changed.

    Raises: the errors of peft for an adapter that cannot be merged.
    """
    base = model.get_base_model()
    tied = bool(getattr(base.config.get_text_config(), "tie_word_embeddings", False))
    untie_changed(model)
    merged = model.merge_and_unload()
    _describe_tying(merged, tied=tied)
    return merged


def _describe_tying(model: torch.nn.Module, *, tied: bool) -> None:
    """Tie embedding and head again if they were tied and are still equal, else set the config to untied."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or embedding.weight is head.weight:
        return
    equal = tied and not embedding.weight.is_meta and torch.equal(embedding.weight, head.weight)
    if equal:
        head.weight = embedding.weight
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = equal


def untie_changed(model: peft.PeftModel) -> None:
    """Give every module a weight of its own, unless it is an embedding tied to a head and no adapter is on either."""
    owners: dict[int, list[tuple[torch.nn.Module, str]]] = defaultdict(list)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners[id(parameter)].append((module, name))
    adapted = {
        id(parameter)
        for module in model.modules()
        if hasattr(module, "base_layer")
        for parameter in module.base_layer.parameters()
    }
    embeddings = {id(one) for one in _plain_embeddings(model)}
    for parameter_id, modules in owners.items():
        tied = all(id(module) in embeddings for module, _ in modules) and parameter_id not in adapted
        for module, name in [] if tied else modules[1:]:
            parameter = module.get_parameter(name)
            module.register_parameter(
                name, torch.nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            )


def _plain_embeddings(model: peft.PeftModel) -> list[torch.nn.Module]:
    base = model.get_base_model()
    return [one for one in (base.get_input_embeddings(), base.get_output_embeddings()) if one is not None]
