"""`hpotune fetch` from a hub on loopback, and the study without any network: trials, lm-eval tasks, missing files."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import needs_torch
from tests.fixtures.hub_study import CUT_OFF, Site, hpotune, make_site, run_unconnected


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """The site after `hpotune fetch`, with the hub stopped."""

    site: Site
    cache: Path
    shown: str
    asked: str
    """The requests to the hub."""

    @property
    def lock(self) -> Path:
        return self.site.file.parent / "lab" / "fetched.lock.json"

    def file(self, name: str) -> Path:
        """A file of the model in the cache."""
        commit = self.site.commits["model"]
        return self.cache / "hub" / "models--acme--tiny" / "snapshots" / commit / name


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    needs_torch()
    folder = tmp_path_factory.mktemp("fetched")
    site = make_site(folder)
    refused = hpotune("fetch", site.file, env=site.env(folder / "hf"))
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        2,
        "error: nothing was downloaded; give --yes to download without a question",
    )
    assert "to download: " in refused.stdout
    site.hub.requests.clear()
    done = hpotune("fetch", site.file, "--yes", env=site.env(folder / "hf"))
    site.hub.stop()
    assert done.returncode == 0, done.stderr
    return Fetched(site=site, cache=folder / "hf", shown=done.stdout, asked="\n".join(site.hub.requests))


def test_lock_names_commits_and_hashes(fetched: Fetched) -> None:
    lock = json.loads(fetched.lock.read_text())
    found = {one["id"]: one for one in lock["items"]}
    assert {name: one["commit"] for name, one in found.items()} == {
        "acme/tiny": fetched.site.commits["model"],
        "acme/topics": fetched.site.commits["topics"],
        "acme/exam": fetched.site.commits["exam"],
    }
    assert lock["tasks"] == ["ocean_topics", "music_topics"]
    assert found["acme/exam"]["keys"] == ["score.objective: ocean_topics", "score.test: music_topics"]
    assert all(len(file["sha256"]) == 64 for one in lock["items"] for file in one["files"])
    weights = next(one for one in found["acme/tiny"]["files"] if one["path"] == "model.safetensors")
    assert weights["size"] == fetched.file("model.safetensors").stat().st_size


def test_only_needed_files_are_fetched(fetched: Fetched) -> None:
    assert "/model.safetensors" in fetched.asked
    for unneeded in ("pytorch_model.bin", "modeling_evil.py", "model.onnx", "/other/train.jsonl"):
        assert unneeded not in fetched.asked


def test_study_runs_without_a_network(fetched: Fetched, tmp_path: Path) -> None:
    """Acceptance: two trials and the baseline with lm-eval; no process tries to connect or to resolve a name."""
    env = fetched.site.env(fetched.cache, url="http://127.0.0.1:9")
    control = run_unconnected([sys.executable, "-c", CUT_OFF], env, folder=tmp_path / "control")
    assert control.done.returncode == 1
    assert control.attempts  # a name is asked of each server in resolv.conf
    assert control.unroutable == 1
    command = [sys.executable, "-m", "hpotune", "run", str(fetched.site.file), "--json"]
    ran = run_unconnected(command, env, folder=tmp_path / "run")
    assert ran.done.returncode == 0, ran.done.stderr
    assert (ran.attempts, ran.unroutable) == ([], 0)
    results = sorted((fetched.site.file.parent / "lab" / "trials").glob("*/result.json"))
    assert [json.loads(file.read_text())["state"] for file in results] == ["finished"] * 3
    spec = json.loads(results[1].with_name("spec.json").read_text())
    assert spec["point"]["model"]["revision"] == fetched.site.commits["model"]
    provenance = json.loads(results[1].with_name("provenance.json").read_text())
    assert provenance["contents"]["data"]["commit"] == fetched.site.commits["topics"]


def test_check_finds_a_missing_file(fetched: Fetched, tmp_path: Path) -> None:
    cache = tmp_path / "hf"
    shutil.copytree(fetched.cache, cache, symlinks=True)
    gone = cache / fetched.file("config.json").relative_to(fetched.cache)
    gone.resolve().unlink()
    done = hpotune("check", fetched.site.file, env=fetched.site.env(cache, url="http://127.0.0.1:9"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {fetched.site.file.name}:3: model.path: acme/tiny: {gone} is missing; run `hpotune fetch "
        f"{fetched.site.file}` on the login node"
    ]
