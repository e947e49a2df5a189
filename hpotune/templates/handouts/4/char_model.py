"""A small language model in numpy: it predicts a character from those before it (Bengio et al. 2003).

The text is Python's own help, which every Python has: about 460,000 characters.
"""

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

import hpotune

EMBEDDING, BATCH, HELD_OUT = 12, 64, 20_000


def text():
    """The characters as numbers, and the alphabet."""
    whole = "".join(topics[name] for name in sorted(topics))
    alphabet = sorted(set(whole))
    number = {character: n for n, character in enumerate(alphabet)}
    return np.array([number[character] for character in whole]), alphabet


def new_weights(hidden, context, characters, rng):
    sizes = {"e": (characters, EMBEDDING), "w": (context * EMBEDDING, hidden), "b": (hidden,),
             "u": (hidden, characters), "c": (characters,)}  # fmt: skip
    return {name: rng.normal(size=size) * 0.5 / np.sqrt(size[0]) for name, size in sizes.items()}


def forward(weights, inputs):
    """Inputs (rows, context) -> embedded inputs, hidden layer, log-probabilities of the next character."""
    x = weights["e"][inputs].reshape(len(inputs), -1)
    h = np.tanh(x @ weights["w"] + weights["b"])
    z = h @ weights["u"] + weights["c"]
    z -= z.max(axis=1, keepdims=True)
    return x, h, z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def gradients(weights, inputs, targets):
    x, h, log_p = forward(weights, inputs)
    dz = np.exp(log_p)
    dz[np.arange(len(targets)), targets] -= 1
    dz /= len(targets)
    dh = (dz @ weights["u"].T) * (1 - h**2)
    de = np.zeros_like(weights["e"])
    np.add.at(de, inputs, (dh @ weights["w"].T).reshape(*inputs.shape, EMBEDDING))
    return {"e": de, "w": x.T @ dh, "b": dh.sum(axis=0), "u": h.T @ dz, "c": dz.sum(axis=0)}


def held_out_bits(weights, ids, context):
    """Bits per character of text that was not trained on, and the standard error (over blocks of 250 characters)."""
    last = ids[-HELD_OUT:]
    at = np.arange(context, len(last))
    _, _, log_p = forward(weights, last[at[:, None] + np.arange(-context, 0)])
    bits = -log_p[np.arange(len(at)), last[at]] / np.log(2)
    blocks = bits[: len(bits) // 250 * 250].reshape(-1, 250).mean(axis=1)
    return float(bits.mean()), float(blocks.std(ddof=1) / np.sqrt(len(blocks)))


def fit(ids, alphabet, *, learning_rate, hidden, context, momentum=0.9, steps, state=None, each_fifth=None):
    """The weights after stochastic gradient descent with momentum; the learning rate falls to zero.

    `state`: a file to continue from. `each_fifth(weights, speed, step)` is called at each fifth; True ends it.
    """
    weights = new_weights(hidden, context, len(alphabet), np.random.default_rng(0))
    speed, first = {name: np.zeros_like(value) for name, value in weights.items()}, 0
    if state is not None:
        saved = np.load(state)
        weights, speed = ({name: saved[kind + name] for name in weights} for kind in ("weights_", "speed_"))
        first = int(saved["step"])
    for step in range(first, steps):
        at = np.random.default_rng(step).integers(context, len(ids) - HELD_OUT, size=BATCH)
        found = gradients(weights, ids[at[:, None] + np.arange(-context, 0)], ids[at])
        for name, gradient in found.items():
            speed[name] = momentum * speed[name] - learning_rate * (1 - step / steps) * gradient
            weights[name] = weights[name] + speed[name]
        fifth = (step + 1) % (steps // 5) == 0
        if fifth and each_fifth is not None and each_fifth(weights, speed, step + 1):
            break
    return weights


def train(learning_rate, hidden=64, context=5, momentum=0.9, steps=1500):
    """Bits per character after the training: the function that hpotune calls.

    It continues from its last checkpoint, reports its score at every fifth of the run, and ends where a pruner says so.
    """
    ids, alphabet = text()
    score = {}

    def each_fifth(weights, speed, step):
        score["bits"], score["bits_stderr"] = held_out_bits(weights, ids, context)
        hpotune.report(score, step=step, steps=steps)
        save(weights, speed, step)
        return hpotune.should_stop()

    last = hpotune.last_checkpoint()
    fit(ids, alphabet, learning_rate=learning_rate, hidden=hidden, context=context, momentum=momentum, steps=steps,
        state=last and Path(last, "state.npz"), each_fifth=each_fifth)  # fmt: skip
    return score


def save(weights, speed, step):
    folder = hpotune.checkpoint_dir()
    if folder is not None:
        to = Path(folder, f"step-{step}")
        to.mkdir(parents=True, exist_ok=True)
        both = {f"weights_{name}": value for name, value in weights.items()}
        both |= {f"speed_{name}": value for name, value in speed.items()}
        np.savez(to / "state.npz", step=step, **both)
