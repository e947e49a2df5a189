"""Trials of a model and a dataset given by their hub ids, with a local server instead of the hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from hpotune.records.trial import TrialResult, TrialSpec
from tests.fixtures.local_hub import CARD, Hub
from tests.fixtures.tiny_model import tiny_model
from tests.fixtures.tiny_trials import ENV, result_of, spec_in, start_trial

NOWHERE = "http://127.0.0.1:9"
LOAD = """\
from hpotune.finetune.model.hub import prepare_environment, redirected_datasets
prepare_environment(offline=True)
import datasets
with redirected_datasets(None):
    print(datasets.load_dataset("acme/topics", split="train", revision={revision!r}).num_rows)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A hub with two commits of a model, and the login node's first trial."""

    hub: Hub
    url: str
    old: str
    """The model's first commit; `main` has other weights."""
    first: TrialResult
    requests: tuple[str, ...]
    """Those of the first trial."""
    home: Path
    """HF_HOME after the first trial."""
    trial: Callable[..., TrialResult]
    """Of the two ids, by name; keywords: offline, env, and keys of the model."""


@pytest.fixture(scope="module")
def site(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    parent = tmp_path_factory.mktemp("site")
    hub = Hub()
    old = hub.publish("models/acme/tiny", tiny_model(parent / "old", seed=1, dtype="float64", layers=2))
    hub.publish("models/acme/tiny", home / "model")
    hub.publish("datasets/acme/topics", topics(parent / "topics", home / "rows.jsonl"))
    url = hub.start()

    def trial(name: str, *, offline: bool, env: dict[str, str], **model: str) -> TrialResult:
        sections = {"model": {"path": "acme/tiny", **model}, "data": {"path": "acme/topics"}}
        return run_process(spec_in(parent, home, name, spec={"offline": offline}, **sections), env)

    first = trial("first", offline=False, env=node(parent / "hf", url))
    try:
        yield Site(
            hub=hub,
            url=url,
            old=old,
            first=first,
            requests=tuple(hub.requests),
            home=parent / "hf",
            trial=trial,
        )
    finally:
        hub.stop()


def topics(folder: Path, rows: Path) -> Path:
    """A dataset as it lies on the hub."""
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "train.jsonl").write_text(rows.read_text())
    return folder


def run_process(spec: TrialSpec, env: dict[str, str]) -> TrialResult:
    """Run the trial as a process and return its result."""
    start_trial(spec, env=env).wait(timeout=300)
    return result_of(spec)


def node(home: Path, url: str = NOWHERE) -> dict[str, str]:
    """The environment of a machine with this HF_HOME, that reaches the hub at `url`."""
    caches = {"HF_HUB_CACHE": str(home / "hub"), "HF_DATASETS_CACHE": str(home / "datasets")}
    online = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    return {"HF_HOME": str(home), "HF_ENDPOINT": url, **caches, **online}


def python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=ENV | env, text=True, capture_output=True, check=False)


def load(home: Path, revision: str | None = None) -> subprocess.CompletedProcess[str]:
    """Loads the dataset offline, as a trial would, and prints its number of rows."""
    return python(LOAD.format(revision=revision), node(home))


def test_trial_downloads_model_and_rows(site: Site) -> None:
    assert (site.first.state, site.first.failure) == ("finished", None)
    asked = " ".join(one for one in site.requests if one.startswith("GET"))
    assert "/model.safetensors" in asked
    assert "/train.jsonl" in asked


def test_downloads_are_used_offline(site: Site) -> None:
    again = site.trial("again", offline=True, env=node(site.home))
    assert (again.state, again.failure) == ("finished", None)
    assert again.metrics["eval_loss"] == site.first.metrics["eval_loss"]


def test_hf_downloads_are_used_offline(site: Site, tmp_path: Path) -> None:
    at = {"endpoint": site.url, "cache_dir": tmp_path / "hub"}
    snapshot_download("acme/tiny", **at)
    snapshot_download("acme/tiny", revision=site.old, **at)
    snapshot_download("acme/topics", repo_type="dataset", **at)
    result = site.trial("old", offline=True, env=node(tmp_path), revision=site.old)
    assert (result.state, result.failure) == ("finished", None)
    assert result.metrics["eval_loss"] != pytest.approx(site.first.metrics["eval_loss"], rel=0.01)


def test_revision_is_requested_from_hub(site: Site, tmp_path: Path) -> None:
    site.hub.requests.clear()
    assert (
        site.trial("pinned", offline=False, env=node(tmp_path, site.url), revision=site.old).state
        == "finished"
    )
    files = [one for one in site.hub.requests if " /acme/tiny/resolve/" in one]
    assert files
    assert all(f"/resolve/{site.old}/" in one for one in files)


def test_uncached_model_names_download_command(site: Site, tmp_path: Path) -> None:
    result = site.trial("empty", offline=True, env=node(tmp_path), revision=site.old)
    assert (result.state, result.failure.cause) == ("failed", "user")
    assert result.failure.message == (
        f"model.path: acme/tiny is neither a path on this machine nor in the cache (HF_HOME={tmp_path}); "
        "run `hpotune fetch STUDY` on the login node, or download it there: "
        f"hf download --revision {site.old} acme/tiny"
    )


def test_uncached_dataset_names_download_command(tmp_path: Path) -> None:
    assert (
        f"DatasetNotCached: acme/topics is neither a path on this machine nor in the cache (HF_HOME={tmp_path}); "
        "run `hpotune fetch STUDY` on the login node, or download it there: "
        "hf download --repo-type dataset acme/topics\n"
    ) in load(tmp_path).stderr


def test_cached_other_revision_is_not_used(site: Site, tmp_path: Path) -> None:
    python("import datasets; datasets.load_dataset('acme/topics')", node(tmp_path, site.url))
    assert load(tmp_path).stdout == "48\n"
    other = "0" * 40
    assert f"hf download --repo-type dataset --revision {other} acme/topics\n" in load(tmp_path, other).stderr
