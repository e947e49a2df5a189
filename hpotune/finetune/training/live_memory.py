"""The peak memory of tensors: on a GPU from torch's allocator, on a CPU by following the tensors that exist.

The resident size of a process is no measure of a step: it includes the libraries, and memory that was freed may still
count in it. So on a CPU every result of an operation is followed until its storage is freed. Memory inside of
an operation is not seen; on a GPU it is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils import _python_dispatch
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveTensors(_python_dispatch.TorchDispatchMode):  # type: ignore[misc]
    """A context that follows the storages of tensors; `peak` is the most bytes that existed at a time."""

    def __init__(self, existing: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.now = self.peak = 0
        for tensor in existing:
            self._add(tensor)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """The operation's result, which is followed from now on."""
        result = func(*args, **(kwargs or {}))
        for found in tree_leaves(result):
            if isinstance(found, torch.Tensor):
                self._add(found)
        return result


@dataclass(kw_only=True, slots=True)
class PeakMemory:
    """The peak of the steps of a training that were measured, in bytes; None: none was."""

    bytes: int | None = None


@contextmanager
def measured_peak(
    existing: Iterable[torch.Tensor], device: torch.device, found: PeakMemory
) -> Iterator[None]:
    """A context whose peak memory is added to `found`. On a GPU it is that of the process since its counter's reset.

    `existing`: the tensors that exist already; read on a CPU only.
    """
    if device.type == "cuda":
        yield
        peak = int(torch.cuda.max_memory_allocated(device))
    else:
        with LiveTensors(existing) as live:
            yield
        peak = live.peak
    found.bytes = max(peak, found.bytes or 0)
