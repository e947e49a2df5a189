"""A pool of 27 trials of a tiny model, for whoever wants to know whether rungs find the best of them.

`python -m tests.pool climb FOLDER`: a worker on the study, as `hpotune worker` is one, but that each turn of a trial
is trained in this process: importing torch for each of fifty turns would take minutes.
`python -m tests.pool whole FOLDER`: every trial from its first step to its last, in one go; prints values as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpotune.launch.prepare import prepare
from hpotune.objective.interface import Evaluate, TrialContext, read_result, write_spec
from hpotune.objective.process import ProcessExit, StopRequest
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.storage import TrialQueue
from hpotune.worker import loop, this_worker
from hpotune.worker.trial_spec import base_spec, spec_at_point
from hpotune.workspace.folder import StudyFolder
from tests.tiny import tiny_model, topic_task

TRIALS, STEPS = 27, 36
STUDY = rf"""
name: pool
model: {{path: model}}
data: {{path: task/train.jsonl, prompt: "{{input}} Topic: ", response: "{{output}}", validation: 32}}
lora: {{r: {{choice: [4, 8, 16]}}, lora_alpha: {{expr: "2 * lora.r"}}}}
train:
  learning_rate: {{float: [1.0e-5, 1.0e-2], log: true}}
  weight_decay: {{float: [0.0, 0.1]}}
  global_batch_size: 8
  max_steps: {STEPS}
  save_steps: 2
  logging_steps: 1
score: {{objective: {{metric: eval_loss}}}}
search: {{algorithm: asha}}
budget: {{trials: {TRIALS}}}
checks: {{baseline: false}}
"""


def made(home: Path, *, study: str = STUDY) -> StudyFolder:
    """The study's folder below `home`, ready for workers."""
    home.mkdir(parents=True, exist_ok=True)
    tiny_model(home / "model", layers=2)
    topic_task(home / "task")
    (home / "study.yaml").write_text(study)
    return prepare(home / "study.yaml", chosen=None, data_root=None).folder


@contextmanager
def in_this_process(context: TrialContext) -> Iterator[Evaluate]:
    """The built-in objective without a process of its own for each trial."""
    yield lambda specs: [trained(spec, context) for spec in specs]


def trained(spec: TrialSpec, context: TrialContext) -> TrialResult:
    """What `python -m hpotune.finetune` does."""
    from hpotune.finetune.__main__ import main

    code = main(write_spec(spec))
    return read_result(spec, ProcessExit(code=code), stop=context.stop)


def climb(folder: StudyFolder) -> None:
    """Works until the study is over."""
    loop.open_objective = in_this_process
    loop.WorkerLoop.open(folder, worker=this_worker({}, host=socket.gethostname()), env=os.environ).run()


def whole(folder: StudyFolder) -> dict[int, float]:
    """The last value of every trial of a study that has been run, each trained again in a folder of its own."""

    study = folder.load()
    context = TrialContext(config=study.config, env=os.environ, stop=StopRequest())
    found = {}
    for row in TrialQueue.open(folder.provenance().store, study).rows():
        spec = spec_at_point(base_spec(row, study, folder, home=str(folder.path.parent)), row, study)
        own = folder.path / "whole" / str(row.number)
        own.mkdir(parents=True)
        found[row.number] = trained(
            spec.model_copy(update={"folder": str(own), "rung": None, "parent": None}), context
        ).values[0]
    return found


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    study_folder = StudyFolder(path=Path(sys.argv[2]))
    if sys.argv[1] == "climb":
        climb(study_folder)
    else:
        print(json.dumps(whole(study_folder)))
