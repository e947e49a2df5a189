"""What a job runs: one worker that claims, evaluates and records trials until none is left or the job's time is out."""

from hpotune.worker.loop import WorkerLoop, WorkerResult, this_worker
from hpotune.worker.objective.process import end_with_stdin

__all__ = ["WorkerLoop", "WorkerResult", "end_with_stdin", "this_worker"]
