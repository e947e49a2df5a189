"""Trials that load the base model's copy on their node's disk: equal results, one copy, the original's name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from hpotune.config.schema.study_config import ModelConfig
from hpotune.finetune.model import staged_model
from hpotune.records.trial import TrialSpec
from hpotune.workspace.staged_copies import NotStaged
from tests.fixtures.tiny_trials import adapter_distance, result_of, run_here, spec_in, start_trial
from tests.fixtures.trained_study import STUDY, write_study

MakeSpec = Callable[..., TrialSpec]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def copies(disk: Path) -> list[Path]:
    """Whole copies."""
    return [one.parent for one in disk.glob("hpotune-stage-*/*/staged.json")]


def test_trial_reads_the_copy(make_spec: MakeSpec, home: Path, disk: Path, tmp_path: Path) -> None:
    """The original's weights are hidden once they are copied, so that only the copy can be read."""
    model = tmp_path / "model"
    shutil.copytree(home / "model", model)
    plain = make_spec("plain", model={"path": str(model)})
    expected = run_here(plain)
    first = make_spec("first", model={"path": str(model)}, spec={"stage": str(disk)})
    assert run_here(first).values == expected.values
    assert adapter_distance(plain, first) == 0
    [copy] = copies(disk)
    assert {one.name for one in copy.glob("*.safetensors")} == {"model.safetensors"}
    named = json.loads((Path(first.folder) / "adapter/adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(model)
    (copy / "model.safetensors").write_bytes(b"planted")
    os.utime(copy / "model.safetensors", ns=(0, 0))
    again = make_spec("again", model={"path": str(model)}, spec={"stage": str(disk)})
    assert run_here(again).values == expected.values  # the damaged copy was made again


def test_missing_folder_falls_back(make_spec: MakeSpec, tmp_path: Path) -> None:
    result = run_here(make_spec(spec={"stage": str(tmp_path / "none")}))
    assert result.state == "finished"
    missing = tmp_path / "none"
    why = f"not from {missing}: {missing} is not a folder on this node"
    assert result.metrics["warnings"] == [f"env.stage: the base model is read from where it is, {why}"]


def test_two_ranks_share_one_copy(home: Path, disk: Path, tmp_path: Path) -> None:
    spec = spec_in(tmp_path, home, spec={"stage": "$D"})
    process = start_trial(spec, processes=2, env={"D": str(disk)})
    log = Path(spec.folder) / "log.txt"
    assert process.wait(timeout=300) == 0, log.read_text()
    assert result_of(spec).metrics["base_share_per_rank"] == pytest.approx(0.5, abs=0.01)
    assert log.read_text().count("copied 0.00 GB of") == len(copies(disk)) == 1


def test_repository_is_copied_by_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in the hub's cache, whose files are links, with the hashes of `hpotune fetch`."""
    commit = "a" * 40
    snapshot = tmp_path / "hub" / "models--acme--tiny" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "README.md", "optimizer.pt"):
        (tmp_path / name).write_text(name)
        (snapshot / name).symlink_to(tmp_path / name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    lock = tmp_path / "fetched.lock.json"
    item = {"kind": "model", "id": "acme/tiny", "commit": commit, "keys": []}
    item["files"] = [{"path": "config.json", "size": 11, "sha256": "b" * 64}]
    lock.write_text(json.dumps({"fetched": "2026-01-01", "items": [item]}))
    config = ModelConfig(path="acme/tiny", revision=commit)
    found = staged_model._original(config, {"HPOTUNE_FETCHED_LOCK": str(lock)})
    assert (found.name, found.sha256) == (f"acme/tiny@{commit}", {"config.json": "b" * 64})
    assert {*found.files} == {"config.json", "model.safetensors", "README.md"}
    assert found.files["config.json"] == tmp_path / "config.json"
    with pytest.raises(NotStaged, match="acme/other is not on this machine"):
        staged_model._original(ModelConfig(path="acme/other", revision=commit), {})


def test_study_stages_once_and_removes(disk: Path, tmp_path: Path) -> None:
    """Three trials in two workers with warm processes; the last one removes the copy, since the study has ended."""
    text = STUDY.replace("max_steps: 80", "max_steps: 4")
    file = write_study(tmp_path / "home", f"{text}env: {{stage: $TMPDIR}}\n")
    command = [sys.executable, "-m", "hpotune", "run", str(file), "--json"]
    env = {**os.environ, "TMPDIR": str(disk)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = file.parent / "small"
    logs = [one.read_text() for one in sorted((folder / "trials").glob("*/log.txt"))]
    assert sum(text.count("copied 0.00 GB of") for text in logs) == 1
    workers = "".join(one.read_text() for one in (folder / "jobs/local").glob("*.log"))
    assert workers.count("a base model's copy on this node") == 1
    assert copies(disk) == []
    provenance = json.loads((folder / "trials/1/provenance.json").read_text())
    assert provenance["contents"]["model"]["path"] == str(file.parent / "model")
