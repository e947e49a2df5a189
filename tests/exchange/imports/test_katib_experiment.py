"""Experiments of Katib, written by hand and by its tune() for language models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpotune.config.load import load_study
from hpotune.errors import StudyFileError
from hpotune.exchange.imports.import_study import import_study

PARAMETERS = [
    {
        "name": "lr",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-5", "max": "0.01", "distribution": "logUniform"},
    },
    {"name": "layers", "parameterType": "int", "feasibleSpace": {"min": "2", "max": "8", "step": "2"}},
    {"name": "opt", "parameterType": "categorical", "feasibleSpace": {"list": ["adam", "sgd"]}},
    {"name": "size", "parameterType": "discrete", "feasibleSpace": {"list": ["8", "16"]}},
]  # fmt: skip
ARGS = [
    "python3",
    "/opt/train.py",
    "--lr=${trialParameters.learningRate}",
    "--layers=${trialParameters.layers}",
]
ARGS += ["--opt=${trialParameters.opt}", "--size=${trialParameters.size}"]


def experiment(
    parameters: list[dict[str, Any]], containers: dict[str, Any], names: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "tune-it"},
        "spec": {
            "objective": {"type": "minimize", "goal": 0.01, "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "bayesianoptimization"},
            "maxTrialCount": 12,
            "parallelTrialCount": 3,
            "parameters": parameters,
            "trialTemplate": {
                "trialParameters": names,
                "trialSpec": {"spec": {"template": {"spec": containers}}},
            },
        },
    }


def plain_experiment() -> dict[str, Any]:
    names = [
        {"name": "learningRate", "reference": "lr"},
        *({"name": n, "reference": n} for n in ("layers", "opt", "size")),
    ]
    made = experiment(PARAMETERS, {"containers": [{"name": "main", "image": "x", "command": ARGS}]}, names)
    assigned = [
        {"name": n, "value": v} for n, v in (("lr", "0.001"), ("layers", "4"), ("opt", "sgd"), ("size", "16"))
    ]
    made["status"] = {
        "currentOptimalTrial": {
            "parameterAssignments": assigned,
            "observation": {"metrics": [{"name": "loss", "latest": "0.25", "min": "0.2"}]},
        }
    }
    return made


def imported(values: dict[str, Any], folder: Path) -> Any:
    (folder / "experiment.yaml").write_text(yaml.safe_dump(values))
    return import_study(str(folder / "experiment.yaml"), out=folder / "new.yaml")


def test_experiment_becomes_a_valid_study(tmp_path: Path) -> None:
    written = imported(plain_experiment(), tmp_path)
    study = load_study(written.file)
    found = {r.name: r for r in study.space.searched}
    assert (found["params.lr"].low, found["params.lr"].high, found["params.lr"].log) == (1e-5, 0.01, True)
    assert (found["params.layers"].kind, found["params.layers"].step) == ("int", 2)
    assert found["params.size"].options == (8, 16)
    assert (
        study.config.command == "python3 /opt/train.py --lr={lr} --layers={layers} --opt={opt} --size={size}"
    )
    assert (study.config.budget.trials, study.config.budget.parallel) == (12, 3)
    assert study.config.score.objective[0].goal == 0.01
    row = (tmp_path / "new_trials.csv").read_text().splitlines()[1]
    assert row == "0,finished,0.25,0.001,4,sgd,16"


def test_settings_and_stopping_are_taken_over(tmp_path: Path) -> None:
    values = plain_experiment()
    values["spec"] |= {
        "algorithm": {
            "algorithmName": "tpe",
            "algorithmSettings": [{"name": "random_state", "value": "3"}, {"name": "gamma", "value": "0.2"}],
        },
        "earlyStopping": {
            "algorithmName": "medianstop",
            "algorithmSettings": [{"name": "min_trials_required", "value": "2"}],
        },
        "maxFailedTrialCount": 3,
    }
    written = imported(values, tmp_path)
    config = load_study(written.file).config
    assert (config.search.algorithm, config.search.seed, config.search.pruner) == ("tpe", 3, "median")
    assert config.search.pruner_options == {"n_startup_trials": 2}
    assert config.budget.max_failed == 2
    assert "gamma=0.2: is no setting of hpotune" in " ".join(written.notes)
    assert "start_step is not taken over" in " ".join(written.notes)


def test_language_model_becomes_sections(tmp_path: Path) -> None:
    parameters = [
        {
            "name": "learning_rate",
            "parameterType": "double",
            "feasibleSpace": {"min": "1e-05", "max": "5e-05"},
        },
        {"name": "r", "parameterType": "int", "feasibleSpace": {"min": "8", "max": "32"}},
    ]
    training = {
        "output_dir": "/out",
        "num_train_epochs": 2,
        "learning_rate": "${trialParameters.learning_rate}",
    }
    lora = {
        "peft_type": "LORA",
        "r": "${trialParameters.r}",
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "bias": "none",
    }
    main = [
        "--model_uri",
        "hf://org/base",
        "--training_parameters",
        json.dumps(training),
        "--lora_config",
        json.dumps(lora),
    ]
    data = [
        "--dataset_provider_parameters",
        json.dumps({"repo_id": "tatsu-lab/alpaca", "split": "train[:100]"}),
    ]
    containers = {"initContainers": [{"args": data}], "containers": [{"args": main}]}
    names = [{"name": name, "reference": name} for name in ("learning_rate", "r")]
    written = imported(experiment(parameters, containers, names), tmp_path)
    study = load_study(written.file)
    assert {r.name for r in study.space.searched} == {"train.learning_rate", "lora.r"}
    assert (study.config.model.path, study.config.data.path) == ("org/base", "tatsu-lab/alpaca")  # type: ignore[union-attr]
    assert study.config.lora["lora_alpha"] == 8
    assert study.config.train["num_train_epochs"] == 2
    notes = " ".join(written.notes)
    assert "training_parameters.output_dir='/out': is not taken over" in notes
    assert "data.prompt" in notes


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"parameters": []}, "needs a list of parameters"),
        (
            {"parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "a"}}]},
            "x: needs parameterType",
        ),
        ({"parameters": [{"name": "x", "parameterType": "categorical"}]}, "x: needs feasibleSpace.list"),
        ({"objective": {"type": "best"}}, "'best' is no direction"),
    ],
)
def test_wrong_experiments_are_refused(broken: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = plain_experiment()
    values["spec"] |= broken
    with pytest.raises(StudyFileError, match=message):
        imported(values, tmp_path)
