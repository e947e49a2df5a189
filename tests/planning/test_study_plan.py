"""`hpotune plan` on a file that never ran and on a folder, and planned beside actual numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from hpotune.config.load import load_study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.planning.estimate import SimulationTimes
from hpotune.planning.measured_times import actual_progress, measured_times
from hpotune.planning.study_plan import make_plan, notes, read_probe, record_plan, simulate_study
from hpotune.records.trial import Attempt, TrialRow, Worker
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.planned_studies import write_study

NOW = datetime(2026, 6, 1, 12)


def plan(*words: object) -> dict:
    command = [sys.executable, "-m", "hpotune", "plan", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


GIVEN = "plan: {trial_s: 100, start_s: 5, queue_s: 20}\n"


def test_new_file_is_planned_without_slurm(no_slurm: None, tmp_path: Path) -> None:
    file = write_study(tmp_path, GIVEN)
    before = sorted(tmp_path.iterdir())
    shown = plan(file)
    assert sorted(tmp_path.iterdir()) == before
    own = next(way for way in shown["modes"] if way["own"])
    assert (own["mode"], own["trials_per_job"], own["wall_s"], own["jobs"]) == ("async", "auto", 325, 2)
    assert shown["jobs"] == [{"count": 2, "throttle": 2, "trials_per_job": None}]
    assert (shown["sbatch"], shown["planned"], shown["actual"]) == (None, None, None)
    assert "Slurm not found" in shown["no_slurm"]
    assert shown["notes"] == []


def test_recommended_mode_is_in_table(no_slurm: None, tmp_path: Path) -> None:
    shown = plan(write_study(tmp_path, GIVEN))
    marked = [(way["mode"], way["trials_per_job"]) for way in shown["modes"] if way["recommended"]]
    assert marked == [(shown["recommended"]["mode"], shown["recommended"]["trials_per_job"])]
    assert len(shown["modes"]) == 9


def test_text_table_marks_assumptions(no_slurm: None, tmp_path: Path) -> None:
    file = write_study(tmp_path)
    plan = [sys.executable, "-m", "hpotune", "plan", str(file), "--gantt"]
    wrong = subprocess.run([*plan, "g.png"], cwd=tmp_path, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: --gantt g.png: the chart is an SVG file; give a name that ends in .svg\n",
    )
    command = [*plan, str(tmp_path / "g.svg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "assumed, not known: trial_s" in done.stdout
    assert "recommended: execution: {mode:" in done.stdout
    assert "waits in the queue" in done.stdout
    assert ElementTree.parse(tmp_path / "g.svg").getroot().tag.endswith("svg")


def test_past_run_shows_planned_and_actual(no_slurm: None, tmp_path: Path) -> None:
    file = write_study(tmp_path, GIVEN)
    subprocess.run([sys.executable, "-m", "hpotune", "run", str(file)], capture_output=True, check=True)
    for target in (file, tmp_path / "s"):
        shown = plan(target)
        assert shown["figures"]["trial_s"]["source"] == "learned from 6 trials"
        assert (shown["actual"]["trials"], shown["actual"]["state"]) == (6, "done")
        assert shown["planned"]["trials"] == 6
        assert shown["planned"]["place"] == "local"  # words: ignore
        assert shown["planned"]["figures"]["trial_s"] == {"value": 100, "source": "given"}


def test_too_long_trial_is_noted(tmp_path: Path) -> None:
    config = load_study(
        write_study(tmp_path, 'plan: {trial_s: 900, start_s: 5, queue_s: 20}\nresources: {time: "10:00"}\n')
    ).config
    said = notes(make_plan(StudyFolder(path=tmp_path / "s"), config, [], now=NOW))
    assert len(said) == 1
    assert "raise resources.time" in said[0]


def test_a_plan_is_recorded_once(tmp_path: Path) -> None:
    config = load_study(write_study(tmp_path, GIVEN)).config
    folder = StudyFolder(path=tmp_path / "s")
    record_plan(folder, config)
    first = (folder.path / "plan.json").read_text()
    record_plan(folder, config.model_copy(update={"budget": config.budget.model_copy(update={"trials": 1})}))
    assert (folder.path / "plan.json").read_text() == first
    assert json.loads(first)["wall_s"] == 325


def test_probe_is_found_before_the_folder(tmp_path: Path) -> None:
    (tmp_path / "s.probe.json").write_text('{"probed": "2026-06-01", "trial_s": 7.5}')
    assert read_probe(StudyFolder(path=tmp_path / "s")) == {"trial_s": 7.5}
    config = load_study(write_study(tmp_path)).config
    made = make_plan(StudyFolder(path=tmp_path / "s"), config, [], now=NOW)
    assert (made.estimates.trial_s.value, made.estimates.trial_s.source) == (7.5, "probed")


def test_local_plan_has_no_queue(tmp_path: Path) -> None:
    config = load_study(write_study(tmp_path, 'resources: {time: "1:00", signal_delay_s: 10}\n')).config
    pace = SimulationTimes(trials_s=(100,), queue_s=1000, start_s=1)
    assert simulate_study(config, pace, begin=NOW, local=True).wall_s == 301


def attempt(start: float, end: float, outcome: str = "finished") -> Attempt:
    worker = Worker(job="5_0", host="n", pid=1)
    return Attempt(worker=worker, start=start, end=end, outcome=outcome, gpus=2)  # type: ignore[arg-type]


def row(number: int, *attempts: Attempt, state: str = "finished", kind: str = "trial") -> TrialRow:
    return TrialRow(number=number, kind=kind, state=state, params={}, attempts=attempts)  # type: ignore[arg-type]


def array(
    folder: Path, job: int, submitted: float, runs: list[tuple[float, float]], *, throttle: int
) -> None:
    """What an array leaves in the study's folder."""
    import os

    job_folder = folder / "jobs" / str(job)
    job_folder.mkdir(parents=True)
    shown = {"id": str(job), "kind": "worker", "count": len(runs), "throttle": throttle}
    (job_folder / "job.json").write_text(json.dumps(shown))
    os.utime(job_folder / "job.json", (submitted, submitted))
    for index, (start, end) in enumerate(runs):
        life = {"start": start, "end": end, "host": "n", "pid": index}
        (job_folder / f"life-{index}.json").write_text(json.dumps(life))
        span = {"job": f"{job}_{index}", "trial": None, "phase": "start", "start": start, "end": start + 2}
        (job_folder / f"spans-{job}_{index}.jsonl").write_text(json.dumps(span) + "\n")


