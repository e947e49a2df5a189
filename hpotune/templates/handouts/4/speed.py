"""One tiny evaluation: how many sequences a second a small language model writes, and how many of its words are words.

`python speed.py` trains the model (char_model.py) and saves it to model.npz. `python speed.py STUDY...` says how many
trials a second each study has got through.
"""

import re
import sys
import time
from pathlib import Path

import char_model
import numpy as np

import hpotune

HERE = Path(__file__).parent
CONTEXT, LENGTH, SEQUENCES = 5, 60, 128


def write(batch, temperature, top_k, precision):
    """Write 128 sequences of 60 characters, `batch` at a time. Twice; the first time warms up."""
    file = Path("model.npz")  # a trial runs in the folder of the study file, its code may be a copy elsewhere
    saved = np.load(file)
    weights = {name: saved[name].astype(precision) for name in "ewbuc"}
    alphabet, words = saved["alphabet"], set(saved["words"])
    rng = np.random.default_rng(0)
    for _ in range(2):
        since = time.perf_counter()
        texts = []
        while len(texts) < SEQUENCES:
            rows = min(batch, SEQUENCES - len(texts))
            texts += sequences(weights, alphabet, rows, temperature, top_k, rng)
        seconds = time.perf_counter() - since
    found = [word for text in texts for word in re.findall(r"(?<= )[a-z]+(?= )", text)]
    share = sum(word in words for word in found) / max(1, len(found))
    error = (share * (1 - share) / max(1, len(found))) ** 0.5
    return {"sequences_per_second": SEQUENCES / seconds, "words": share, "words_stderr": error}


def sequences(weights, alphabet, rows, temperature, top_k, rng):
    """Texts drawn character by character, all rows side by side."""
    ids = np.zeros((rows, CONTEXT + LENGTH), dtype=int)
    for at in range(CONTEXT, CONTEXT + LENGTH):
        _, _, log_p = char_model.forward(weights, ids[:, at - CONTEXT : at])
        scaled = log_p / temperature
        if top_k < len(alphabet):
            scaled[scaled < np.partition(scaled, -top_k, axis=1)[:, -top_k, None]] = -np.inf
        noise = rng.gumbel(size=scaled.shape)  # the largest of score + Gumbel noise is a draw
        ids[:, at] = (scaled + noise).argmax(axis=1)
    return ["".join(alphabet[row]) for row in ids[:, CONTEXT:]]


def save_model():
    """Train the model and keep it, with the words of its text."""
    ids, alphabet = char_model.text()
    weights = char_model.fit(ids, alphabet, learning_rate=0.2, hidden=128, context=CONTEXT, steps=6000)
    text = "".join(np.array(alphabet)[ids])
    words = sorted(set(re.findall(r"\b[a-z]+\b", text)))
    np.savez("model.npz", alphabet=np.array(alphabet), words=np.array(words), **weights)
    bits, _ = char_model.held_out_bits(weights, ids, CONTEXT)
    print(f"wrote model.npz: {bits:.2f} bits per character")


def report(names):
    """Trials a second, and the share of the workers' time that was evaluation."""
    for name in names:
        ended = [one for one in hpotune.Study.load(name).trials if one.start and one.end]
        wall = max(one.end for one in ended) - min(one.start for one in ended)
        print(f"{name:8} {len(ended):5} trials in {wall:6.1f} s: {len(ended) / wall:5.2f} a second")


if __name__ == "__main__":
    report(sys.argv[1:]) if sys.argv[1:] else save_model()
