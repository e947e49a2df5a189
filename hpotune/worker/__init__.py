"""What a job runs: one worker that claims, evaluates and records trials until none is left or the job's time is out.

Nothing is imported here: the process of a trial imports `worker.objective`, and does without the store.
"""
