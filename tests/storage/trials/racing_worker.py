"""One of many racing workers: `python -m tests.storage.trials.racing_worker URL STUDY SEED` finishes, fails, pauses.

It prints `NUMBER STATE` for each trial that it ended.
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
from hpotune.storage import TrialQueue


def main(url: str, study_file: str, seed: int) -> None:
    """Takes trials until none is left."""
    store = TrialQueue.open(url, load_study(Path(study_file)), patient=True)
    me = Worker(job="local", host="here", pid=os.getpid())
    rng = random.Random(seed)
    while claim := store.claim(me):
        time.sleep(rng.random() * 0.02)
        fate = rng.random()
        if fate < 0.05:
            os.kill(os.getpid(), signal.SIGKILL)
        elif fate < 0.15:
            store.record_failure(claim.trial_id, Failure(cause="user", message="as planned"), owner=me)
        elif fate < 0.3:
            store.pause(claim.trial_id, owner=me)
        else:
            store.complete(
                claim.trial_id, TrialResult(number=claim.row.number, state="finished", values=[1.0])
            )
            print(claim.row.number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
