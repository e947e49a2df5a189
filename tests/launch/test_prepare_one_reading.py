"""A command reads and parses the study file once: counted where the operating system is asked, and in the parser."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpotune.checks.study_file import check
from hpotune.cli import app
from hpotune.config import yaml_source
from hpotune.launch.prepare import prepare
from hpotune.workspace.folder import StudyFolder

WATCHED: list[Path] = []
OPENED: list[Path] = []


def _count(event: str, args: tuple[object, ...]) -> None:
    if event == "open" and WATCHED and isinstance(args[0], (str, Path)) and Path(args[0]) in WATCHED:
        OPENED.append(Path(args[0]))


sys.addaudithook(_count)


@pytest.fixture
def file(make_study, monkeypatch) -> Iterator[Path]:
    """A valid study file whose readings are counted."""
    path: Path = make_study().source.path
    OPENED.clear()
    WATCHED.append(path)
    yield path
    WATCHED.clear()


@pytest.fixture
def parsed(monkeypatch) -> list[Path]:
    """The path of each YAML text that was parsed."""
    paths: list[Path] = []
    parse: Callable[..., yaml_source.Source] = yaml_source.parse_source

    def counted(text: str, *, path: Path) -> yaml_source.Source:
        paths.append(path)
        return parse(text, path=path)

    monkeypatch.setattr(yaml_source, "parse_source", counted)
    return paths


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_command_reads_file_once(command, file, parsed):
    result = CliRunner().invoke(app, [command, str(file)])
    assert result.exit_code == 0, result.output
    assert [file] == OPENED
    assert parsed.count(file) == 1


def test_submit_reads_file_once(file, parsed):
    """Up to the point at which jobs are submitted: `submit` prepares the study, and refuses without Slurm."""

    class Refused(Exception):
        pass

    def refuse(*_: object) -> None:
        raise Refused

    with pytest.raises(Refused):
        prepare(file, chosen=None, data_root=None, accept=refuse)
    assert [file] == OPENED
    prepare(file, chosen=None, data_root=None)
    assert [file, file] == OPENED
    assert parsed.count(file) == 2


def test_prepared_study_is_parsed_twice_only(file, parsed):
    """A second `run FILE` reads the file once; resolved.yaml is read for the comparison with it."""
    folder = prepare(file, chosen=None, data_root=None).folder
    OPENED.clear()
    parsed.clear()
    prepare(file, chosen=None, data_root=None)
    assert [file] == OPENED
    assert set(parsed) == {file, folder.resolved_file}


def test_study_folder_reads_each_file_once(file, parsed):
    folder: StudyFolder = prepare(file, chosen=None, data_root=None).folder
    parsed.clear()
    prepare(folder.path, chosen=None, data_root=None)
    assert sorted(parsed) == sorted([folder.resolved_file, folder.study_file])


def test_check_of_folder_reads_it_once(file, parsed):
    folder = prepare(file, chosen=None, data_root=None).folder
    parsed.clear()
    assert check(folder.path).folder == folder
    assert set(parsed) == {folder.resolved_file}
