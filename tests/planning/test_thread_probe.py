"""Trials side by side and threads of each are those that train fastest together, by real processes of the probe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpotune.config.load import load_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.launch.run_local import _thread_choice
from hpotune.planning.study_plan import threads_note
from hpotune.planning.thread_probe import arrangements, chosen, probe_threads, write_choice
from hpotune.records.thread_choice import Arrangement
from hpotune.worker.objective.finetune import rank_command
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.tiny_model import tiny_model, topic_rows


@pytest.mark.parametrize(
    ("cores", "most", "ways"),
    [
        (1, 4, [(1, 1)]),
        (2, 1, [(1, 1), (1, 2)]),
        (2, 8, [(1, 2), (2, 1)]),
        (8, 3, [(1, 8), (2, 4), (3, 1), (3, 2)]),
        (16, 16, [(1, 16), (2, 8), (4, 4), (8, 2), (16, 1)]),
    ],
)
def test_arrangements_use_the_cores(cores: int, most: int, ways: list[tuple[int, int]]) -> None:
    assert arrangements(cores=cores, most=most) == ways


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({(1, 2): 100.0, (2, 1): 150.0}, (2, 1)),
        ({(1, 2): 100.0, (2, 1): 104.0}, (1, 2)),  # about as fast, and each trial knows more
        ({(1, 1): 100.0, (1, 2): 103.0}, (1, 1)),
    ],
)
def test_faster_arrangement_is_chosen(speeds: dict[tuple[int, int], float], best: tuple[int, int]) -> None:
    found = chosen([Arrangement(trials=t, threads=n, tokens_per_s=speed) for (t, n), speed in speeds.items()])
    assert (found.trials, found.threads) == best


def written(home: Path, *, model: str = "model", **resources: object) -> Path:
    values = {
        "name": "s",
        "model": {"path": str(home / model), "dtype": "float32"},
        "data": {"path": str(home / "rows.jsonl"), "prompt": "{input} Topic: ", "response": "{output}"},
        "lora": {"r": 4},
        "train": {"learning_rate": {"float": [1e-4, 1e-2]}, "max_steps": 4, "per_device_train_batch_size": 2},
        "score": {"objective": {"metric": "train_loss", "direction": "minimize"}},
        "budget": {"trials": 4, "parallel": 2},
        "resources": {"threads": "auto", **resources},
    }
    (home / "s.yaml").write_text(yaml.safe_dump(values))
    return home / "s.yaml"


def test_real_processes_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    tiny_model(tmp_path / "model", layers=1)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topic_rows(12)))
    study, folder = load_study(written(tmp_path)), StudyFolder(path=tmp_path / "s")
    folder.path.mkdir()
    assert threads_note(folder, study.config) == "auto: `hpotune run` measures it before its first trial"
    found = probe_threads(folder, study, cores=2, most=1, seconds=0.3)
    assert [(one.trials, one.threads) for one in found.measured] == [(1, 1), (1, 2)]
    assert all(one.tokens_per_s > 0 for one in found.measured)
    write_choice(folder.path, found)
    assert threads_note(folder, study.config) == found.text
    assert _thread_choice(folder, study.config) == found
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert _thread_choice(folder, study.config) is None


def test_failed_process_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    study, folder = load_study(written(tmp_path, model="missing")), StudyFolder(path=tmp_path / "s")
    study = load_study(written(tmp_path, model="missing"))
    with pytest.raises(HpotuneError, match="^the probe of threads ended: "):
        probe_threads(folder, study, cores=1, most=1, seconds=0.1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"resources": {"threads": 0}}, "needs auto, or a number of 1 to"),
        ({"resources": {"threads": "auto", "gpus": 1}}, "auto is for trials of one process without GPUs"),
        (
            {"resources": {"threads": 2}, "env": {"vars": {"OMP_NUM_THREADS": "1"}}},
            "exclude each other; keep one",
        ),
        ({"python": "own.py:f", "resources": {"threads": "auto"}}, "auto measures a fine-tuning"),
    ],
)
def test_wrong_threads_are_refused(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    values = {"name": "s", "score": {"objective": {"metric": "loss", "direction": "minimize"}}}
    model = {} if "python" in changed else {"model": {"path": "m"}, "data": {"path": "d"}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**values, "budget": {"trials": 1}, **model, **changed}))
    with pytest.raises(StudyFileError, match=said):
        load_study(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("threads", "env", "used"),
    [
        (None, {}, "1"),
        (3, {}, "3"),
        (3, {"OMP_NUM_THREADS": "2"}, "2"),
        ("auto", {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4"}, "4"),
        (None, {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4"}, "1"),
        ("auto", {}, "1"),
    ],
)
def test_trial_gets_its_threads(threads: object, env: dict[str, str], used: str) -> None:
    values = {"name": "s", "model": {"path": "m"}, "data": {"path": "d"}, "budget": {"trials": 1}}
    given = {"score": {"objective": {"metric": "eval_loss"}}, "resources": {"threads": threads}}
    _, found = rank_command(StudyConfig.model_validate(values | given), ["x"], env)
    assert found["OMP_NUM_THREADS"] == used
