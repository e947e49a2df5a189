"""What a job runs is what the code was when it was submitted: copies of what is reached, links to the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.objective.interface import Setting
from hpotune.objective.process import Stop
from hpotune.objective.registry import open_objective
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.workspace import code_snapshot
from hpotune.workspace.code_snapshot import Code, code_of, take
from hpotune.workspace.dependencies import reached, words
from hpotune.workspace.folder import StudyFolder

LOSS = {"objective": {"metric": "loss"}}


@pytest.fixture
def home(tmp_path) -> Path:
    """The study's home, with a program, its neighbours, and data."""
    home = tmp_path / "home"
    (home / "pack").mkdir(parents=True)
    (home / "own.py").write_text(
        "import beside\nfrom pack import part\ndef f(x=0):\n    return beside.A + part.B + x\n"
    )
    (home / "beside.py").write_text("A = 1\n")
    (home / "pack" / "__init__.py").touch()
    (home / "pack" / "part.py").write_text("B = 10\n")
    (home / "pack" / "table.csv").write_text("1000\n")
    (home / "other.py").write_text("raise SystemExit(1)\n")
    (home / "rows.jsonl").write_text("100\n")
    return home


@pytest.fixture
def folder(home) -> StudyFolder:
    """The study's folder, inside its home as it is by default."""
    folder = StudyFolder(path=home / "study")
    folder.path.mkdir()
    return folder


def taken(folder: StudyFolder, home: Path, **values: object) -> Code:
    code = take(folder, values, home=home).code  # type: ignore[arg-type]
    assert code is not None
    return code


def inside(code: Code) -> tuple[set[str], set[str]]:
    """Copies and links of a snapshot."""
    paths = [path for path in code.path.rglob("*") if not path.is_dir() or path.is_symlink()]
    names = {path: str(path.relative_to(code.path)) for path in paths if path.name != "snapshot.json"}
    return {n for p, n in names.items() if not p.is_symlink()}, {
        n for p, n in names.items() if p.is_symlink()
    }


def evaluated(code: Code, home: Path, **own: object) -> TrialResult:
    """A trial as a worker would run it, in processes."""
    params = own.pop("params", {})
    folder = home / "trial"
    folder.mkdir(exist_ok=True)
    config = StudyConfig.model_validate(
        {"name": "s", "score": LOSS, "budget": {"trials": 1}, "params": params, **own}
    )
    spec = TrialSpec.model_validate(
        {
            **own, "study": "s", "number": 1, "kind": "trial", "seed": 0, "folder": str(folder), "home": str(home),
            "point": {"score": LOSS, "params": params},
        }
    )  # fmt: skip
    with open_objective(Setting(config=config, env=os.environ, stop=Stop())) as run:
        (result,) = run([code.applied(spec)])
    assert result.state == "finished", (folder / "log.txt").read_text()
    return result


def test_what_a_program_reaches_is_copied_and_the_rest_is_linked(home, folder):
    (home / "elsewhere").mkdir(), (home / "elsewhere" / "resolved.yaml").touch()  # another study
    copies, links = inside(taken(folder, home, python=f"{home}/own.py:f"))
    assert copies == {"0/own.py", "0/beside.py", "0/pack/__init__.py", "0/pack/part.py"}
    assert links == {"0/other.py", "0/rows.jsonl", "0/pack/table.csv"}


def test_a_function_runs_as_it_was_when_it_was_taken_and_so_do_its_neighbours(home, folder):
    python = f"{home}/own.py:f"
    old = taken(folder, home, python=python)
    (home / "beside.py").write_text("A = 2\n")
    (home / "pack" / "part.py").write_text("B = 20\n")
    (home / "own.py").write_text("def f(x=0):\n    return 7\n")
    assert evaluated(old, home, python=python).values == [11.0]
    assert evaluated(taken(folder, home, python=python), home, python=python).values == [7.0]


@pytest.mark.parametrize(
    "command",
    [
        "python own.py {x}",
        "python ./own.py {x} > out.txt; cat out.txt",
        "bash -c 'python own.py {x}'",
        "python -m own {x}",
        "bash run.sh {x}",
        "python {home}/own.py {x}",
    ],
)
def test_a_command_runs_as_it_was_when_it_was_taken(command, home, folder):
    command = command.replace("python", sys.executable).replace("{home}", str(home))
    (home / "own.py").write_text("import sys, beside\nprint(beside.A + float(sys.argv[1]))\n")
    (home / "run.sh").write_text(f'{sys.executable} "$(dirname "$0")/own.py" $1\n')
    old = taken(folder, home, command=command)
    (home / "beside.py").write_text("A = 2\n")
    (home / "own.py").write_text("import sys, beside\nprint(beside.A + 10 * float(sys.argv[1]))\n")
    assert evaluated(old, home, command=command, params={"x": 3}).values == [4.0]
    new = taken(folder, home, command=command)
    assert evaluated(new, home, command=command, params={"x": 3}).values == [32.0]


