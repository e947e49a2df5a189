"""What `doctor` finds of Slurm, file systems, caches, stores and clocks, and what it says to change."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from hpotune.checks import doctor_data
from hpotune.checks.doctor import findings
from hpotune.checks.doctor_data import cache_findings, disk_clock, store_findings
from hpotune.checks.doctor_slurm import clock, slurm_findings
from hpotune.checks.finding import Finding, exit_code
from hpotune.storage import TrialQueue

CONFIG = """Configuration data as of {now}
AccountingStorageEnforce = associations,limits
AccountingStorageType   = accounting_storage/slurmdbd
JobRequeue              = 1
MaxArraySize            = 1001
MaxJobCount             = 10000
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SLURM_VERSION           = 22.05.8
SlurmctldParameters     = {parameters}
"""
NODES = (
    "a100*|7-00:00:00|gpu:A100:4(S:0-1)|idle|3|up\na100*|7-00:00:00|gpu:A100:4(S:0-1)|drained*|1|up\n"
    "cpu|30:00|(null)|idle|2|up\n"
)


@pytest.fixture
def cluster(fake):
    """All of Slurm's commands."""

    def made(*, parameters: str = "preempt_send_user_signal", ahead_s: float = 0) -> None:
        stamp = datetime.fromtimestamp(time.time() + ahead_s).isoformat(timespec="seconds")
        fake("sinfo", NODES)
        fake("scontrol", CONFIG.format(now=stamp, parameters=parameters))
        fake("squeue", "JOBID\n7\n")
        for name in ("sbatch", "srun", "sacct", "scancel"):
            fake(name)

    return made


def said(found, *, level: str | None = None) -> str:
    """All of it, or what is of one level, a line a finding."""
    return "\n".join(f"{f.kind}: {f.text} -> {f.advice}" for f in found if level is None or f.level == level)


def test_missing_slurm_is_a_note(fake):
    assert [(f.level, f.text) for f in slurm_findings(None)] == [("note", "no Slurm on this machine")]


def test_cluster_limits_are_reported(cluster):
    cluster()
    text = said(slurm_findings(None))
    assert "sbatch 0." in text
    assert "Slurm 22.05.8" in text
    assert "job arrays up to index 1000" in text
    assert "accounting by slurmdbd" in text
    assert "a preempted trial gets a signal" in text
    assert "a100 (default): 3 idle, 1 drained; 4 A100 per node; time limit 7-00:00:00" in text
    assert "cpu: 2 idle; no GPUs; time limit 30:00" in text
    assert said(slurm_findings(None), level="bad") == ""


def test_missing_commands_are_reported(cluster, tmp_path):
    cluster()
    (tmp_path / "bin" / "sacct").unlink()
    assert "sacct is not installed -> why a job ended is known only for some minutes" in said(
        slurm_findings(None), level="note"
    )
    (tmp_path / "bin" / "srun").unlink()
    assert "srun is not installed" in said(slurm_findings(None), level="bad")


