"""A trial that only sleeps: 1.5 s stand for imports and loading the model, `seconds` for the training."""

import time


def nap(seconds):
    time.sleep(1.5 + seconds)
    return {"loss": (seconds - 2) ** 2}
