"""`hpotune fetch` of a model and rows in a bucket on loopback, and the study without the storage afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import needs_torch
from tests.fixtures.hub_study import hpotune, run_unconnected
from tests.fixtures.s3_store import SECRET, Store, start_store
from tests.fixtures.tiny_model import tiny_model, topic_rows

pytest.importorskip("moto", reason="needs moto: pip install 'hpotune[dev]'")
pytest.importorskip("s3fs", reason="needs s3fs: pip install 'hpotune[s3]'")

STUDY = """\
name: lab
model: {path: s3://lab/models/tiny}
data:
  path: s3://lab/rows/train.jsonl
  prompt: "{instruction} {input}"
  response: "{output}"
  validation: 8
train: {learning_rate: {float: [1.0e-4, 1.0e-2], log: true}, global_batch_size: 8, max_steps: 3}
score: {objective: {metric: eval_loss}, record: []}
budget: {trials: 2}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """The storage, a study file, and the environment of its user."""

    store: Store
    file: Path
    env: dict[str, str]
    cache: Path

    @property
    def lock(self) -> Path:
        return self.file.parent / "lab" / "fetched.lock.json"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    needs_torch()
    store = start_store()
    model = tiny_model(tmp_path / "model", hidden=64, layers=2)
    (model / "optimizer.pt").write_bytes(b"not needed")
    store.put_folder("models/tiny", model)
    rows = "".join(json.dumps(row) + "\n" for row in topic_rows(48, 0, test=False))
    store.put("rows/train.jsonl", rows.encode())
    shutil.rmtree(model)
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / "study.yaml"
    file.write_text(STUDY)
    own = {"HPOTUNE_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    env = {**store.env(os.environ), **own}
    yield Site(store=store, file=file, env=env, cache=tmp_path / "cache")
    store.stop()


def test_study_runs_without_the_bucket(site: Site, tmp_path: Path) -> None:
    """Acceptance: fetched with keys, then trained in a namespace without a route and without keys."""
    early = hpotune("check", site.file, env=site.env)
    assert early.returncode == 2
    step = f"is not fetched; run `hpotune fetch {site.file}` on the login node"
    assert early.stderr.splitlines()[-2:] == [
        f"error: study.yaml:2: model.path: s3://lab/models/tiny {step}",
        f"error: study.yaml:4: data.path: s3://lab/rows/train.jsonl {step}",
    ]
    site.store.proxy.cuts += [500, 700]
    done = hpotune("fetch", site.file, "--yes", env=site.env)
    assert done.returncode == 0, done.stderr
    assert f"into {site.cache} (" in done.stdout
    items = {one["id"]: one for one in json.loads(site.lock.read_text())["items"]}
    assert [*items] == ["s3://lab/models/tiny", "s3://lab/rows/train.jsonl"]
    names = [one["path"] for one in items["s3://lab/models/tiny"]["files"]]
    assert "model.safetensors" in names
    assert "optimizer.pt" not in names
    assert all(len(file["sha256"]) == 64 for one in items.values() for file in one["files"])
    keys = {name: value for name, value in site.env.items() if not name.startswith("AWS_")}
    command = [sys.executable, "-m", "hpotune", "run", str(site.file), "--json"]
    ran = run_unconnected(command, keys, folder=tmp_path / "run")
    assert ran.done.returncode == 0, ran.done.stderr
    assert (ran.attempts, ran.unroutable) == ([], 0)
    results = sorted((site.file.parent / "lab" / "trials").glob("*/result.json"))
    assert [json.loads(file.read_text())["state"] for file in results] == ["finished"] * 2
    written = [
        one for folder in (tmp_path / "home", site.cache) for one in folder.rglob("*") if one.is_file()
    ]
    assert [one for one in written if SECRET.encode() in one.read_bytes()] == []


def test_objects_of_the_lock_are_kept(site: Site) -> None:
    assert hpotune("fetch", site.file, "--yes", env=site.env).returncode == 0
    before = json.loads(site.lock.read_text())["items"]
    site.store.put("rows/train.jsonl", b'{"instruction": "a", "input": "b", "output": "c"}\n' * 40)
    again = hpotune("fetch", site.file, "--yes", env=site.env)
    assert again.returncode == 0, again.stderr
    assert json.loads(site.lock.read_text())["items"] == before
    rows = Path(before[1]["folder"], "train.jsonl")
    rows.unlink()
    gone = hpotune("fetch", site.file, "--yes", env=site.env)
    assert gone.returncode == 2
    assert gone.stderr.splitlines()[1:] == [
        "error: data.path: s3://lab/rows/train.jsonl: the objects have changed since they were fetched, and the "
        "fetched files are not complete; hpotune fetch --update takes the new ones"
    ]
    assert hpotune("fetch", site.file, "--yes", "--update", env=site.env).returncode == 0
    after = json.loads(site.lock.read_text())["items"]
    assert after[0] == before[0]
    assert after[1]["commit"] != before[1]["commit"]
    assert Path(after[1]["folder"], "train.jsonl").is_file()


def test_every_mistake_is_one_line(site: Site) -> None:
    site.file.write_text(STUDY.replace("rows/train", "rows/absent"))
    key, secret = site.store.new_user()
    given = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    site.store.check_signatures()
    refused = hpotune("fetch", site.file, "--yes", env=site.env)
    assert refused.returncode == 2
    assert [line.partition(";")[0] for line in refused.stderr.splitlines() if line.startswith("error")] == [
        f"error: {name}: {site.store.url} refuses the key (InvalidAccessKeyId)"
        for name in ("model.path: s3://lab/models/tiny", "data.path: s3://lab/rows/absent.jsonl")
    ]
    absent = hpotune("fetch", site.file, "--yes", env={**site.env, **given})
    assert absent.stderr.splitlines()[1:] == [
        f"error: data.path: s3://lab/rows/absent.jsonl: {site.store.url} has no such object, and none below it; "
        "correct the address, or AWS_ENDPOINT_URL"
    ]
    assert not site.lock.exists()


def test_katib_parameters_are_fetched(site: Site) -> None:
    from hpotune.api.katib.parameter_classes import S3DatasetParams
    from tests.fixtures.katib_rows import drafted_call, fine_tuning, model

    data = S3DatasetParams(
        site.store.url,
        "lab",
        "/rows/train.jsonl",
        site.env["AWS_DEFAULT_REGION"],
        site.env["AWS_ACCESS_KEY_ID"],
        site.env["AWS_SECRET_ACCESS_KEY"],
    )
    given = fine_tuning(
        model_provider_parameters=model(model_uri="s3://lab/models/tiny"), dataset_provider_parameters=data
    )
    text = drafted_call(given, env=site.env).draft.text(title="test")
    site.file.write_text(text)
    assert SECRET not in text
    env = {
        key: value for key, value in site.env.items() if key not in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
    }
    done = hpotune("fetch", site.file, "--yes", "--json", env=env)
    assert done.returncode == 0, done.stderr
    items = json.loads(done.stdout)["lock"]["items"]
    assert [one["id"] for one in items] == ["s3://lab/models/tiny", "s3://lab/rows/train.jsonl"]
