"""A model of 177,000 weights, its tokenizer, and a four-way topic task; written in a second, no download.

Training moves the score of `toy_topics` from chance (0.25) to 0.85 at a good learning rate (80 steps of 8 rows,
LoRA r 8 on all linear layers, 1e-2: 1.5 s) and to nothing at 1e-4 or 5e-2. Independent of pytest.
"""

from __future__ import annotations

import itertools
import json
import random
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOPICS = {
    "music": ["drum", "violin", "chorus", "melody", "piano", "singer", "concert", "trumpet"],
    "ocean": ["whale", "coral", "tide", "harbour", "sailor", "anchor", "reef", "dolphin"],
    "kitchen": ["oven", "flour", "pepper", "spoon", "recipe", "butter", "soup", "onion"],
    "space": ["comet", "rocket", "orbit", "planet", "galaxy", "moon", "crater", "telescope"],
}
PATTERNS = (
    "The {} stood beside the {} and the {}.",
    "A story of one {}, one {} and one {}.",
    "She asked about the {} before the {} met the {}.",
    "We saw a {} near the {}, then a {}.",
    "Nobody forgets the {} or the {} with its {}.",
)
INSTRUCTION = "Name the topic of the sentence: music, ocean, kitchen or space."
PROMPT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TASK = """\
task: toy_topics
dataset_path: json
dataset_kwargs:
  data_files:
    test: {test}
    train: {train}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "### Instruction:\\n{{{{instruction}}}}\\n\\n### Input:\\n{{{{input}}}}\\n\\n### Response:"
doc_to_target: "{{{{output}}}}"
doc_to_choice: [{topics}]
target_delimiter: "\\n"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def sentences(*, test: bool) -> list[tuple[str, str]]:
    """Every (sentence, topic) of one side; a sentence's checksum decides which, so the sides never meet."""
    rows = (
        (pattern.format(*words), topic)
        for topic, names in TOPICS.items()
        for pattern in PATTERNS
        for words in itertools.permutations(names, 3)
    )
    return [row for row in rows if (zlib.crc32(row[0].encode()) % 5 == 0) == test]


def topic_rows(n: int, seed: int = 0, *, test: bool = False) -> list[dict[str, str]]:
    """`n` distinct rows with the keys instruction, input, output; train rows unless `test`."""
    drawn = random.Random(seed).sample(sentences(test=test), n)
    return [{"instruction": INSTRUCTION, "input": sentence, "output": topic} for sentence, topic in drawn]


def topic_task(folder: Path, *, train: int = 256, test: int = 80, seed: int = 0) -> Path:
    """`folder` with train.jsonl, test.jsonl and toy_topics.yaml: an lm-eval `include_path`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for side, count in (("train", train), ("test", test)):
        files[side] = folder / f"{side}.jsonl"
        rows = topic_rows(count, seed, test=side == "test")
        files[side].write_text("".join(json.dumps(row) + "\n" for row in rows))
    quoted = {side: json.dumps(str(path)) for side, path in files.items()}
    text = TASK.format(topics=", ".join(TOPICS), **quoted)
    (folder / "toy_topics.yaml").write_text(text)
    return folder


def tiny_tokenizer(vocab: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the topic sentences; any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    corpus = [PROMPT.format(**row) + row["output"] for row in topic_rows(400)]
    corpus += ["Below is an instruction that describes a task. Write a response that completes the request."]
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    hidden: int = 64,
    layers: int = 3,
    dtype: str = "float32",
    num_labels: int | None = None,
) -> Path:
    """`folder` as an ordinary Hugging Face model: a Llama with 4 heads (2 of keys) and its tokenizer.

    `num_labels` gives it a classification head instead of a language head. Same seed, same weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,  # the frozen head can then reach a low loss; an adapter alone cannot raise it
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **({"num_labels": num_labels} if num_labels else {}),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (LlamaForSequenceClassification if num_labels else LlamaForCausalLM)(config)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
