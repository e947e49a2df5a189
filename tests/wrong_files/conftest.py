"""A folder with the files that the study files name, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpotune.cli import main
from tests.fixtures.wrong_studies import Call, Row, edit, marked


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the valid study files name."""
    monkeypatch.setenv("HPOTUNE_CACHE", str(cache))
    monkeypatch.delenv("HPOTUNE_DEBUG", raising=False)
    monkeypatch.delenv("HPOTUNE_DATA_ROOT", raising=False)
    row = '{"instruction": "a", "input": "", "output": "b"}\n'
    files = {
        "rows.jsonl": row,
        "broken.jsonl": "instruction,output\n",
        "broken.json": "[1, 2]",
        "empty.csv": "",
        "other.csv": "instruction,outputs\n",
        "near.json": '[{"instruction": "a", "answer": "b"}]',
        "notes.txt": "no Python\n",
        "own.py": "def bowl(x, layers):\n    return x\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.fixture
def hpotune(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command line in this process and returns its exit code and its lines on stderr."""

    def call(*words: object) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["hpotune", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert printed.out == "" or stop.value.code == 0
        return int(stop.value.code or 0), printed.err.splitlines()

    return call


@pytest.fixture
def refused(folder: Path, hpotune: Call) -> Callable[..., str]:
    """Runs a verb that must fail with one line and leave no study; returns the line."""

    def call(verb: str, *words: object, code: int) -> str:
        before = sorted(folder.rglob("*"))
        got, lines = hpotune(verb, *words)
        assert (got, len(lines)) == (code, 1), lines
        assert lines[0].startswith("error: ")
        assert "Traceback" not in lines[0]
        assert "bug in hpotune" not in lines[0]
        assert sorted(folder.rglob("*")) == before
        return lines[0].removeprefix("error: ")

    return call


@pytest.fixture
def check_row(folder: Path, refused: Callable[..., str]) -> Callable[[str, Row], None]:
    """Edits a valid study file and checks that the one error names the line and the rule."""

    def check(base: str, row: Row) -> None:
        text = edit(edit(base, *row.also) if row.also else base, row.where, row.new)
        (folder / "study.yaml").write_text(text, encoding="utf-8")
        error = refused("check", folder / "study.yaml", code=2)
        first = row.new.splitlines()[0]
        indented = [line for line in text.splitlines() if line.strip() == first.strip()]
        assert error.startswith(f"study.yaml:{marked(text, indented[0] if indented else '')}: "), error
        assert row.says in error

    return check
