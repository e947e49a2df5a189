"""Whether a worker keeps what its trials start from for the next ones, by what the study file says.

The worker, `hpotune plan` and the report ask the same function. Of a function it is an interpreter that is forked once
a trial and has nothing of an earlier one in it (worker/objective/fork_server.py). Of fine-tuning it is the processes of
a trial: where this says yes, they still decide before and after each trial (hpotune/finetune/warm/). The next trial
gets a new process if it has another base model or code, if a file has changed that was read, if a task has code of its
own, and after a trial that did not finish or that left anything behind. Several ranks agree: what one of them finds
ends all. Where the first one runs on another node than the worker, it is not reached: then too each trial starts anew.
"""

from __future__ import annotations

from hpotune.config.schema.study_config import StudyConfig

WARM = "a worker keeps the processes of a trial, with the base model in memory, for its next trials"


def why_cold(config: StudyConfig) -> str | None:
    """Why each trial starts anew; None: a worker keeps what it starts from, the trial's processes or an interpreter."""
    if config.command is not None:
        return "the trials run a command"
    reasons = {
        "execution.warm is false": not config.execution.warm,
        "execution.trials_per_job is 1": config.execution.trials_per_job == 1,
        "they run in a container": config.env.container is not None,
        "the model has code of its own": config.model is not None and config.model.trust_remote_code,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def process_note(config: StudyConfig) -> str:
    """How the processes of the trials are started, for people.

    Empty for a function or a command: each call has a process of its own.

    `config` holds the first value of each range, so a choice of models is judged by the first one.
    """
    if config.model is None:
        return ""
    reason = why_cold(config)
    return WARM if reason is None else f"each trial has a new process: {reason}"
