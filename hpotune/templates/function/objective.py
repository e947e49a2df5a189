"""The objective of function.yaml: replace it with your own. Each trial runs in its own process."""

import math


def loss(lr, layers, optimizer, width, momentum=0.0):
    """A quadratic with its minimum at lr = 3e-3 and four layers; sgd is slightly worse unless its momentum is high."""
    distance = math.log10(lr / 3e-3) ** 2 + (layers - 4) ** 2 / 16
    return {"loss": distance + (0.2 * (1 - momentum) if optimizer == "sgd" else 0.0), "width": width}
