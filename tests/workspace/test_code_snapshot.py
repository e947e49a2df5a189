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
from hpotune.records.trial import TrialResult, TrialSpec
from hpotune.worker.objective import open_objective
from hpotune.worker.objective.interface import TrialContext
from hpotune.worker.objective.process import StopRequest
from hpotune.workspace import code_snapshot
from hpotune.workspace.code_snapshot import CodeSnapshot, find_snapshot, snapshot_code
from hpotune.workspace.folder import StudyFolder

LOSS = {"objective": {"metric": "loss"}}


@pytest.fixture
def folder(home) -> StudyFolder:
    """The study's folder, inside its home as it is by default."""
    folder = StudyFolder(path=home / "study")
    folder.path.mkdir()
    return folder


def make_snapshot(folder: StudyFolder, home: Path, **values: object) -> CodeSnapshot:
    code = snapshot_code(folder, values, home=home).code  # type: ignore[arg-type]
    assert code is not None
    return code


def copies_and_links(code: CodeSnapshot) -> tuple[set[str], set[str]]:
    """Copies and links of a snapshot."""
    paths = [path for path in code.path.rglob("*") if not path.is_dir() or path.is_symlink()]
    names = {path: str(path.relative_to(code.path)) for path in paths if path.name != "snapshot.json"}
    return {n for p, n in names.items() if not p.is_symlink()}, {
        n for p, n in names.items() if p.is_symlink()
    }


def evaluated(code: CodeSnapshot, home: Path, **own: object) -> TrialResult:
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
    with open_objective(TrialContext(config=config, env=os.environ, stop=StopRequest())) as run:
        (result,) = run([code.apply(spec)])
    assert result.state == "finished", (folder / "log.txt").read_text()
    return result


def test_imports_are_copied_rest_linked(home, folder):
    (home / "elsewhere").mkdir(), (home / "elsewhere" / "resolved.yaml").touch()  # another study
    copies, links = copies_and_links(make_snapshot(folder, home, python=f"{home}/own.py:f"))
    assert copies == {"0/own.py", "0/beside.py", "0/pack/__init__.py", "0/pack/part.py"}
    assert links == {"0/other.py", "0/rows.jsonl", "0/pack/table.csv"}


def test_function_runs_from_snapshot(home, folder):
    python = f"{home}/own.py:f"
    old = make_snapshot(folder, home, python=python)
    (home / "beside.py").write_text("A = 2\n")
    (home / "pack" / "part.py").write_text("B = 20\n")
    (home / "own.py").write_text("def f(x=0):\n    return 7\n")
    assert evaluated(old, home, python=python).values == [11.0]
    assert evaluated(make_snapshot(folder, home, python=python), home, python=python).values == [7.0]


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
def test_command_runs_from_snapshot(command, home, folder):
    command = command.replace("python", sys.executable).replace("{home}", str(home))
    (home / "own.py").write_text("import sys, beside\nprint(beside.A + float(sys.argv[1]))\n")
    (home / "run.sh").write_text(f'{sys.executable} "$(dirname "$0")/own.py" $1\n')
    old = make_snapshot(folder, home, command=command)
    (home / "beside.py").write_text("A = 2\n")
    (home / "own.py").write_text("import sys, beside\nprint(beside.A + 10 * float(sys.argv[1]))\n")
    assert evaluated(old, home, command=command, params={"x": 3}).values == [4.0]
    new = make_snapshot(folder, home, command=command)
    assert evaluated(new, home, command=command, params={"x": 3}).values == [32.0]


def test_data_is_found_beside_program(home, folder):
    text = (
        "from pathlib import Path\nHERE = Path(__file__).resolve().parent\ndef f():\n"
        "    files = HERE / 'rows.jsonl', Path('rows.jsonl'), HERE / 'pack' / 'table.csv'\n"
        "    return sum(float(file.read_text()) for file in files)\n"
    )
    (home / "own.py").write_text(text)
    assert evaluated(
        make_snapshot(folder, home, python=f"{home}/own.py:f"), home, python=f"{home}/own.py:f"
    ).values == [1200.0]


def test_later_data_is_found(home, folder):
    first = make_snapshot(folder, home, python=f"{home}/own.py:f")
    (home / "late.csv").write_text("1")
    second = make_snapshot(folder, home, python=f"{home}/own.py:f")
    assert second == first
    assert (first.path / "0" / "late.csv").read_text() == "1"


def test_same_code_is_written_once(home, folder):
    first = make_snapshot(folder, home, python=f"{home}/own.py:f")
    stamp = (first.path / "0" / "own.py").stat().st_mtime_ns
    (home / "other.py").write_text("not reached")
    assert make_snapshot(folder, home, python=f"{home}/own.py:f") == first
    (home / "beside.py").write_text("A = 3\n")
    second = make_snapshot(folder, home, python=f"{home}/own.py:f")
    assert find_snapshot(folder) == second != first
    (home / "beside.py").write_text("A = 1\n")
    assert make_snapshot(folder, home, python=f"{home}/own.py:f") == find_snapshot(folder) == first
    assert (first.path / "0" / "own.py").stat().st_mtime_ns == stamp


