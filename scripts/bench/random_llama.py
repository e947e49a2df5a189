"""Llama models with random weights, made on the spot: for speeds, where no network gives real ones. Their scores mean
nothing.
"""

from __future__ import annotations

from pathlib import Path

from hpotune.finetune.model.hub import model_folder

SIZES = {
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "intermediate_size": 8192,
    },
    "3b": {
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "intermediate_size": 8192,
    },
    "stand-in": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "intermediate_size": 128,
    },
}
"""The shapes of Llama 3.2; the stand-in is for tests on a CPU."""
SHARED = {
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
SEED = 0


def make_llama(folder: Path, size: str, *, tokenizer: str) -> str:
    """The path of a new model in `folder`, in bfloat16, with the tokenizer of another model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokens = AutoTokenizer.from_pretrained(model_folder(tokenizer))
    torch.manual_seed(SEED)
    config = LlamaConfig(
        **SIZES[size], **SHARED, bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    made = folder / f"llama-{size}"
    model.save_pretrained(made)
    tokens.save_pretrained(made)
    return str(made)
