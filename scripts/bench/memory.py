"""The memory estimate beside the measured peak of training steps, over batch sizes, lengths, ranks and precisions.

    python scripts/bench/memory.py [--shapes llama-tiny,smollm2-135m] [--dtypes float32,bfloat16] [--quick]

Each line is two optimizer steps of a model with random weights: on a GPU the peak of torch's allocator
(torch.cuda.max_memory_allocated), on a CPU that of the tensors that exist (training/live_memory.py).
The last lines are the smallest and the largest ratio of estimate to peak; targets: 1.0 and 1.15.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hpotune.finetune.model.hub import prepare_environment

prepare_environment(offline=True)

import torch  # noqa: E402
import transformers  # noqa: E402

from hpotune.config.memory.memory_estimate import (  # noqa: E402
    GIB,
    Machine,
    TrainingPass,
    adapter_shape,
    estimate_memory,
    state_bytes,
)
from hpotune.config.memory.model_shape import shape_of_config  # noqa: E402
from hpotune.finetune.distributed.ranks import Ranks  # noqa: E402
from hpotune.finetune.model.adapter import attach_adapter, lora_config  # noqa: E402
from hpotune.finetune.training.checkpoint import TrainingState  # noqa: E402
from hpotune.finetune.training.live_memory import PeakMemory, measured_peak  # noqa: E402
from hpotune.finetune.training.loss import IGNORED, Row  # noqa: E402
from hpotune.finetune.training.optimizer import build_optimizer, training_arguments  # noqa: E402
from hpotune.finetune.training.training_loop import accumulate_gradients, update_weights  # noqa: E402

WIDTHS = {"float32": 4, "bfloat16": 2}
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "llama-tiny": ("llama", {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
                             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048}),
    "qwen2-tiny": ("qwen2", {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
                             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048}),
    "qwen3-tiny": ("qwen3", {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "head_dim": 64,
                             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048}),
    "gemma3-tiny": ("gemma3_text", {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
                                    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64,
                                    "vocab_size": 2048}),
    "phi3-tiny": ("phi3", {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
                           "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048,
                           "pad_token_id": 0}),
    "smollm2-135m": ("llama", {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                               "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
                               "tie_word_embeddings": True}),
    "llama-3b": ("llama", {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                           "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 128256,
                           "tie_word_embeddings": True}),
    "llama-8b": ("llama", {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}),
}  # fmt: skip
"""Name -> transformers' model type and sizes; the weights are random."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What one line measures."""

    lora: dict[str, object]
    rows: int
    tokens: int
    counted: int
    """Of each row."""
    checkpointing: bool = False
    optim: str = "adamw_torch"

    def __str__(self) -> str:
        targets = self.lora.get("target_modules", "all-linear")
        named = targets if isinstance(targets, str) else "+".join(str(name) for name in targets)
        dropout = f" dropout {self.lora['lora_dropout']}" if "lora_dropout" in self.lora else ""
        return (
            f"r{self.lora['r']} {named}{dropout}, {self.rows} x {self.tokens} tokens, {self.counted} counted, "
            f"{self.optim}{', checkpointing' * self.checkpointing}"
        )


def cases(*, quick: bool) -> Iterator[Case]:
    """The settings of every shape and precision."""
    qv = {"r": 8, "target_modules": ["q_proj", "v_proj"]}
    for checkpointing in (False, True):
        yield Case(lora={"r": 8}, rows=4, tokens=96, counted=16, checkpointing=checkpointing)
        yield Case(lora={"r": 64}, rows=2, tokens=64, counted=32, checkpointing=checkpointing)
        if quick:
            continue
        yield Case(lora={"r": 8}, rows=1, tokens=256, counted=200, checkpointing=checkpointing)
        yield Case(lora={"r": 8}, rows=8, tokens=48, counted=4, checkpointing=checkpointing)
        yield Case(lora=qv, rows=4, tokens=96, counted=16, checkpointing=checkpointing)
        yield Case(
            lora={"r": 16, "lora_dropout": 0.1}, rows=4, tokens=96, counted=16, checkpointing=checkpointing
        )
        yield Case(lora={"r": 32}, rows=2, tokens=64, counted=8, optim="sgd", checkpointing=checkpointing)


