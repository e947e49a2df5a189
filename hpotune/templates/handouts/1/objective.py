"""A function that stands for a training run: best near learning_rate 0.003 and four layers, with noise."""

import math
import random


def train(learning_rate, layers):
    """The loss of one trial, with its standard error over 20 repeated measurements."""
    rng = random.Random(f"{learning_rate} {layers}")
    distance = math.log10(learning_rate / 0.003)  # in factors of ten
    expected = 0.2 + 0.15 * distance**2 + 0.002 * (layers - 4) ** 2
    measured = [rng.gauss(expected, 0.02) for _ in range(20)]
    loss = sum(measured) / len(measured)
    variance = sum((one - loss) ** 2 for one in measured) / (len(measured) - 1)
    return {"loss": loss, "loss_stderr": math.sqrt(variance / len(measured))}
