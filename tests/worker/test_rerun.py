"""Trials that are run again: of a function, of a command, of the tiny model. The study's own files stay as they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from hpotune.cli import app
from hpotune.errors import StudyFileError
from hpotune.workspace.code_snapshot import snapshot_code
from hpotune.workspace.folder import StudyFolder
from hpotune.workspace.origin.trial_provenance import read_trial_provenance
from tests.conftest import ROOT, needs_torch

FUNCTION = """\
import os, random
def f(x):
    if os.environ.get("TEST_RERUN") == "fails":
        raise ValueError(x)
    noise = random.random() if os.environ.get("TEST_RERUN") == "random" else 0
    return {"value": x ** 2 + noise, "noise": random.random()}
"""


def hpotune(*words: object) -> Result:
    """The result of a verb; an error of hpotune is raised."""
    done = CliRunner().invoke(app, [*map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def made(folder: Path, **sections: object) -> Path:
    """A study of a function that has run; its folder."""
    (folder / "own.py").write_text(FUNCTION)
    values = {
        "name": "bowl", "python": "own.py:f", "params": {"x": {"choice": [0.3, 0.7]}}, "store": "sqlite",
        "score": {"objective": {"metric": "value", "direction": "minimize"}},
        "budget": {"trials": 1}, "search": {"algorithm": "random"}, **sections,
    }  # fmt: skip
    kept = {key: value for key, value in values.items() if value is not None}
    (folder / "study.yaml").write_text(yaml.safe_dump(kept))
    hpotune("run", folder / "study.yaml")
    return folder / "bowl"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study that the tests copy."""
    return made(tmp_path_factory.mktemp("original"))


@pytest.fixture
def study(original: Path, tmp_path: Path) -> Path:
    """A copy of the study beside a copy of its file: a study that was moved."""
    shutil.copytree(original.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "bowl"


def contents(study: Path) -> dict[str, str]:
    """A hash of each file of the study but those that a rerun may write."""
    own = ("reruns", "environments", "hashes", ".users")
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(study.rglob("*"))
        if file.is_file() and not set(own) & set(file.relative_to(study).parts)
    }


def test_function_gives_equal_value(study: Path) -> None:
    before = contents(study)
    done = hpotune("rerun", study, 0, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["trial"], result["state"], result["recorded"]) == (0, "equal", True)
    by_name = {one["name"]: one for one in result["numbers"]}
    assert by_name["value"]["before"] == by_name["value"]["now"]
    assert by_name["noise"]["decides"] is False
    assert result["differences"] == []
    assert contents(study) == before
    shown = hpotune("provenance", study, 0)
    assert "0-1: the rerun gives the same losses and scores" in shown.stdout
    assert hpotune("rerun", study, 0).exit_code == 0
    assert sorted(path.name for path in (study / "reruns").iterdir()) == ["0-1", "0-2"]


def test_random_function_differs(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (study / "trials" / "0" / "result.json").unlink()  # the store's values count
    monkeypatch.setenv("TEST_RERUN", "random")
    done = hpotune("rerun", study, 0)
    assert done.exit_code == 1
    assert "the rerun differs" in done.stdout


def test_changed_environment_is_named(study: Path) -> None:
    file = next((study / "environments").iterdir())
    recorded = json.loads(file.read_text())
    recorded["packages"] |= {"numpy": "1.0.0", "gone": "2"}
    recorded["gpu"] = "NVIDIA A100"
    file.write_text(json.dumps(recorded))
    provenance = study / "trials" / "0" / "provenance.json"
    provenance.write_text(provenance.read_text().replace('"host": "', '"host": "other-'))
    # its file was changed, so that the rerun's environment has this key too: it gets another one
    renamed = file.with_name("0123456789abcdef.json")
    file.rename(renamed)
    provenance.write_text(provenance.read_text().replace(file.stem, renamed.stem))
    done = hpotune("rerun", study, 0)
    assert done.exit_code == 0
    for text in (
        "numpy differs: 1.0.0 then",
        "gone differs: 2 then, none now",
        "gpu differs: NVIDIA A100 then",
    ):
        assert text in done.stderr
    assert "host differs: other-" in done.stderr
    assert "numpy" in done.stdout


def test_command_runs_its_snapshot(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys; print('{\"value\": ' + sys.argv[1] + '}')\n")
    study = made(tmp_path, python=None, command=f"{sys.executable} train.py {{x}}")
    (tmp_path / "train.py").write_text("print('{\"value\": 99}')\n")
    assert hpotune("rerun", study, 0).exit_code == 0


def test_removed_snapshot_is_said(study: Path) -> None:
    """The snapshot of other code is there instead, as `run` does it with code that has changed."""
    held = next(study.glob("code/*/snapshot.json")).parent
    text = (held / "0" / "own.py").read_text().replace("x ** 2", "x ** 2 + 1")
    (study.parent / "own.py").write_text(text)
    values = StudyFolder(path=study).load().source.values | {"python": f"{study.parent}/own.py:f"}
    snapshot_code(StudyFolder(path=study), values, home=study.parent)
    shutil.rmtree(held)
    (study / "resolved.yaml").write_text(yaml.safe_dump(values))
    provenance = json.loads((study / "provenance.json").read_text())
    (study / "provenance.json").write_text(json.dumps(provenance | {"home": str(study.parent)}))
    done = hpotune("rerun", study, 0)
    assert done.exit_code == 1
    assert "was removed" in done.stderr
    assert "code differs" in done.stderr


def test_trial_without_result_is_refused(study: Path) -> None:
    with pytest.raises(StudyFileError, match="trial 7: no such trial; the study has trials 0 to"):
        hpotune("rerun", study, 7)
    hpotune("extend", study, "--trials", "+1")
    with pytest.raises(StudyFileError, match=r"trial 1: is waiting, so there is no result.*hpotune status"):
        hpotune("rerun", study, 1)
    assert not (study / "reruns").exists()


def test_failing_rerun_gives_no_value(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_RERUN", "fails")
    done = hpotune("rerun", study, 0)
    assert done.exit_code == 1
    assert "the rerun gave no value (user: ValueError" in done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The comparisons of four trials of the tiny model (rungs, dropout, lm-eval), and the provenance of the third."""
    needs_torch()
    folder = tmp_path_factory.mktemp("tiny")
    command = [sys.executable, "-m", "tests.fixtures.rerun_trials", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    provenance = read_trial_provenance(folder / "rerun" / "trials" / "2")
    assert provenance is not None
    return [*found, {"contents": dict(provenance.contents), "inputs": dict(provenance.inputs)}]


def test_trials_give_equal_losses(tiny: list[dict]) -> None:
    assert [one["state"] for one in tiny[:-1]] == ["equal"] * 4
    names = {one["name"] for one in tiny[1]["numbers"] if one["decides"]}
    assert {"toy_topics/acc_norm", "toy_topics/acc", "eval_loss", "train_loss", "final_train_loss"} <= names
    assert [one["differences"] for one in tiny[:-1]] == [[]] * 4


def test_contents_and_inputs_are_recorded(tiny: list[dict]) -> None:
    assert {name: len(one.sha256) for name, one in tiny[-1]["contents"].items()} == {"data": 64, "model": 64}
    assert {name: len(one) for name, one in tiny[-1]["inputs"].items()} == {"rows": 64, "toy_topics": 64}
