"""The program of hydra.yaml: replace it with your own. It needs hydra-core.

The configuration is a dataclass here. A folder of YAML files (config_path) is not copied with the program: name it by
an absolute path, or relative to the folder of the study file.
"""

import math
from dataclasses import dataclass, field

import hydra
from hydra.core.config_store import ConfigStore

import hpotune


@dataclass
class Model:
    layers: int = 2


@dataclass
class Config:
    lr: float = 1e-3
    model: Model = field(default_factory=Model)


ConfigStore.instance().store(name="config", node=Config)


@hydra.main(version_base=None, config_name="config")
def main(config):
    """Report the accuracy of one configuration."""
    accuracy = math.exp(-(math.log10(config.lr / 3e-3) ** 2) - (config.model.layers - 4) ** 2 / 16)
    hpotune.report({"accuracy": accuracy})


main()
