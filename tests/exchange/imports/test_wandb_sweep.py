"""Sweeps of Weights & Biases."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.load import load_study
from hpotune.errors import StudyFileError
from hpotune.exchange.imports.import_study import import_study
from hpotune.exchange.imports.wandb_sweep import import_sweep

SWEEP = """
program: train.py
name: my sweep
method: bayes
run_cap: 30
metric: {name: val_loss, goal: minimize}
command: ["${env}", python3, "${program}", --verbose, "${args}"]
early_terminate: {type: hyperband, min_iter: 3}
parameters:
  lr: {distribution: log_uniform_values, min: 1.0e-5, max: 0.1}
  old: {distribution: log_uniform, min: -9.2103403719761836, max: 0}
  batch: {values: [8, 16]}
  layers: {min: 1, max: 6}
  drop: {min: 0.0, max: 0.5}
  step: {distribution: q_uniform, min: 0, max: 100, q: 10}
  decay: {distribution: log_normal, mu: -4.0, sigma: 1.0}
  epochs: {value: 3}
  optimizer:
    parameters:
      name: {values: [adam, sgd], probabilities: [0.9, 0.1]}
"""


def test_sweep_becomes_a_valid_study(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    written = import_study(str(tmp_path / "sweep.yaml"), out=tmp_path / "new.yaml")
    study = load_study(written.file)
    found = {r.name: r for r in study.space.searched}
    assert (found["params.lr"].low, found["params.lr"].high, found["params.lr"].log) == (1e-5, 0.1, True)
    assert found["params.old"].low == pytest.approx(1e-4)
    assert found["params.old"].log
    assert (found["params.layers"].kind, found["params.drop"].kind) == ("int", "float")
    assert (found["params.step"].kind, found["params.step"].step) == ("int", 10)
    assert found["params.decay"].measure == (-4.0, 1.0)
    assert found["params.optimizer.name"].options == ("adam", "sgd")
    assert study.space.fixed["params.epochs"] == 3
    assert study.config.name == "my-sweep"
    assert study.config.budget.trials == 30
    assert study.config.score.objective[0].sense == "minimize"
    assert (study.config.command or "").startswith("python3 train.py --verbose --lr={lr} ")
    assert written.trials_file is None


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP + "project: mine\n")
    notes = " ".join(import_sweep(tmp_path / "sweep.yaml").notes)
    for part in (
        "early_terminate",
        "optimizer.name: probabilities",
        "project: is not taken over",
        "last line, in JSON",
    ):
        assert part in notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: grid\nparameters: {}\n", "needs a mapping of names"),
        ("method: grid\nparameters: {x: {min: 1}}\n", "needs value, values, or min and max"),
        (
            "method: grid\nparameters: {x: {distribution: beta, a: 1}}\n",
            "distribution beta has no counterpart",
        ),
        ("method: grid\nparameters: {x: 3}\n", "needs a mapping, such as"),
        ("method: grid\nparameters: {x: {min: .nan, max: 2}}\n", "finite numbers"),
        ("a: &a [1]\nmethod: grid\nparameters: {x: {values: *a}}\n", "has aliases"),
        (
            "method: !!python/object/apply:os.system ['touch evil']\nparameters: {}\n",
            "cannot be read as YAML",
        ),
        ("method: grid\nparameters: " + "[" * 5000, "cannot be read as YAML"),
        (
            "metric: {name: x, goal: best}\nmethod: grid\nparameters: {x: {value: 1}}\n",
            "'best' is no direction",
        ),
    ],
)
def test_wrong_sweeps_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(StudyFileError, match=message):
        import_sweep(tmp_path / "sweep.yaml")