def measure(
    kind: str, sizes: dict[str, int], case: Case, *, dtype: str, device: torch.device
) -> tuple[int, int]:
    """The estimate and the measured peak, in bytes."""
    config = transformers.AutoConfig.for_model(kind, **sizes)
    fused = kind == "phi3" and case.lora.get("target_modules")
    lora = case.lora | ({"target_modules": ["qkv_proj"]} if fused else {})
    shape = shape_of_config(config.to_diff_dict())
    training = TrainingPass(
        rows=case.rows, tokens=case.tokens, counted=case.rows * case.counted, checkpointing=case.checkpointing
    )
    state = state_bytes(case.optim, momentum=False)
    gpu = device.type == "cuda"
    adapter = adapter_shape(lora, shape)
    found = estimate_memory(
        shape, adapter, training, width=WIDTHS[dtype], state=state, machine=Machine(gpu=gpu)
    )
    torch.manual_seed(0)
    with torch.device(device):
        base = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    base.config.use_cache = False
    base.requires_grad_(False)
    ranks = Ranks(rank=0, world_size=1, device=device)
    model = attach_adapter(base, lora_config(lora, task="causal_lm"), seed=0, ranks=ranks).to(device)
    if case.checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    with TemporaryDirectory() as folder:
        args = training_arguments({"optim": case.optim, "max_steps": 9}, seed=0, folder=Path(folder))
    optimizer, scheduler = build_optimizer(args, model, momentum=None, steps=9)
    state_of = TrainingState(model=model, optimizer=optimizer, scheduler=scheduler)
    rows = [row_of(case, short=number == 0 and case.rows > 1) for number in range(case.rows)]
    before = [p.detach().cpu().clone() for p in model.parameters() if p.requires_grad]  # as a trial keeps it
    model.train()
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    peak = PeakMemory()
    with measured_peak([*model.parameters(), *model.buffers()], device, peak):
        for _ in range(2):
            sums = accumulate_gradients(
                model, rows, [list(range(len(rows)))], smoothing=0.0, pad_id=0, ranks=ranks
            )
            update_weights(state_of, torch.cat([sums, sums.new_zeros(2)]), max_norm=1.0, ranks=ranks)
    assert peak.bytes is not None
    return found.peak, peak.bytes + (0 if gpu else sum(p.nbytes for p in before))


def row_of(case: Case, *, short: bool) -> Row:
    """A row; a short one makes the others of its batch need a mask."""
    ids = [3 + index % 90 for index in range(case.tokens - short)]
    uncounted = len(ids) - case.counted
    return Row(ids=ids, targets=[IGNORED] * uncounted + ids[uncounted:])


def main() -> None:
    args = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ratios: list[float] = []
    for name in args.shapes.split(","):
        for dtype in args.dtypes.split(","):
            for case in cases(quick=args.quick):
                estimate, peak = measure(*SHAPES[name], case, dtype=dtype, device=device)
                ratios.append(estimate / peak)
                print(
                    f"{name} {dtype}: {case}: estimate {estimate / GIB:.4f} GiB, peak {peak / GIB:.4f} GiB, "
                    f"ratio {ratios[-1]:.3f}",
                    flush=True,
                )
                gc.collect()
    print(f"{len(ratios)} settings: ratio {min(ratios):.3f} to {max(ratios):.3f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes", default="llama-tiny,qwen2-tiny,qwen3-tiny,gemma3-tiny,phi3-tiny,smollm2-135m"
    )
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--quick", action="store_true", help="four settings of each instead of fourteen")
    return parser.parse_args()


if __name__ == "__main__":
    main()
