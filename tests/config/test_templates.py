"""`hpotune init` writes all files of a template, or none."""

from __future__ import annotations

import py_compile
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpotune.config import templates
from hpotune.config.templates import copy_template, list_templates
from hpotune.errors import StudyFileError

NAMES = [name for name, _ in list_templates()]
WITH_CODE = {
    "function": "objective.py",
    "command": "train.py",
    **{
        name: f"train_{name}.py"
        for name in ("accelerate", "axolotl", "hydra", "litgpt", "transformers", "trl")
    },
}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The templates as pip installs them: compiled, so that a __pycache__ lies beside each program."""
    folder = tmp_path / "installed" / "templates"
    shutil.copytree(templates.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for program in folder.rglob("*.py"):
        py_compile.compile(str(program), doraise=True)
    assert (folder / "function" / "__pycache__").is_dir()
    monkeypatch.setattr(templates, "FOLDER", folder)
    return folder


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A write beyond `size` bytes fails in this process, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", NAMES)
def test_template_is_copied_without_pycache(name: str, compiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "here"
    out.mkdir()
    assert copy_template(name, out / "lab.yaml") == out / "lab.yaml"
    expected = {"lab.yaml": (compiled / f"{name}.yaml").read_bytes()}
    if name in WITH_CODE:
        expected[WITH_CODE[name]] = (compiled / name / WITH_CODE[name]).read_bytes()
    assert content(out) == expected


def test_existing_study_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("mine")
    with pytest.raises(StudyFileError, match=r"lab\.yaml: exists already; choose another name with --out"):
        copy_template("function", tmp_path / "lab.yaml")
    assert content(tmp_path) == {"lab.yaml": b"mine"}


@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_different_template_file_is_refused(kind: str, tmp_path: Path) -> None:
    own = tmp_path / "objective.py"
    {
        "file": lambda: own.write_text("mine"),
        "folder": own.mkdir,
        "broken link": lambda: own.symlink_to("nowhere"),
    }[kind]()
    with pytest.raises(StudyFileError, match=r"objective\.py: exists already and differs .* lab\.yaml needs"):
        copy_template("function", tmp_path / "lab.yaml")
    assert list(tmp_path.iterdir()) == [own]
    assert kind != "file" or own.read_text() == "mine"


def test_second_study_shares_objective(tmp_path: Path) -> None:
    copy_template("function", tmp_path / "one.yaml")
    copy_template("function", tmp_path / "two.yaml")
    assert content(tmp_path).keys() == {"one.yaml", "two.yaml", "objective.py"}


def test_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    sizes = [(templates.FOLDER / path).stat().st_size for path in ("function/objective.py", "function.yaml")]
    assert sizes[0] < sizes[1]  # the objective, which comes first, fits; the study file does not
    with files_of_at_most(sum(sizes) // 2):
        with pytest.raises(StudyFileError, match=r"lab\.yaml: cannot be written \(File too large\)"):
            copy_template("function", tmp_path / "lab.yaml")
    assert content(tmp_path) == {}
    copy_template("function", tmp_path / "lab.yaml")
    assert content(tmp_path).keys() == {"lab.yaml", "objective.py"}


def test_failed_copy_keeps_existing_files(tmp_path: Path) -> None:
    copy_template("function", tmp_path / "one.yaml")
    before = content(tmp_path)
    with files_of_at_most(10):
        with pytest.raises(StudyFileError, match="cannot be written"):
            copy_template("function", tmp_path / "two.yaml")
    assert content(tmp_path) == before


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="cannot be written .* choose another folder with --out"):
        copy_template("function", tmp_path / "no" / "lab.yaml")
    with pytest.raises(StudyFileError, match="'funktion' is unknown; did you mean 'function'"):
        copy_template("funktion", tmp_path / "lab.yaml")
    assert content(tmp_path) == {}