def test_data_is_found_beside_the_program_and_in_the_folder_where_it_runs(home, folder):
    text = (
        "from pathlib import Path\nHERE = Path(__file__).resolve().parent\ndef f():\n"
        "    files = HERE / 'rows.jsonl', Path('rows.jsonl'), HERE / 'pack' / 'table.csv'\n"
        "    return sum(float(file.read_text()) for file in files)\n"
    )
    (home / "own.py").write_text(text)
    assert evaluated(
        taken(folder, home, python=f"{home}/own.py:f"), home, python=f"{home}/own.py:f"
    ).values == [1200.0]


def test_data_that_came_later_is_found_beside_the_program_too(home, folder):
    first = taken(folder, home, python=f"{home}/own.py:f")
    (home / "late.csv").write_text("1")
    second = taken(folder, home, python=f"{home}/own.py:f")
    assert second == first
    assert (first.path / "0" / "late.csv").read_text() == "1"


def test_the_same_code_is_not_written_twice_and_an_undone_edit_is_the_newest_again(home, folder):
    first = taken(folder, home, python=f"{home}/own.py:f")
    stamp = (first.path / "0" / "own.py").stat().st_mtime_ns
    (home / "other.py").write_text("not reached")
    assert taken(folder, home, python=f"{home}/own.py:f") == first
    (home / "beside.py").write_text("A = 3\n")
    second = taken(folder, home, python=f"{home}/own.py:f")
    assert code_of(folder) == second != first
    (home / "beside.py").write_text("A = 1\n")
    assert taken(folder, home, python=f"{home}/own.py:f") == code_of(folder) == first
    assert (first.path / "0" / "own.py").stat().st_mtime_ns == stamp


def test_a_snapshot_is_asked_for_by_name_and_one_that_is_not_there_is_named(home, folder):
    assert code_of(folder) is None
    first = taken(folder, home, python=f"{home}/own.py:f")
    (home / "beside.py").write_text("A = 3\n")
    second = taken(folder, home, python=f"{home}/own.py:f")
    assert code_of(folder, first.hash) == first
    assert code_of(folder) == second
    with pytest.raises(
        StudyFileError, match=r"--code abc: .* holds no such snapshot; it holds .*" + first.hash
    ):
        code_of(folder, "abc")


def test_a_change_of_the_code_is_told_once_trials_have_started(home, folder):
    values = {"python": f"{home}/own.py:f"}
    before = take(folder, values, home=home)
    (home / "beside.py").write_text("A = 3\n")
    assert before.notes == take(folder, values, home=home).notes == ()
    folder.trial(0).mkdir(parents=True)
    (home / "pack" / "part.py").write_text("B = 3\n")
    (note,) = take(folder, values, home=home).notes
    assert note.startswith("the code changed since the earlier trials (part.py): ")
    assert take(folder, values, home=home).notes == ()