def test_unreachable_controller_is_an_error(cluster, fake):
    cluster()
    fake("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert "Unable to contact" in said(slurm_findings(None), level="bad")


@pytest.mark.parametrize("page", ["", "<html>busy</html>", "Configuration data as of 2026-99-99T99:99:99\n"])
def test_garbage_is_reported(cluster, fake, page):
    cluster()
    fake("scontrol", page)
    list(slurm_findings(None))
    fake("squeue", page)
    assert "squeue printed no table" in said(slurm_findings(None), level="bad")


def test_preemption_without_signal_is_noted(cluster):
    cluster(parameters="(null)")
    assert "no preempt_send_user_signal" in said(slurm_findings(None), level="note")


def test_controller_clock_is_compared(cluster):
    cluster(ahead_s=30)
    assert "the clock of Slurm's controller is" in said(slurm_findings(None), level="note")


@pytest.mark.parametrize(
    ("resources", "error"),
    [
        (
            {"partition": "a10"},
            "resources.partition='a10' does not exist on this cluster -> did you mean 'a100'?",
        ),
        ({"partition": "cpu", "time": "1:00:00"}, "exceeds the limit of cpu (30:00) -> write at most 30:00"),
        ({"time": "8-00:00:00"}, "exceeds the limit of a100"),
        ({"gpus": "a100:4"}, ""),
        (
            {"gpus": "A10:4"},
            "partition a100 has no GPUs of type 'A10'; did you mean 'A100'? Slurm's types there: A100",
        ),
        ({"gpus": "A100:8"}, "a100 has 4 GPUs per node"),
        ({"gpus": 8}, "a100 has 4 GPUs per node"),
        ({"gpus": 1, "partition": "cpu", "time": "10:00"}, "cpu has no GPUs"),
        ({"gpus": "A100:4", "partition": "a100"}, ""),
    ],
)
def test_study_must_fit_its_partition(cluster, make_study, resources, error):
    cluster()
    found = said(slurm_findings(make_study(resources=resources).config), level="bad")
    assert (error in found) if error else (found == "")


def test_cluster_spelling_is_said(cluster, make_study):
    cluster()
    text = said(slurm_findings(make_study(resources={"gpus": "a100:4"}).config), level="ok")
    assert "resources.gpus='a100:4': the type is 'A100' here; jobs are submitted with that" in text


def test_queue_limits_are_compared(cluster, fake, make_study):
    cluster()
    fake("sacctmgr", "mine|normal||8|||||\nother|normal||3|||||\n")
    config = make_study(resources={"account": "mine"}, budget={"trials": 20, "parallel": 8}).config
    text = said(slurm_findings(config))
    assert "account mine: MaxSubmitJobs=8" in text
    assert "account other" not in text
    assert "you may queue 8 jobs, and budget.parallel is 8 -> fewer jobs are submitted at a time" in text


def test_clock_difference_has_levels():
    assert clock("it", 1000.0, here=1000.4).level == "ok"
    assert clock("it", 1020.0, here=1000.0).text == "the clock of it is 20 s ahead of this machine's"
    assert (clock("it", 880.0, here=1000.0).level, clock("it", 980.0, here=1000.0).level) == ("bad", "note")


def test_disk_clock_leaves_no_file(tmp_path):
    [found] = disk_clock(tmp_path)
    assert found.level == "ok"
    assert list(tmp_path.iterdir()) == []


def test_wrong_disk_clock_is_an_error(tmp_path, monkeypatch):
    real = time.time
    monkeypatch.setattr(doctor_data.time, "time", lambda: real() - 300)
    [found] = disk_clock(tmp_path)
    seconds = re.fullmatch(r"the clock of the file system is (\d+) s ahead of this machine's", found.text)
    assert found.level == "bad"
    assert seconds
    assert int(seconds[1]) == pytest.approx(300, abs=20)  # a busy machine may pause between its two clocks


def test_missing_offline_data_is_an_error(make_study, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "hf/hub/models--one--there/snapshots/abc").mkdir(parents=True)
    sections = {"python": None, "params": None, "train": {"learning_rate": {"float": [1e-5, 1e-3]}}}
    sections["score"] = {"objective": {"metric": "eval_loss", "direction": "minimize"}}
    for model, level in (("one/there", "ok"), ("one/absent", "bad")):
        study = make_study(model={"path": model}, data={"path": "some/data"}, **sections)
        found = {f.text.split(" is ")[0]: f for f in cache_findings(study.config)}
        assert found[f"model {model}"].level == level
    assert found["model one/absent"].advice.endswith("hpotune fetch STUDY, or hf download one/absent")
    assert found["dataset some/data"].advice.endswith("hf download some/data --repo-type dataset")
    online = make_study(
        model={"path": "one/absent"}, data={"path": "some/data"}, env={"offline": False}, **sections
    )
    assert said(cache_findings(online.config), level="bad") == ""


def test_caches_follow_job_environment(make_study, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", "/shell")
    config = make_study(env={"vars": {"HF_HOME": str(tmp_path)}}).config
    assert f"in {tmp_path}/hub" in said(cache_findings(config))


@pytest.mark.postgres
def test_postgres_connections_and_clock(make_study, make_study_folder, postgres):
    for parallel, level in ((4, "ok"), (500, "bad")):
        study = make_study(budget={"trials": 6, "parallel": parallel})
        folder = make_study_folder(study, postgres, name=f"study{parallel}")
        if parallel == 4:
            TrialQueue.create(postgres, study, folder=str(folder.path))
        found = list(store_findings(folder))
        [connections] = [f for f in found if "connections" in f.text]
        assert connections.level == level, connections
    assert "raise max_connections to 5" in connections.advice
    assert [f.level for f in found if f.kind == "clock"] == ["ok"]


@pytest.mark.parametrize(
    ("what", "code"), [((), 0), (("disk",), 1), (("disk", "partition"), 3), (("slurm", "store"), 4)]
)
def test_exit_code_of_worst_finding(what, code):
    found = [Finding(level="bad", kind=name, text="") for name in what]
    assert exit_code([Finding(level="note", kind="store", text=""), *found]) == code


def test_study_without_folder_is_checked(make_study, cluster):
    cluster()
    path: Path = make_study(resources={"partition": "a10"}).source.path
    assert "resources.partition='a10' does not exist on this cluster" in said(findings(path), level="bad")
    assert not (path.parent / "bowl").exists()