def test_what_a_folder_tells_of_times(tmp_path: Path) -> None:
    array(tmp_path, 9, 100, [(110, 130), (112, 140), (133, 150), (144, 160)], throttle=2)
    array(tmp_path, 10, 180, [(191, 200)], throttle=1)
    seen = measured_times(
        StudyFolder(path=tmp_path),
        [row(0, attempt(5, 8), kind="baseline"), row(1, attempt(0, 4), attempt(10, 18))],
    )
    assert list(seen.queues) == [10, 12, 11]
    assert list(seen.gaps) == [3, 4]  # the third replaced the first, the fourth that of the second
    assert list(seen.follow_ups) == [180 - 160 - 11]
    assert list(seen.starts) == [2] * 5
    assert (list(seen.trials), list(seen.baselines)) == ([12], [3])


def test_first_proposal_counts_as_job_start(
    tmp_path: Path,
) -> None:
    array(tmp_path, 5, 100, [(110, 130)], throttle=1)
    trials = [
        {"job": "5_0", "trial": 0, "phase": "trial", "start": start, "end": end}
        for start, end in ((112, 118), (140, 143))
    ]
    with (tmp_path / "jobs" / "5" / "spans-5_0.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in trials)
    seen = measured_times(StudyFolder(path=tmp_path), [row(0, attempt(110.5, 118), attempt(139, 143))])
    assert (seen.starts, seen.trials) == ((2,), (9,))


def test_loading_counts_from_the_claim(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "0"
    folder.mkdir(parents=True)
    phases = [("load", 12, 15), ("data", 15, 16), ("train", 16, 30)]
    lines = [
        json.dumps({"trial": 0, "phase": phase, "start": start, "end": end}) for phase, start, end in phases
    ]
    (folder / "spans.jsonl").write_text("\n".join(lines))
    assert measured_times(StudyFolder(path=tmp_path), [row(0, attempt(10, 31))]).loads == (6,)


def test_actual_counts_held_time_from_submission(tmp_path: Path) -> None:
    config = StudyConfig.model_validate(
        {
            "name": "s",
            "python": "f.py:f",
            "score": {"objective": {"metric": "loss"}},
            "budget": {"trials": 2},
            "resources": {"gpus": 2},
        }
    )
    folder = StudyFolder(path=tmp_path)
    rows = [row(0, attempt(112, 118)), row(1, attempt(119, 128))]
    array(tmp_path, 9, 100, [(110, 130)], throttle=1)
    shown = actual_progress(folder, config, rows, since=100, now=500)
    assert (shown["state"], shown["wall_s"], shown["trials"], shown["jobs"]) == ("done", 28, 2, 1)
    assert shown["gpu_hours"] == round(20 * 2 / 3600, 4)
    assert actual_progress(folder, config, rows[:1], since=None, now=500)["state"] == "stopped"
    assert actual_progress(folder, config, [], since=None, now=500) == {"state": "not started", "trials": 0}


def test_impossible_times_are_left_out(no_slurm: None, tmp_path: Path) -> None:
    """A node 60 s behind starts before its submission and ends its job's start before it; another was set by a year."""
    begin, year = time.time() - 3600, 365 * 86400.0
    folder = StudyFolder(path=tmp_path / "s")
    array(
        folder.path, 9, begin, [(begin - 50, begin - 20), (begin + 7, begin + 30), (begin + year, begin + year + 9)],
        throttle=3,
    )  # fmt: skip
    lines = [
        {"job": "9_0", "trial": None, "phase": "start", "start": begin, "end": begin - 55},
        {"job": "9_0", "trial": 0, "phase": "trial", "start": begin - 45, "end": begin - 41},
        {"job": "9_1", "trial": 1, "phase": "trial", "start": begin + 10, "end": begin - 30},
        {"job": "9_1", "trial": 2, "phase": "trial", "start": begin + 10, "end": begin + year},
    ]
    (folder.jobs / "9" / "spans-9_0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [
        row(0, attempt(begin - 45, begin - 41)),
        row(1, attempt(begin + 10, begin - 30)),
        row(2, attempt(begin + 10, begin + year)),
        row(3, attempt(begin + 20, begin + 25)),
    ]
    seen = measured_times(folder, rows)
    assert [round(s, 3) for s in seen.trials] == [4, 5]
    assert ([round(s, 3) for s in seen.starts], [round(s, 3) for s in seen.queues]) == ([2, 2], [7])
    assert seen.impossible == 5
    config = load_study(write_study(tmp_path)).config
    made = make_plan(folder, config, rows, now=datetime.fromtimestamp(begin + 3600))
    assert all(way.result.wall_s > 0 and 0 <= way.result.idle <= 1 for way in made.mode_results)
    assert "5 measured times are impossible and left out" in "".join(notes(made))
    shown = actual_progress(folder, config, rows, since=begin, now=begin + 3600)
    assert 0 < shown["wall_s"] <= 3660
    assert shown["gpu_hours"] >= 0
    assert shown["trials_per_hour"] > 0


def test_clock_behind_shortens_no_study(tmp_path: Path) -> None:
    """All that ended did so before the submission, by the node's clock."""
    config = load_study(write_study(tmp_path)).config
    rows = [row(0, attempt(40, 90))]
    shown = actual_progress(StudyFolder(path=tmp_path / "s"), config, rows, since=100, now=500)
    assert shown["wall_s"] == 50
    assert (
        actual_progress(
            StudyFolder(path=tmp_path / "s"), config, [row(0, attempt(90, 40))], since=100, now=500
        )["trials_per_hour"]
        == 0
    )
