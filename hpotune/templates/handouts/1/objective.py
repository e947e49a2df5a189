"""A function that behaves like a training run: best near learning_rate 0.003, useless far from it, with noise."""

import math
import random


def train(learning_rate, layers, seed=0):
    """The loss of one trial, with its standard error over 20 repeated measurements."""
    rng = random.Random(f"{learning_rate} {layers} {seed}")
    distance = math.log10(learning_rate) - math.log10(0.003)
    expected = 0.2 + 0.15 * distance**2 + 0.01 * (layers - 4) ** 2
    measured = [rng.gauss(expected, 0.05) for _ in range(20)]
    loss = sum(measured) / len(measured)
    variance = sum((one - loss) ** 2 for one in measured) / (len(measured) - 1)
    return {"loss": loss, "loss_stderr": math.sqrt(variance / len(measured))}
