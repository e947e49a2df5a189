"""The objective of the old studies: gradient descent on a small quadratic, which keeps its state in a checkpoint.

As a function (`python: descent.py:descent`) and as a command (`python3 descent.py --rate R --budget B`); standard
library only. It diverges, and says so, where the rate is above 1.9. DESCENT_PAUSE_S slows each step down.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

STEPS = 27
CURVATURE = (1.0, 0.3, 0.05)


def descent(rate: float, budget: float = 1.0, momentum: float = 0.0, optimizer: str = "plain") -> dict[str, float]:
    """Goes on from the checkpoint to `budget`, steps or a share of them; the loss there, and where this call began."""
    until = round(budget if budget > 1 else budget * STEPS)
    folder = Path(os.environ["HPOTUNE_TRIAL_DIR"], "checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "state.json"
    state = {"step": 0, "at": [4.0, 3.0, 2.0], "speed": [0.0, 0.0, 0.0], "began": []}
    if file.is_file():
        state = json.loads(file.read_text())
    began = state["step"]
    state["began"].append(began)
    print(f"begins at step {began}", flush=True)
    if rate > 1.9:
        raise ValueError(f"diverged: rate {rate:.3g} is above 1.9")
    while state["step"] < until:
        slopes = [bend * at for bend, at in zip(CURVATURE, state["at"], strict=True)]
        state["speed"] = [momentum * v - rate * g for v, g in zip(state["speed"], slopes, strict=True)]
        state["at"] = [at + v for at, v in zip(state["at"], state["speed"], strict=True)]
        state["step"] += 1
        file.with_suffix(".new").write_text(json.dumps(state))
        file.with_suffix(".new").replace(file)
        time.sleep(float(os.environ.get("DESCENT_PAUSE_S", "0")))
    loss = sum(bend * at**2 for bend, at in zip(CURVATURE, state["at"], strict=True))
    return {"loss": loss, "began": began, "calls": len(state["began"]), "steps": state["step"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--budget", type=float, default=1.0)
    chosen = parser.parse_args()
    print(json.dumps(descent(chosen.rate, chosen.budget)))