def test_snapshot_is_found_by_hash(home, folder):
    assert find_snapshot(folder) is None
    first = make_snapshot(folder, home, python=f"{home}/own.py:f")
    (home / "beside.py").write_text("A = 3\n")
    second = make_snapshot(folder, home, python=f"{home}/own.py:f")
    assert find_snapshot(folder, first.hash) == first
    assert find_snapshot(folder) == second
    with pytest.raises(
        StudyFileError, match=r"--code abc: .* holds no such snapshot; it holds .*" + first.hash
    ):
        find_snapshot(folder, "abc")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"roots": {}}', "\0"])
def test_damaged_snapshot_is_named(home, folder, content):
    """By its hash, and as the newest: running the code as it is now would not be what was submitted."""
    code = make_snapshot(folder, home, python=f"{home}/own.py:f")
    (code.path / "snapshot.json").write_text(content)
    for name in (code.hash, None):
        with pytest.raises(
            StudyFileError, match=r"snapshot.json: is damaged, .* restore it, or move the folder"
        ):
            find_snapshot(folder, name)


def test_changed_code_is_reported(home, folder):
    values = {"python": f"{home}/own.py:f"}
    before = snapshot_code(folder, values, home=home)
    (home / "beside.py").write_text("A = 3\n")
    assert before.notes == snapshot_code(folder, values, home=home).notes == ()
    folder.trial(0).mkdir(parents=True)
    (home / "pack" / "part.py").write_text("B = 3\n")
    (note,) = snapshot_code(folder, values, home=home).notes
    assert note.startswith("the code changed since the earlier trials (part.py): ")
    assert snapshot_code(folder, values, home=home).notes == ()


def test_two_processes_may_write_it(home, folder):
    code = (
        "import sys; from pathlib import Path; from hpotune.workspace.folder import StudyFolder\n"
        "from hpotune.workspace.code_snapshot import snapshot_code; sys.stdin.read()\n"
        "print(snapshot_code(StudyFolder(path=Path(sys.argv[2])), {'python': sys.argv[1] + '/own.py:f'}, "
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


def test_no_program_means_no_snapshot(home, folder):
    assert snapshot_code(folder, {"command": "echo {x}"}, home=home).code is None
    assert snapshot_code(folder, {"model": {"path": "x"}}, home=home).code is None
    assert not (folder.path / "code").exists()


def test_too_large_code_is_refused(home, folder, monkeypatch):
    monkeypatch.setattr(code_snapshot, "MAX_FILES", 3)
    with pytest.raises(StudyFileError, match="too large for a code snapshot"):
        snapshot_code(folder, {"python": f"{home}/own.py:f"}, home=home)
    assert not (folder.path / "code").exists()


def test_full_disk_leaves_no_snapshot(home, folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copymode", full)
    with pytest.raises(HpotuneError, match=r"cannot be written \(No space left on device\)"):
        snapshot_code(folder, {"python": f"{home}/own.py:f"}, home=home)
    assert list((folder.path / "code").iterdir()) == []


def test_missing_program_is_reported(home, folder):
    with pytest.raises(StudyFileError, match=r"gone.py: is part of the study's code and cannot be read"):
        snapshot_code(folder, {"python": f"{home}/gone.py:f"}, home=home)


def test_task_files_are_copied(home, folder, tmp_path):
    tasks = tmp_path / "tasks"
    (tasks / "deep").mkdir(parents=True)
    for name in ("toy.yaml", "deep/more.yaml", "deep/_template", "utils.py", "deep/test.jsonl"):
        (tasks / name).write_text("old")
    score = {"objective": {"task": "toy", "metric": "acc"}, "include_path": str(tasks)}
    code = make_snapshot(folder, home, model={"path": "m"}, score=score)
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
    frozen = Path(code.apply(spec).point.score.include_path)
    assert folder.path in frozen.parents
    assert [(frozen / name).read_text() for name in ("toy.yaml", "deep/test.jsonl")] == ["old", "new"]
    copies = {path for path in frozen.rglob("*") if path.is_file() and not path.is_symlink()}
    assert {path.name for path in copies} == {"toy.yaml", "more.yaml", "_template", "utils.py"}


def test_too_large_tasks_are_reported(home, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(code_snapshot, "MAX_FILES", 1)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).touch()
    result = snapshot_code(folder, {"score": {"include_path": str(tmp_path)}}, home=home)
    assert result.code is None
    assert "too large for the code snapshot" in result.notes[0]


def test_function_outside_home_is_copied(home, folder, tmp_path):
    (home / "own.py").rename(tmp_path / "far.py"), (home / "beside.py").rename(tmp_path / "beside.py")
    python = f"{tmp_path}/far.py:f"
    code = make_snapshot(folder, home, python=python)
    (tmp_path / "beside.py").write_text("A = 5\n")
    assert evaluated(code, home, python=python).values == [11.0]


def test_snapshot_moves_with_folder(home, folder, tmp_path):
    code = make_snapshot(folder, home, python=f"{home}/own.py:f")
    moved = StudyFolder(path=tmp_path / "moved")
    folder.path.rename(moved.path)
    (home / "beside.py").write_text("A = 5\n")
    assert evaluated(find_snapshot(moved, code.hash), home, python=f"{home}/own.py:f").values == [11.0]


def test_command_with_cd_is_reported(home, folder):
    result = snapshot_code(folder, {"command": "cd pack && python part.py {x}"}, home=home)
    assert result.code is None
    assert "programs are not part of the code snapshot" in result.notes[0]
