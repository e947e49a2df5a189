"""The sealed test by the command line: nothing of it can be read before `test`, and nothing uses it afterwards."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from hpotune.exchange.trackers.tracked_study import TrackedRun, tracked_study
from hpotune.storage.readers.read_only import rows_of
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.trained_study import MARK, SUBJECTS, copy_of, hpotune


@pytest.fixture(scope="module")
def opened(trained_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a copy of the study, of which the sealed test was opened once."""
    folder = copy_of(trained_study, tmp_path_factory.mktemp("opened"))
    done = hpotune("test", folder)
    assert done.returncode == 0, done.stderr
    assert "sealed test of exam, opening 1: 3 of 3 scored" in done.stdout
    return folder


def contents(file: Path) -> bytes:
    """The bytes of a file; of an archive those of its members, by their names."""
    data = file.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return b"".join(name.encode() + archive.read(name) for name in archive.namelist())


def test_sealed_items_are_nowhere_before(trained_study: Path, tmp_path: Path) -> None:
    """Neither a text of an item nor a name under which a number would be stored, in any file or output."""
    folder, out = copy_of(trained_study, tmp_path), tmp_path / "out"
    secret = [MARK.encode(), *(f"{name}/".encode() for name in ("exam", *SUBJECTS))]
    out.mkdir()
    for verb, *words in (
        ["status", "--json"],
        ["trials", "--json"],
        ["best", "--json"],
        ["why", "1"],
        ["provenance", "--json"],
        ["report"],
        *(["report", "-o", f"{out}/report.{ending}"] for ending in ("json", "csv", "md")),
        ["export", out / "adapter"],
        ["export", out / "script", "--as", "script"],
    ):
        done = hpotune(verb, folder, *words)
        assert done.returncode == 0, done.stderr
        assert not any(one.decode() in done.stdout + done.stderr for one in secret), verb
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    code = [path for path in files if path.is_relative_to(folder / "code")]
    found = [path for path in files if path not in code and any(one in contents(path) for one in secret)]
    assert found == []
    seen = {path.name for path in files if b"toy_topics/acc" in contents(path)}
    assert seen >= {"store.db", "report.html", "report.csv"}, "the search can find something"


def test_report_shows_the_opening(opened: Path, tmp_path: Path) -> None:
    """The page draws the differences, and the scores beside the objective, of an opening that was really made."""
    file = tmp_path / "report.html"
    done = hpotune("report", opened, "-o", file)
    assert done.returncode == 0, done.stderr
    page = file.read_text(encoding="utf-8")
    result = json.loads(hpotune("test", opened, "--json").stdout)
    assert 'id="sealed-test-0"' in page
    for one in result["differences"]:
        assert f"trial {one['number']} {one['value']:+g} (" in page
    for one in (result["base"], *result["trials"]):
        assert f"{one['scores'][0]['value']:.4g} ± {one['scores'][0]['stderr']:.2g}" in page
    assert "exam/acc in the sealed test: base model" in page
    assert all(name in page for name in SUBJECTS)


def test_finalists_are_compared_with_the_base(opened: Path) -> None:
    result = json.loads(hpotune("test", opened, "--json").stdout)
    assert (result["state"], len(result["openings"]), result["tasks"]) == ("done", 1, ["exam"])
    base, (first, second) = result["base"], result["trials"]
    best = json.loads(hpotune("best", opened, "--json").stdout)["best"]
    assert first["number"] == best["number"]
    assert (first["trained_again"], second["trained_again"]) == (False, True)
    assert first["loss"] == pytest.approx(first["recorded_loss"], rel=1e-5)
    assert second["loss"] == pytest.approx(second["recorded_loss"], rel=1e-3)
    assert base["loss"] == pytest.approx(base["recorded_loss"], rel=1e-5)
    assert [one["task"] for one in first["subjects"]] == list(SUBJECTS)
    sizes = [*SUBJECTS.values()]
    means = [one["value"] for one in first["subjects"]]
    pooled = sum(size * mean for size, mean in zip(sizes, means, strict=True)) / sum(sizes)
    assert first["scores"][0]["value"] == pytest.approx(pooled)
    assert first["scores"][0]["stderr"] > 0
    one = result["differences"][0]
    assert one["paired"]
    assert one["value"] == pytest.approx(first["scores"][0]["value"] - base["scores"][0]["value"])
    assert one["low"] < one["value"] < one["high"]


def test_search_and_choice_stay_the_same(trained_study: Path, opened: Path) -> None:
    before, after = (
        {verb: json.loads(hpotune(verb, folder, "--json").stdout) for verb in ("trials", "best")}
        for folder in (trained_study.parent / "small", opened)
    )
    assert before["trials"] == after["trials"]
    chosen = ("best", "baseline", "corrected_gain", "tied", "recommended", "front")
    assert [before["best"][key] for key in chosen] == [after["best"][key] for key in chosen]
    for name in ("toy_topics", "exam"):
        stored = contents(opened / "store.db").count(f"{name}/".encode())
        assert bool(stored) == (name == "toy_topics")


def test_second_opening_is_asked_for(opened: Path) -> None:
    again = hpotune("test", opened, "--trials", "2,1")
    assert (again.returncode, "opening 1: 3 of 3" in again.stdout) == (0, True)
    assert len(json.loads((opened / "test" / "openings.json").read_text())["openings"]) == 1
    other = hpotune("test", opened, "--trials", "1")
    assert other.returncode == 2
    assert "--again opens the test once more for others, which is recorded" in other.stderr


def test_trackers_get_sealed_scores_afterwards(trained_study: Path, opened: Path) -> None:
    before, after = (_tracked_runs(folder) for folder in (trained_study.parent / "small", opened))
    assert "exam" not in repr(before)
    found = json.loads(hpotune("test", opened, "--json").stdout)
    numbers = {one["number"]: one["metrics"] for one in (found["base"], *found["trials"])}
    assert len(numbers) == 3
    for run in after:
        sealed = {
            name.removeprefix("test/"): value
            for name, value in run.scores.items()
            if name.startswith("test/")
        }
        number = None if run.tags["kind"] == "baseline" else run.number
        assert sealed == numbers.get(number, {})


def _tracked_runs(path: Path) -> tuple[TrackedRun, ...]:
    folder = StudyFolder(path=path)
    study = folder.load()
    rows = rows_of(folder.provenance().store, study)
    return tracked_study(folder, study, rows, identity="0").runs