def test_processes_that_take_it_at_once_do_no_harm(home, folder):
    code = (
        "import sys; from pathlib import Path; from hpotune.workspace.folder import StudyFolder\n"
        "from hpotune.workspace.code_snapshot import take; sys.stdin.read()\n"
        "print(take(StudyFolder(path=Path(sys.argv[2])), {'python': sys.argv[1] + '/own.py:f'}, "
        "home=Path(sys.argv[1])).code.hash)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, home, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]  # fmt: skip
    for racer in racers:  # all have imported what they need, and start together
        racer.stdin.close()
    hashes = {racer.stdout.read().strip() for racer in racers}
    assert [racer.wait(60) for racer in racers] == [0] * 4
    assert len(hashes) == 1
    assert {path.name for path in (folder.path / "code").iterdir()} == {*hashes, "newest"}


def test_a_study_without_a_program_has_no_snapshot(home, folder):
    assert take(folder, {"command": "echo {x}"}, home=home).code is None
    assert take(folder, {"model": {"path": "x"}}, home=home).code is None
    assert not (folder.path / "code").exists()


def test_code_that_is_too_large_is_refused_and_nothing_is_written(home, folder, monkeypatch):
    monkeypatch.setattr(code_snapshot, "MOST_FILES", 3)
    with pytest.raises(StudyFileError, match="too large for a snapshot"):
        take(folder, {"python": f"{home}/own.py:f"}, home=home)
    assert not (folder.path / "code").exists()


def test_a_disk_that_is_full_leaves_no_half_snapshot(home, folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copymode", full)
    with pytest.raises(HpotuneError, match=r"cannot be written \(No space left on device\)"):
        take(folder, {"python": f"{home}/own.py:f"}, home=home)
    assert list((folder.path / "code").iterdir()) == []


def test_a_program_that_is_gone_is_named(home, folder):
    with pytest.raises(StudyFileError, match=r"gone.py: is part of the study's code and cannot be read"):
        take(folder, {"python": f"{home}/gone.py:f"}, home=home)


def test_task_files_are_frozen_and_their_data_is_not(home, folder, tmp_path):
    tasks = tmp_path / "tasks"
    (tasks / "deep").mkdir(parents=True)
    for name in ("toy.yaml", "deep/more.yaml", "deep/_template", "utils.py", "deep/test.jsonl"):
        (tasks / name).write_text("old")
    score = {"objective": {"task": "toy", "metric": "acc"}, "include_path": str(tasks)}
    code = taken(folder, home, model={"path": "m"}, score=score)
    (tasks / "toy.yaml").write_text("new"), (tasks / "deep" / "test.jsonl").write_text("new")
    point = {"score": score, "params": {}}
    spec = TrialSpec.model_validate(
        {
            "study": "s",
            "number": 1,
            "kind": "trial",
            "seed": 0,
            "folder": str(home),
            "home": str(home),
            "point": point,
        }
    )
    frozen = Path(code.applied(spec).point.score.include_path)
    assert folder.path in frozen.parents
    assert [(frozen / name).read_text() for name in ("toy.yaml", "deep/test.jsonl")] == ["old", "new"]
    copies = {path for path in frozen.rglob("*") if path.is_file() and not path.is_symlink()}
    assert {path.name for path in copies} == {"toy.yaml", "more.yaml", "_template", "utils.py"}


def test_tasks_beyond_the_limit_stay_where_they_are_and_it_is_told(home, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(code_snapshot, "MOST_FILES", 1)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).touch()
    told = take(folder, {"score": {"include_path": str(tmp_path)}}, home=home)
    assert told.code is None
    assert "too large to be frozen" in told.notes[0]


def test_a_function_outside_the_home_is_frozen_with_its_neighbours(home, folder, tmp_path):
    (home / "own.py").rename(tmp_path / "far.py"), (home / "beside.py").rename(tmp_path / "beside.py")
    python = f"{tmp_path}/far.py:f"
    code = taken(folder, home, python=python)
    (tmp_path / "beside.py").write_text("A = 5\n")
    assert evaluated(code, home, python=python).values == [11.0]


def test_a_study_folder_that_moves_takes_its_code_along(home, folder, tmp_path):
    code = taken(folder, home, python=f"{home}/own.py:f")
    moved = StudyFolder(path=tmp_path / "moved")
    folder.path.rename(moved.path)
    (home / "beside.py").write_text("A = 5\n")
    assert evaluated(code_of(moved, code.hash), home, python=f"{home}/own.py:f").values == [11.0]


def test_a_command_that_changes_its_folder_is_told_to_run_as_it_is_then(home, folder):
    told = take(folder, {"command": "cd pack && python part.py {x}"}, home=home)
    assert told.code is None
    assert "programs are not frozen" in told.notes[0]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("python own.py > other.py", ["own.py"]),
        ("python own.py --out={x}/other.py", ["own.py"]),
        ("python $HERE/own.py", []),
        ("python gone.py", []),
        ("FILE=own.py python -c 'open(\"other.py\")'", ["own.py", "other.py"]),
        ("cat rows.jsonl", []),
        ("cd pack; python own.py", []),
    ],
)
def test_only_words_that_name_programs_of_the_home_are_meant(command, names, home):
    assert [file.name for _, _, file in words(command, home=home)] == names


def test_imports_are_followed_through_packages_relative_names_and_circles(home):
    (home / "own.py").write_text(
        "def f():\n    import importlib\n    importlib.import_module('late')\n    import space.inner\n"
    )
    (home / "late.py").write_text("import own, numpy, os\nfrom pack import *\n")
    (home / "space").mkdir()
    (home / "space" / "inner.py").write_text("from . import sister\nfrom .sister import x\n")
    (home / "space" / "sister.py").write_text("this is no python\n")
    (home / "space" / "stranger.py").touch()
    names = {str(path.relative_to(home)) for path in reached([home / "own.py"], home=home)}
    assert names == {
        "own.py",
        "late.py",
        "pack/__init__.py",
        "pack/part.py",
        "space/inner.py",
        "space/sister.py",
    }


def test_studies_inside_a_package_are_no_part_of_it(home):
    (home / "pack" / "study" / "code").mkdir(parents=True)
    (home / "pack" / "study" / "resolved.yaml").touch()
    (home / "pack" / "study" / "code" / "copy.py").touch()
    assert home / "pack" / "study" / "code" / "copy.py" not in set(reached([home / "own.py"], home=home))
