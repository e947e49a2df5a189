"""The top keys of each verb's `--json`, on a study that runs; nested keys: tests/reporting/test_json_output.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STUDY = """\
name: bowl
python: own.py:bowl
params: {x: {float: [0, 1]}}
score: {objective: {metric: value, direction: minimize}}
budget: {trials: 2, parallel: 1}
"""
BEST = (
    "study folder objectives finished stopped budget rule ranked_by excluded_by_rule candidates best front pareto "
    "tuned_model baseline expected gain corrected_gain gain_test tied recommended left_out unmeasured "
    "repeats adapter"
)
STATUS = (
    "study folder state reason trials running_trials failures interrupted rule best gpu_hours outlook forecast "
    "bad_nodes jobs queue_age_s rehearsal cancelled_by held repeats_wanted repeats opening"
)
KEYS = [
    (["check"], "ok mistakes warnings parameters starts preset rehearsal"),
    (["fetch"], "downloaded warnings lock"),
    (["bundle", "-o", "own.tar"], "bundle manifest"),
    (["run"], BEST),
    (["best"], BEST),
    (["status"], STATUS),
    (["wait"], STATUS),
    (
        ["plan"],
        "study trials figures notes processes threads memory race jobs array_limit sbatch no_slurm modes recommended "
        "repeats planned actual",
    ),
    (
        ["why", "0"],
        "study folder trial kind state cause message params attempts running policy advice log rank lines",
    ),
    (["resume"], "over next"),
    (["retry"], "retried running next"),
    (["extend", "--trials", "+1"], "changed running next"),
    (["cancel"], "cancelled"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    (folder / "own.py").write_text("def bowl(x):\n    return x\n")
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def document(verb: str, study: Path, *words: str) -> Any:
    command = [sys.executable, "-m", "hpotune", verb, str(study), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=study.parent)
    return json.loads(done.stdout)


def test_each_verb_keeps_its_keys(study: Path) -> None:
    """In this order: each verb finds what the ones before it made."""
    found = {verb: " ".join(document(verb, study, *words)) for (verb, *words), _ in KEYS}
    assert found == {verb: keys for (verb, *_), keys in KEYS}


def test_wrong_file_gives_a_document(study: Path) -> None:
    wrong = study.with_name("wrong.yaml")
    wrong.write_text(STUDY.replace("trials: 2", "trials: 0"))
    command = [sys.executable, "-m", "hpotune", "check", str(wrong), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert (" ".join(found), found["ok"], len(found["mistakes"])) == ("ok mistakes warnings", False, 1)
