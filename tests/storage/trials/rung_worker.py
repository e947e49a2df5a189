"""One of many racing workers on a study with rungs: `python -m tests.storage.trials.rung_worker URL STUDY SEED`.

It reaches rungs, fails, pauses, dies; each rung that it could tell it prints: `NUMBER RUNG`.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from hpotune.config.load import load_study
from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.storage import Claim, TrialQueue


def main(url: str, study_file: str, seed: int) -> None:
    """Trains trials to their rungs until none is left."""
    store = TrialQueue.open(url, load_study(Path(study_file)), patient=True)
    me = Worker(job="local", host="here", pid=os.getpid())
    rng = random.Random(seed)
    while isinstance(claim := store.claim(me), Claim):
        time.sleep(rng.random() * 0.02)
        fate, row = rng.random(), claim.row
        if fate < 0.03:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fate < 0.08:
            store.record_failure(claim.trial_id, Failure(cause="user", message="as planned"), owner=me)
        elif fate < 0.2:
            store.pause(claim.trial_id, owner=me)
        else:
            value = [row.params["params.x"] ** 2]
            result = TrialResult(number=row.number, state="finished", values=value, rung=row.rung)
            if store.record_rung(claim.trial_id, result, owner=me):
                print(f"{row.number} {row.rung}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
