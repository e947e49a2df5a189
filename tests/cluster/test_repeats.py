"""Repeats as jobs: the follow-up job that finds the search ended submits them; killed and cancelled ones are continued.

`sudo -E pytest -m slurm tests/cluster/test_repeats.py`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cluster_studies import RESOURCES, function_study, hpotune, wait

pytestmark = pytest.mark.slurm
BODY = (
    'time.sleep(4 if "/repeats/trials/" in os.environ["HPOTUNE_TRIAL_DIR"] else 0); '
    'x += int(os.environ["HPOTUNE_SEED"]) % 1000 / 1e6'
)


def study(folder: Path, *, more: str = "") -> Path:
    file = function_study(folder, BODY, RESOURCES + more)
    file.write_text(
        file.read_text().replace("{algorithm: sobol}", "{algorithm: sobol, finalists: 2, repeats: 2}")
    )
    return file


def state_of_repeats(status: dict[str, Any]) -> str:
    return status["repeats"]["state"] if status["repeats"] else ""


@pytest.mark.usefixtures("slurm_cluster")
def test_follow_up_starts_repeats(tmp_path: Path) -> None:
    """A job of the repeats is killed; each point is trained once all the same, and nobody types anything."""
    file = study(tmp_path)
    hpotune("submit", file)
    running = wait(file, lambda status: bool(status["repeats"] and status["repeats"]["running_trials"]))
    job = running["repeats"]["running_trials"][0]["job"]
    subprocess.run(["scancel", "--signal=KILL", "--full", job], check=True)
    done = wait(file, lambda status: state_of_repeats(status) == "done")
    assert done["repeats"]["trials"]["finished"] == 4
    best = hpotune("best", file)
    assert best["best"]["number"] == best["repeats"]["winner"]
    values = [repeat["value"] for one in best["repeats"]["trials"] for repeat in one["repeats"]]
    assert len(set(values)) == 4
    trials = hpotune("trials", tmp_path / "quick" / "repeats")
    assert [one["state"] for one in trials] == ["finished"] * 4
    assert max(one["attempts"] for one in trials) > 1, "the kill struck a trial"
    assert hpotune("submit", file)["submitted_repeats"] == []


@pytest.mark.usefixtures("slurm_cluster")
def test_cancelled_repeats_are_resumed(tmp_path: Path) -> None:
    """Without follow-up jobs `resume` starts them; `cancel` ends them, `resume` continues."""
    file = study(tmp_path)
    file.write_text(file.read_text().replace("signal_delay_s: 30", "signal_delay_s: 30, follow_up: false"))
    hpotune("submit", file)
    ended = wait(file, lambda status: status["state"] == "done")
    assert ended["repeats"] is None
    submitted = hpotune("resume", file)["submitted_repeats"]
    assert submitted
    wait(file, lambda status: bool(status["repeats"]["running_trials"]))
    assert submitted[0] in hpotune("cancel", file)["cancelled"][0]
    wait(file, lambda status: state_of_repeats(status) == "cancelled")
    hpotune("resume", file)
    done = wait(file, lambda status: state_of_repeats(status) == "done")
    assert done["repeats"]["trials"]["finished"] == 4
