"""`hpotune bundle`: a study is packed, unpacked elsewhere without its original, and run without any network."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpotune.config.yaml_source import read_source
from tests.conftest import needs_torch
from tests.fixtures.hub_study import Site, hpotune, make_site, run_unconnected
from tests.fixtures.trained_study import STUDY, write_study

NOWHERE = "http://127.0.0.1:9"


def values_of(folder: Path) -> list[object]:
    """The values of the trials of a study, in the order of their numbers."""
    results = sorted((folder / "trials").glob("*/result.json"))
    return [json.loads(file.read_text())["values"] for file in results]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundled:
    """A study of hub files that was fetched, run offline and bundled, and whose original is hidden."""

    site: Site
    tar: Path
    said: str
    values: list[object]
    hidden: Path
    """Its home and its cache."""


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    needs_torch()
    folder = tmp_path_factory.mktemp("bundled")
    site = make_site(folder)
    env = site.env(folder / "hf")
    early = hpotune("bundle", site.file, "-o", folder / "early.tar", env=env)
    assert early.stderr == (
        f"error: acme/tiny, acme/topics, acme/exam: not fetched; run `hpotune fetch {site.file}` first\n"
    )
    assert hpotune("fetch", site.file, "--yes", env=env).returncode == 0
    site.hub.stop()
    away = site.env(folder / "hf", url=NOWHERE)
    packed = hpotune("bundle", site.file, "-o", folder / "lab.tar", env=away)
    assert packed.returncode == 0, packed.stderr
    ran = hpotune("run", site.file, "--json", env=away)
    assert ran.returncode == 0, ran.stderr
    values = values_of(site.file.parent / "lab")
    (folder / "hidden").mkdir()
    for name in ("home", "hf", "model", "topics", "exam"):
        (folder / name).rename(folder / "hidden" / name)
    return Bundled(
        site=site, tar=folder / "lab.tar", said=packed.stdout, values=values, hidden=folder / "hidden"
    )


def test_bundle_runs_without_its_original(bundled: Bundled, tmp_path: Path) -> None:
    """The same values, in a namespace without a route, with an empty cache and another home."""
    env = bundled.site.env(tmp_path / "empty", url=NOWHERE)
    unpacked = hpotune("bundle", "--unpack", bundled.tar, tmp_path / "there", env=env)
    assert unpacked.returncode == 0, unpacked.stderr
    file = tmp_path / "there" / "study.yaml"
    assert unpacked.stdout.splitlines()[-1] == f"next: hpotune check {file}"
    command = [sys.executable, "-m", "hpotune", "run", str(file), "--json"]
    ran = run_unconnected(command, env, folder=tmp_path / "watch")
    assert ran.done.returncode == 0, ran.done.stderr
    assert (ran.attempts, ran.unroutable) == ([], 0)
    assert values_of(tmp_path / "there" / "lab") == bundled.values
    assert len(bundled.values) == 3
    spec = json.loads((tmp_path / "there/lab/trials/1/spec.json").read_text())
    assert spec["point"]["model"]["path"] == "acme/tiny"
    assert spec["point"]["model"]["revision"] == bundled.site.commits["model"]


def test_size_is_said_before(bundled: Bundled) -> None:
    first, *_, packed, step = bundled.said.splitlines()
    assert first.startswith("to pack: ")
    assert first.endswith(" free)")
    assert packed.startswith("packed ")
    assert step.endswith("hpotune bundle --unpack lab.tar")


def test_damaged_fetched_file_is_not_packed(bundled: Bundled, tmp_path: Path) -> None:
    home, cache = tmp_path / "home", tmp_path / "hf"
    shutil.copytree(bundled.hidden / "home", home, ignore=shutil.ignore_patterns("lab"))
    (home / "lab").mkdir()
    shutil.copy(bundled.hidden / "home/lab/fetched.lock.json", home / "lab")
    shutil.copytree(bundled.hidden / "hf", cache, symlinks=True)
    weights = next(cache.glob("hub/models--acme--tiny/snapshots/*/model.safetensors")).resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    env = bundled.site.env(cache, url=NOWHERE)
    done = hpotune("bundle", home / "study.yaml", "-o", tmp_path / "lab.tar", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run hpotune fetch again")
    assert "model.safetensors: is damaged: its SHA-256 is " in done.stderr
    assert [one.name for one in tmp_path.glob("*.tar*")] == []
    assert [one.name for one in tmp_path.glob(".*.tar*")] == []


def test_local_study_gets_relative_paths(trained_study: Path, tmp_path: Path) -> None:
    """Model, rows and tasks beside the study file; a task file with absolute paths; values as of the original."""
    env = {**Site(hub=None, url="", file=trained_study, commits={}).env(tmp_path / "hf", url=NOWHERE)}
    home = tmp_path / "home"
    write_study(home, STUDY)
    (tmp_path / "elsewhere").mkdir()
    (home / "model").rename(tmp_path / "elsewhere" / "model")
    (home / "task/train.jsonl").rename(tmp_path / "elsewhere/train.jsonl")
    for task in (home / "task").glob("*.yaml"):
        moved = task.read_text().replace(f"{home}/task/train.jsonl", f"{tmp_path}/elsewhere/train.jsonl")
        task.write_text(moved)
    text = STUDY.replace("path: model", f"path: {tmp_path}/elsewhere/model")
    text = text.replace("path: task/train.jsonl", "path: ../elsewhere/train.jsonl")
    (home / "study.yaml").write_text(f"{text}env: {{venv: {sys.prefix}}}\nresources: {{partition: a100}}\n")
    packed = hpotune("bundle", home / "study.yaml", "-o", tmp_path / "small.tar", env=env)
    assert packed.returncode == 0, packed.stderr
    assert packed.stderr.splitlines()[-2:] == [
        f"note: env.venv: was {sys.prefix}; it is auto now, the environment of hpotune there",
        "note: resources: partition: as on the cluster where the bundle was made",
    ]
    for name in ("home", "elsewhere"):
        (tmp_path / name).rename(tmp_path / f"hidden-{name}")
    unpacked = hpotune("bundle", "--unpack", tmp_path / "small.tar", tmp_path / "there", "--json", env=env)
    assert unpacked.returncode == 0, unpacked.stderr
    file = Path(json.loads(unpacked.stdout)["study"])
    values = read_source(file).values
    assert values["model"] == {"path": "hpotune-bundle/outside/0/model"}
    assert values["data"]["path"] == "hpotune-bundle/outside/1/train.jsonl"
    names = [one for one in file.parent.rglob("*.y*ml") if "original" not in one.name]
    assert all(str(tmp_path) not in one.read_text() for one in names)
    ran = hpotune("run", file, "--json", env=env)
    assert ran.returncode == 0, ran.stderr
    assert values_of(file.parent / "small") == values_of(trained_study.parent / "small")


def test_command_takes_its_files(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "own.py").write_text("import helper\nprint('{\"v\": %f}' % helper.value())\n")
    (home / "helper.py").write_text("def value():\n    return float(open('data/n.txt').read())\n")
    (home / "data/n.txt").write_text("2.625")
    (home / "unused.txt").write_text("not needed")
    (home / "study.yaml").write_text(
        "name: own\ncommand: python own.py --x {x}\nparams: {x: {float: [0, 1]}}\n"
        "score: {objective: {metric: v, direction: minimize}}\nbudget: {trials: 1}\n"
    )
    env = Site(hub=None, url="", file=home, commits={}).env(tmp_path / "hf")
    done = hpotune("bundle", home / "study.yaml", "-o", tmp_path / "own.tar", "--add", home / "data", env=env)
    assert done.returncode == 0, done.stderr
    home.rename(tmp_path / "hidden")
    assert hpotune("bundle", "--unpack", tmp_path / "own.tar", tmp_path / "there", env=env).returncode == 0
    found = {str(one.relative_to(tmp_path / "there")) for one in (tmp_path / "there").rglob("*.*")}
    assert found == {
        "study.yaml", "own.py", "helper.py", "data/n.txt",
        "hpotune-bundle/original.yaml", "hpotune-bundle/manifest.json",
    }  # fmt: skip
    ran = hpotune("run", tmp_path / "there/study.yaml", "--json", env=env)
    assert ran.returncode == 0, ran.stderr
    assert "2.625" in ran.stdout


def test_objects_of_s3_are_found_again(tmp_path: Path) -> None:
    """The lock file of a fetched model in S3 names the folder of the unpacked bundle."""
    home, cache = tmp_path / "home", tmp_path / "objects"
    write_study(home, STUDY.replace("path: model", "path: s3://bucket/model"))
    (home / "model").rename(cache)
    files = [{"path": one.name, "size": one.stat().st_size} for one in sorted(cache.iterdir())]
    item = {"kind": "s3", "id": "s3://bucket/model", "commit": "c" * 64, "folder": str(cache)}
    item |= {"files": files, "keys": ["model.path"]}
    lock = {"fetched": "2026-01-01", "items": [item], "tasks": ["toy_topics", "exam"]}
    (home / "small").mkdir()
    (home / "small/fetched.lock.json").write_text(json.dumps(lock))
    env = Site(hub=None, url="", file=home, commits={}).env(tmp_path / "hf", url=NOWHERE)
    done = hpotune("bundle", home / "study.yaml", "-o", tmp_path / "s.tar", env=env)
    assert done.returncode == 0, done.stderr
    cache.rename(tmp_path / "hidden")
    assert hpotune("bundle", "--unpack", tmp_path / "s.tar", tmp_path / "there", env=env).returncode == 0
    [found] = json.loads((tmp_path / "there/small/fetched.lock.json").read_text())["items"]
    assert found["folder"] == str(tmp_path / "there/hpotune-bundle/s3" / ("c" * 64))
    assert {one.name for one in Path(found["folder"]).iterdir()} == {one["path"] for one in files}
    checked = hpotune("check", tmp_path / "there/study.yaml", "--static", env=env)
    assert checked.returncode == 0, checked.stderr
