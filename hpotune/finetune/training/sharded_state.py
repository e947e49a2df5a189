"""Large tensors of a checkpoint in safetensors files: rank 0 writes them, each rank reads what it holds of them.

Full fine-tuning has 12 bytes a weight (float32: the weight and Adam's two states). A tensor at a time is gathered from
the ranks, and rank 0 keeps at most FILE_BYTES of them before it writes a file; so neither a GPU nor the host holds the
whole state. The files are of no use until the small file that names them is written (checkpoint.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from hpotune.finetune.distributed.fsdp import whole_tensor
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.workspace.atomic_files import set_usual_mode

FILE_BYTES = 4 * 2**30
"""Size of a file at which the next one starts."""
ENDING = ".safetensors"


def write_tensors(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], ranks: Ranks) -> dict[str, str]:
    """Write named tensors, of which each rank has its part, and return the file of each name (on rank 0). A collective.

    The names of the files are new ones: those of an earlier checkpoint stay.
    """
    token, found, held = secrets.token_hex(4), dict[str, str](), dict[str, torch.Tensor]()

    def flush() -> None:
        if not held:
            return
        file = folder / f"tensors-{token}-{len(set(found.values()))}{ENDING}"
        save_file(held, str(file))
        set_usual_mode(file)  # safetensors writes 0600
        found.update(dict.fromkeys(held, file.name))
        held.clear()

    for name, tensor in tensors:
        whole = whole_tensor(tensor.detach())
        if not ranks.is_main:
            continue
        held[name] = whole.to("cpu", copy=True).contiguous()
        if sum(one.numel() * one.element_size() for one in held.values()) >= FILE_BYTES:
            flush()
    flush()
    return found


def delete_other_files(folder: Path, files: Mapping[str, str]) -> None:
    """Delete the files of earlier checkpoints."""
    for file in folder.glob(f"*{ENDING}"):
        if file.name not in files.values():
            file.unlink(missing_ok=True)


def part_reader(
    folder: Path, files: Mapping[str, str], ranks: Ranks
) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """A function (name, like) that reads a tensor, sharded as the tensor `like` is; only this rank's part is read."""
    opened: dict[str, Any] = {
        name: safe_open(str(folder / name), "pt") for name in sorted(set(files.values()))
    }

    def read(name: str, like: torch.Tensor) -> torch.Tensor:
        source = opened[files[name]]
        if not isinstance(like, DTensor):
            return source.get_tensor(name)
        rows = like.shape[0]
        each = -(-rows // ranks.world_size)  # fully_shard divides the first dimension as torch.chunk does
        start = min(ranks.rank * each, rows)
        part = source.get_slice(name)[start : min(start + each, rows)]
        if part.shape != like.to_local().shape:
            raise AssertionError(
                f"{name}: this rank holds {tuple(like.to_local().shape)}, not {tuple(part.shape)}"
            )
        return DTensor.from_local(
            part.to(like.device), like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        )

    return read
