"""What a job runs: claim, evaluate, tell, until nothing is left to start or the job's time is out."""

from hpotune.worker.loop import this_worker, work

__all__ = ["this_worker", "work"]
