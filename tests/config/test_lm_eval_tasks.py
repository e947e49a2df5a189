"""The index of lm-eval's tasks, against lm-eval's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpotune.config import lm_eval_tasks
from hpotune.config.lm_eval_tasks import TaskIndex, overlap, task_index, unreadable_files

OWN = {
    "one.yaml": "task: own_one\ntag: [own_tag]\ndataset_path: json\n",
    "two.yaml": '"task": "own_two"  # quoted, with a remark\n"include": "template"\n',
    "template": "tag: own_tag\nprocess_docs: !function utils.process\n",
    "group.yaml": """\
group: own_group
task:
  - own_one
  - {group: own_inner, task: [own_two, {task: own_inline, dataset_path: json}]}
  - mmlu_anatomy
""",
    "broken.yaml": "task: [\n",
    "braces.yaml": "# made by a program\n{task: own_braces, dataset_path: json}\n",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def index(cache: Path) -> TaskIndex:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    found = task_index(cache=cache)
    assert found is not None
    return found


@pytest.fixture
def own(tmp_path: Path) -> str:
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    return str(tmp_path)


def test_mmlu_has_57_tasks(index: TaskIndex) -> None:
    assert len(index.leaves("mmlu")) == 57
    assert index.leaves("mmlu_stem") < index.leaves("mmlu")


def test_single_task_has_no_members(index: TaskIndex) -> None:
    assert index.leaves("hellaswag") == {"hellaswag"}


def test_a_tag_gathers_its_tasks(index: TaskIndex) -> None:
    assert index.leaves("ai2_arc") == {"arc_easy", "arc_challenge"}


def test_index_matches_lm_eval(index: TaskIndex) -> None:
    from lm_eval.tasks import TaskManager

    theirs = TaskManager().task_index
    assert set(index.entries) == set(theirs)
    for name, entry in theirs.items():
        folder = index.entries[name].folder
        assert folder == (str(entry.yaml_path.parent) if entry.yaml_path else None), name


def test_folders_suffice_for_nested_group(index: TaskIndex) -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False, include_path=[str(f) for f in index.folders(["mmlu"])])
    assert index.leaves("mmlu") <= set(manager.all_subtasks)
    assert {"mmlu", "mmlu_stem", "mmlu_stem_tasks"} <= set(manager.all_tasks)


def test_the_second_look_reads_the_cache(
    index: TaskIndex, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_eval_tasks, "_scan", lambda root: pytest.fail("scanned again"))
    assert task_index(cache=cache) == index


def test_unwritable_cache_is_ignored(tmp_path: Path, index: TaskIndex) -> None:
    (tmp_path / "file").write_text("")
    assert task_index(cache=tmp_path / "file") == index


def test_own_tasks_and_groups_are_found(own: str, index: TaskIndex, cache: Path) -> None:
    mine = task_index(own, cache=cache)
    assert mine is not None
    inline = "own_group::own_inner::own_inline"
    assert mine.leaves("own_group") == {"own_one", "own_two", inline, "mmlu_anatomy"}
    assert mine.leaves("own_tag") == {"own_one", "own_two"}
    assert Path(own) in mine.folders(["own_group"])
    assert len(mine.folders(["own_group"])) == 2


def test_task_file_in_braces_is_found(own: str, index: TaskIndex, cache: Path) -> None:
    mine = task_index(own, cache=cache)
    assert mine is not None
    assert mine.leaves("own_braces") == {"own_braces"}


def test_broken_task_file_is_named(own: str) -> None:
    (found,) = unreadable_files(own)
    assert found.startswith(f"{own}/broken.yaml: line 2: ")
    assert unreadable_files(None) == []


def test_own_task_overrides_stock_task(index: TaskIndex, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "hellaswag.yaml").write_text("task: hellaswag\n")
    mine = task_index(str(tmp_path), cache=cache)
    assert mine is not None
    assert mine.folders(["hellaswag"]) == [tmp_path]


def test_misspelt_task_gets_a_suggestion(index: TaskIndex) -> None:
    assert not index.exists("helaswag")
    assert "hellaswag" in index.nearest("helaswag")


def test_sealed_group_overlaps_its_tasks(index: TaskIndex) -> None:
    assert "mmlu_anatomy" in overlap(["mmlu"], ["mmlu_anatomy"], index=index)[0]
    assert "19 tasks" in overlap(["mmlu_stem"], ["mmlu"], index=index)[0]
    assert overlap(["mmlu"], ["hellaswag"], index=index) == []


def test_equal_names_overlap_without_index() -> None:
    assert len(overlap(["mmlu", "piqa"], ["mmlu"], index=None)) == 1


def test_no_index_without_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval_tasks.importlib.util, "find_spec", lambda name: None)
    assert task_index() is None


def test_index_imports_no_heavy_library(cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hpotune.config.lm_eval_tasks import task_index;"
        f"task_index(cache=Path({str(cache)!r}));"
        "sys.exit(any(name in sys.modules for name in ('lm_eval', 'torch', 'datasets', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
