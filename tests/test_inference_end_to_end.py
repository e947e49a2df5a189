"""A study that trains nothing, from `check` to `export`: a tiny model answers with searched settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpotune.config.load import load_study
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.answering_tasks import answering_task
from tests.fixtures.tiny_model import tiny_model

STUDY = """\
name: answers
model: {path: model}
score:
  objective:
    - {task: toy_generate, metric: "exact_match,topic", num_fewshot: {choice: [0, 2]}}
    - {metric: sequences_per_second, direction: maximize}
  include_path: task
  generation:
    do_sample: {choice: [true, false]}
    temperature: {float: [0.3, 1.5], when: {score.generation.do_sample: true}}
    num_beams: {choice: [1, 2], when: {score.generation.do_sample: false}}
    max_gen_toks: 16
search: {algorithm: random, seed: 1}
budget: {trials: 4}
best: {maximize: "toy_generate/exact_match,topic", subject_to: sequences_per_second > 0}
"""


def hpotune(*words: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hpotune", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("inference")
    tiny_model(home / "model", layers=2)
    answering_task(home / "task")
    (home / "study.yaml").write_text(STUDY)
    hpotune("run", home / "study.yaml")
    return home / "study.yaml"


def trials(study: Path) -> list[dict[str, Any]]:
    return json.loads(hpotune("trials", study, "--json"))


def test_trials_finish_without_adapters(study: Path) -> None:
    found = trials(study)
    assert [one["state"] for one in found] == ["finished"] * 4
    assert all(one["values"]["sequences_per_second"] > 0 for one in found)
    folder = StudyFolder(path=study.parent / "answers")
    assert not any((folder.trial(one["number"]) / "adapter").exists() for one in found)


def test_baseline_has_the_tasks_settings(study: Path) -> None:
    folder = StudyFolder(path=study.parent / "answers")
    spec = json.loads((folder.trial(0) / "spec.json").read_text())
    assert {value for value in spec["point"]["score"]["generation"].values()} == {None}
    assert spec["point"]["score"]["objective"][0]["num_fewshot"] is None


def test_best_is_compared_with_base(study: Path) -> None:
    best = json.loads(hpotune("best", study, "--json"))
    assert best["baseline"]["values"].keys() == best["best"]["values"].keys()
    assert best["adapter"] is None
    assert "base model" in hpotune("best", study)
    assert "done" in hpotune("status", study)
    assert "not estimated" in hpotune("plan", study)


def test_rerun_answers_alike(study: Path) -> None:
    number = next(one["number"] for one in trials(study) if one["params"].get("score.generation.do_sample"))
    assert "equal" in hpotune("rerun", study, str(number))


def test_export_writes_the_settings(study: Path, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    number = next(one["number"] for one in trials(study) if one["params"].get("score.generation.do_sample"))
    hpotune("export", study, tmp_path / "out", "--trial", str(number))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "generation_config.json", "setting.yaml",
    }  # fmt: skip
    found = GenerationConfig.from_pretrained(tmp_path / "out")
    params = next(one["params"] for one in trials(study) if one["number"] == number)
    assert found.temperature == params["score.generation.temperature"]
    assert (found.max_new_tokens, found.do_sample) == (16, True)
    assert "No weights were trained" in (tmp_path / "out/README.md").read_text()
    setting = load_study(tmp_path / "out/setting.yaml")
    assert not setting.config.trains
    assert setting.space.ranges == ()
    assert yaml.safe_load((tmp_path / "out/setting.yaml").read_text())["score"]["generation"]["do_sample"]


@pytest.mark.parametrize(
    ("option", "says"),
    [(["--merge"], "trained no weights"), (["--as", "script"], "trained nothing, so that there is no fine-tuning")],
)  # fmt: skip
def test_export_of_weights_is_refused(option: list[str], says: str, study: Path, tmp_path: Path) -> None:
    assert says in hpotune("export", study, tmp_path / "out", *option, code=2)
