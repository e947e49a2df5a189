"""The main job on this machine, by the command line: run, best, export; the adapter in other people's hands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.trained_study import STUDY, hpotune, write_study


@pytest.fixture(scope="module")
def study(trained_study: Path) -> Path:
    """A study that has been run."""
    return trained_study


@pytest.fixture(scope="module")
def exported(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its best adapter, exported."""
    out = tmp_path_factory.mktemp("exported") / "out"
    done = hpotune("export", study, str(out))
    assert done.returncode == 0, done.stderr
    return out


def best(study: Path) -> dict:
    return json.loads(hpotune("best", study, "--json").stdout)


def test_best_trial_is_significantly_better(study: Path) -> None:
    result = best(study)
    assert result["finished"] == 3
    assert result["gain"]["paired"]
    assert result["gain"]["sure"], result


def test_running_it_again_adds_nothing(study: Path) -> None:
    before = (study.parent / "small" / "store.db").read_bytes()
    assert hpotune("run", study).returncode == 0
    assert best(study)["finished"] == 3
    assert len((study.parent / "small" / "store.db").read_bytes()) == len(before)


def test_score_equals_lm_eval_command(study: Path, exported: Path) -> None:
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "toy_topics",
        "--include_path", str(study.parent / "task"),
        "--model_args", f"pretrained={study.parent / 'model'},peft={exported},dtype=float32", "--batch_size", "8",
        "--output_path", str(study.parent / "lm_eval.json"), "--device", "cpu",
    ]  # fmt: skip
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    (file,) = study.parent.rglob("lm_eval*.json")
    theirs = json.loads(file.read_text())["results"]["toy_topics"]
    ours = best(study)["best"]
    assert ours["values"]["toy_topics/acc"] == pytest.approx(theirs["acc,none"], abs=1e-6)
    assert ours["stderrs"]["toy_topics/acc"] == pytest.approx(theirs["acc_stderr,none"], abs=1e-6)


def test_the_exported_adapter_loads_with_peft(study: Path, exported: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(study.parent / "model")
    model = PeftModel.from_pretrained(base, str(exported))
    assert any("lora" in name for name, _ in model.named_parameters())


def test_exported_study_has_no_ranges(study: Path, exported: Path) -> None:
    from hpotune.config.load import load_study

    assert load_study(exported / "setting.yaml").space.searched == ()


def test_killed_run_continues(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY.replace("max_steps: 80", "max_steps: 400").replace("trials: 3", "trials: 2"))
    run = subprocess.Popen(
        [sys.executable, "-m", "hpotune", "run", str(tmp_path / "study.yaml")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    curve = tmp_path / "small" / "trials" / "1" / "curve.jsonl"
    deadline = time.monotonic() + 120
    while not (curve.exists() and curve.read_text().count("\n") > 5) and time.monotonic() < deadline:
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=120) == 130
    assert (tmp_path / "small" / "trials" / "1" / "checkpoint").is_dir()
    assert hpotune("run", tmp_path / "study.yaml").returncode == 0
    rows = json.loads(hpotune("trials", tmp_path / "study.yaml", "--json").stdout)
    assert [(row["number"], row["state"]) for row in rows] == [(0, "finished"), (1, "finished")]
    steps = [json.loads(line)["step"] for line in curve.read_text().splitlines()]
    assert steps == list(range(1, 401))
