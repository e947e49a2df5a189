"""The energy of a rank's GPU, by NVML's counter (`nvidia-ml-py`, an optional package). Not measured: None.

The counter is of the whole GPU, whoever uses it, in millijoules since the driver was loaded; Volta and newer have it.
Source: NVML, nvmlDeviceGetTotalEnergyConsumption.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType

import torch

J_PER_WH = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyMeter:
    """The counter of one GPU, and what it showed when the trial started."""

    nvml: ModuleType
    handle: object
    started_mj: int

    def used_wh(self) -> float | None:
        """Watt-hours since the start; None if the counter is not readable any more."""
        try:
            used_mj = int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) - self.started_mj
        except self.nvml.NVMLError:
            return None
        return used_mj / 1000 / J_PER_WH if used_mj >= 0 else None  # less: the driver was loaded again


def energy_meter(device: torch.device) -> EnergyMeter | None:
    """The counter of the rank's GPU; None without NVIDIA GPU, without the package, or on a GPU without a counter."""
    if device.type != "cuda":
        return None
    with suppress(ImportError):
        nvml = importlib.import_module("pynvml")
        with suppress(nvml.NVMLError):
            nvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            started = int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            return EnergyMeter(nvml=nvml, handle=handle, started_mj=started)
    return None
