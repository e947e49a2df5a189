"""What a trial may leave in its process beside objects of its own: it is put back, or the process must end."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Mapping
from contextlib import suppress
from ctypes import CDLL
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as module_hooks

GLOBAL_HOOKS = sorted(
    name for name in vars(module_hooks) if name.startswith("_global_") and name.endswith("hooks")
)


class ProcessState:
    """The state of this process before its first trial, whose environment was `first_env`."""

    def __init__(self, first_env: Mapping[str, str]) -> None:
        self._env = {name: value for name, value in os.environ.items() if first_env.get(name) != value}
        self._folder, self._path = os.getcwd(), list(sys.path)
        self._random = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._settings = settings()
        self._classes: dict[type, dict[str, int]] = {}

    def watch(self, model: torch.nn.Module) -> None:
        """Watch the classes of a model's modules: a method that a trial replaces there would stay."""
        for one in {kind for part in model.modules() for kind in type(part).__mro__ if kind is not object}:
            self._classes.setdefault(one, _members(one))

    def restore(self, env: Mapping[str, str]) -> None:
        """Set environment, folder, module path and random states as before the first trial."""
        wanted = {**env, **self._env}
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)
        os.chdir(self._folder)
        sys.path[:] = self._path
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        torch.set_rng_state(self._random[2])
        _reset_memory()

    def difference(self) -> str | None:
        """What a trial changed that is not put back; None: nothing."""
        now = settings()
        changed = [name for name, value in self._settings.items() if now[name] != value]
        if changed:
            return f"it left {changed[0]} changed"
        patched = [kind.__name__ for kind, members in self._classes.items() if _members(kind) != members]
        return f"it left the class {patched[0]} changed" if patched else None


def settings() -> dict[str, Any]:
    """The settings of torch that hold for the whole process."""
    found = {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's anomaly mode": torch.is_anomaly_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "cudnn's settings": (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark),
        "the process group": torch.distributed.is_available() and torch.distributed.is_initialized(),
        "the garbage collector": gc.isenabled(),
    }
    return found | {f"torch's {name}": [*getattr(module_hooks, name)] for name in GLOBAL_HOOKS}


def _members(kind: type) -> dict[str, int]:
    # values that Python itself adds or counts are left out
    return {
        name: id(value)
        for name, value in vars(kind).items()
        if not name.startswith("_abc_") and callable(value)
    }


def _reset_memory() -> None:
    """Give free memory back, and begin the peak of the memory anew: a trial's peak is its own."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError, AttributeError):
        CDLL(None).malloc_trim(0)  # glibc
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
