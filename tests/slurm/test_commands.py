"""Slurm's commands as sites give them to users: any bytes, wrappers, silence. Fake commands, real processes."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from hpotune.checks.doctor_slurm import slurm_findings
from hpotune.errors import ClusterError
from hpotune.launch.follow_up import follow_up
from hpotune.records.jobs import JobSpec
from hpotune.slurm import command_process, commands, submission
from hpotune.slurm.cluster_limits import cluster_config, free_submit_slots
from hpotune.slurm.command_tables import read_table
from hpotune.slurm.commands import (
    CommandMissing,
    ControllerUnreachable,
    NoAnswer,
    UnreadableAnswer,
    error_kind,
    limited_time,
    run_command,
    submitted_id,
)
from hpotune.slurm.job_arrays import max_array_size
from hpotune.slurm.partitions import query_partitions
from hpotune.slurm.study_jobs import cached_jobs, query_jobs
from hpotune.slurm.submit import check_submittable, submit
from hpotune.storage import TrialQueue
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import config

HEADER = "JOBID|STATE|REASON|START_TIME\n"
ROW = "7_0|RUNNING|None|2026-06-01T12:00:00\n"
HTML = "<html><body><h1>502 | Bad | Gateway | now</h1></body></html>\n"
PAGES = {
    "empty": b"",
    "blank": b"\n\n \n",
    "binary": bytes(range(256)) * 40,
    "latin": "Verbindung zum Kontrollknoten unm\xf6glich\n".encode("latin-1"),
    "html": HTML.encode(),
    "columns": b"7_0|RUNNING\n7_1|PENDING|Priority|N/A|more|and more\n",
    "cut": HEADER.encode() + b"7_0|RUNN",
    "digits": "\u00b2\u0663|\u00b2|\u0663|\u00b2\n".encode(),
    "elements": b"7_[0-999999999]|COMPLETED|0:0\n",
    "long": b"x" * 10_000_000,
    "nul": b"\0" * 5_000,
    "json": b'{"jobs": [{"job_id": 7}]}\n',
    "wide": ("7_0|RUNNING|" + "z" * 100_000 + "\n").encode(),
}
"""What a command prints instead of its answer."""
RANDOM = int(os.environ.get("HPOTUNE_FUZZ", "12"))
"""How many random answers are tried; set HPOTUNE_FUZZ=2000 for a long run."""


def random_page(seed: int) -> bytes:
    """An answer of Slurm's that is cut, mixed with bytes, doubled or reordered."""
    rng = random.Random(seed)
    text = bytearray((HEADER + ROW + "7_1|PENDING|Priority|N/A\nSLURM_VERSION = 22.05\n").encode())
    for _ in range(rng.randint(1, 8)):
        at, kind = rng.randrange(len(text) + 1), rng.randrange(4)
        if kind == 0:
            text[at : at + rng.randint(1, 9)] = rng.randbytes(rng.randint(0, 9))
        elif kind == 1:
            del text[at : at + rng.randint(1, 30)]
        elif kind == 2:
            text[at:at] = text[at : at + 40]
        else:
            text[at:at] = rng.choice([b"|", b"\n", b"\0", b"\xff", b"[0-9]", b"%", b"9" * 30])
    return bytes(text)


@pytest.fixture
def prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes commands that print bytes, the only ones on PATH."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", str(bin_))

    def made(*names: str, page: bytes = b"", code: int = 0, before: str = "") -> None:
        (bin_ / "page").write_bytes(page)
        for name in names:
            file = bin_ / name
            file.write_text(
                f"#!/bin/sh\n{before}\n/bin/cat {bin_}/page\n/bin/cat {bin_}/page >&2\nexit {code}\n"
            )
            file.chmod(0o755)

    return made


ALL = ("squeue", "scontrol", "sinfo", "sacct", "sacctmgr", "sbatch", "scancel", "srun")


@pytest.fixture
def study(make_study, make_study_folder, tmp_path):
    """A study with an array of two, and its store."""
    loaded, url = make_study(resources={"partition": "a"}), f"sqlite:///{tmp_path}/store.db"
    folder = make_study_folder(loaded, url)
    recorded = '{"id": "7", "kind": "worker", "count": 2, "throttle": 2, "trials": 1}'
    write_atomic(folder.jobs / "7" / "job.json", recorded)
    return folder, loaded, TrialQueue.create(url, loaded, folder=str(folder.path))


@pytest.fixture
def folder(tmp_path) -> StudyFolder:
    """The folder of a study with an array of two."""
    made = StudyFolder(path=tmp_path / "study")
    recorded = '{"id": "7", "kind": "worker", "count": 2, "throttle": 2, "trials": 1}'
    write_atomic(made.jobs / "7" / "job.json", recorded)
    return made


def assert_clean(text: str) -> None:
    assert text.isprintable()
    assert len(text) < 2_000


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_garbage_is_no_answer(folder, prints, monkeypatch, page, code):
    """Every question is answered rightly, or with an error of hpotune's own."""
    monkeypatch.setenv("HPOTUNE_POLL_S", "0")
    prints(*ALL, page=page, code=code)
    answer, settings = cached_jobs(folder, []), config()
    assert answer.error
    assert {row.id: row.state for row in answer.rows} == {"7_0": "UNKNOWN", "7_1": "UNKNOWN"}
    with pytest.raises(ClusterError) as raised:
        query_jobs(folder, [])
    assert_clean(str(raised.value))
    with pytest.raises(ClusterError) as raised:
        cluster_config()
    assert_clean(str(raised.value))
    assert max_array_size() is None
    assert free_submit_slots(settings.resources) is None
    for finding in slurm_findings(settings):
        assert_clean(finding.text)


@pytest.mark.parametrize("seed", range(RANDOM))
def test_damaged_answer_invents_nothing(folder, prints, monkeypatch, seed):
    """HPOTUNE_FUZZ=2000 tries so many."""
    monkeypatch.setenv("HPOTUNE_POLL_S", "0")
    prints("squeue", "scontrol", "sinfo", "sacct", page=random_page(seed))
    rows = cached_jobs(folder, []).rows
    assert {row.id for row in rows} == {"7_0", "7_1"}
    for row in rows:
        assert_clean(row.reason)
    with suppress(ClusterError):
        cluster_config()
    with suppress(ClusterError):
        query_partitions()


@pytest.mark.parametrize(
    "page", [PAGES["empty"], PAGES["binary"], PAGES["html"]], ids=["empty", "binary", "html"]
)
def test_garbage_submits_nothing(study, prints, make_study, monkeypatch, page):
    folder, loaded, store = study
    prints(*ALL, page=page)
    with pytest.raises(NoAnswer):
        follow_up(folder, store, loaded.config, now=datetime.now())
    assert [path.name for path in folder.jobs.glob("*/job.json")] == ["job.json"]
    assert not list(folder.jobs.glob(".submission_file*"))


def test_unreadable_acceptance_is_not_a_refusal(study, prints, monkeypatch):
    folder, loaded, _ = study
    prints(*ALL, page=b"Wartung am 3. Mai: job 17 wird gel\xf6scht\n")
    monkeypatch.setattr(submission, "LOOKS_S", (0.0,))
    with pytest.raises(NoAnswer, match=r"sbatch gave no job id but 'Wartung.*`resume` finds out"):
        submit(folder, loaded.config, JobSpec(count=1, throttle=1))
    check_submittable(folder, loaded.config, JobSpec(count=1, throttle=1))


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("Submitted batch job 12\n", "12"),
        ("your last job 99 used 3 hours\nSubmitted batch job 12 on cluster b\nsee job 5", "12"),
        ("welcome\n12;b\n", "12"),
        ("\ufffd\ufffdsbatch: Submitted batch job 12", "12"),
    ],
)
def test_id_among_banners(text, id_):
    assert submitted_id(text) == id_


BANNER = "*** Maintenance | on | Monday | 3 May ***\nToday: 12 jobs\n"


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROW,
        BANNER + HEADER + ROW,
        "CLUSTER: a\n" + HEADER + ROW + "CLUSTER: b\n" + HEADER,
        ROW,
        HEADER.lower() + ROW,
    ],
)
def test_table_among_banners(text):
    table = read_table(text, tuple(HEADER.strip().split("|")), is_row=lambda cells: cells[1] == "RUNNING")
    assert table is not None
    assert [row[0] for row in table.rows] == ["7_0"]
    assert table.damaged == 0


def test_header_may_be_shortened():
    table = read_table("Name|MaxJobsPU\nnormal|3\n", ("Name", "MaxJobsPerUser"))
    assert table is not None
    assert table.rows == (("normal", "3"),)


def test_damaged_lines_are_counted():
    table = read_table(HEADER + ROW + "7_1|RUNN\n\ufffd|a|b|c\nbye\n", tuple(HEADER.strip().split("|")))
    assert table is not None
    assert (len(table.rows), table.damaged) == (1, 2)
    assert read_table("bye\n", ("JOBID", "STATE")) is None
    assert read_table("a\nb\n", ("PARTITION",)) is None


def test_banner_below_the_header_is_skipped():
    banner = "2026-06-01 maintenance of all nodes\n\n12 nodes are down\n"
    table = read_table(HEADER + banner + ROW, tuple(HEADER.strip().split("|")))
    assert table is not None
    assert (len(table.rows), table.damaged) == (1, 0)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
            ControllerUnreachable,
        ),
        ("sacct: error: slurm_persist_conn_open_without_init: Connection refused", ControllerUnreachable),
        ("squeue: error: Could not establish a configuration source", ControllerUnreachable),
        ("scontrol: error: Communication connection failure", ControllerUnreachable),
        ("sbatch: error: Socket timed out on send/recv operation", NoAnswer),
        ("sbatch: error: no hours left, please contact support@hpc.example", ClusterError),
        ("sbatch: error: your project is not connected to a grant", ClusterError),
    ],
)
def test_only_slurm_says_unreachable(text, kind):
    assert error_kind(text) is kind


def test_user_defaults_do_not_hide_jobs(prints, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CONF", "")
    prints("squeue", before='echo "[$SQUEUE_PARTITION] [$SLURM_TIME_FORMAT] [${SLURM_CONF-unset}]"')
    assert run_command(["squeue"]).strip() == "[] [standard] [unset]"


def test_sbatch_keeps_the_environment(prints, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    prints("sbatch", before='echo "$LC_ALL $SQUEUE_FORMAT"')
    assert run_command(["sbatch"]).strip() == "de_DE %i"


def test_slow_command_is_named(prints, monkeypatch, capfd):
    monkeypatch.setattr(command_process, "NOTICE_S", 0.1)
    prints("squeue", before="/bin/sleep 0.6")
    run_command(["squeue"])
    assert capfd.readouterr().err == "waiting for squeue …\n"


def test_silent_daemon_is_asked_once(prints, tmp_path):
    prints("squeue", "sinfo", "sacct", before="echo x >> $0.calls; exec /bin/sleep 60")
    with limited_time(10.0):
        with pytest.raises(NoAnswer, match="squeue did not answer within 1 s"):
            run_command(["squeue"], answer_s=1)
        with pytest.raises(NoAnswer, match="sinfo was not asked, since squeue did not answer"):
            run_command(["sinfo"], answer_s=1)
        with pytest.raises(NoAnswer, match="sacct did not answer"):  # another daemon
            run_command(["sacct"], answer_s=1)
    assert sorted(path.name for path in (tmp_path / "bin").glob("*.calls")) == ["sacct.calls", "squeue.calls"]


def test_time_of_commands_adds_up(prints):
    prints("squeue", before="/bin/sleep 0.6")
    with limited_time(1.5):
        run_command(["squeue"])
        with pytest.raises(NoAnswer, match="took too long"):
            run_command(["squeue"])
    run_command(["squeue"])


def test_wrapper_is_ended_with_its_children(prints, tmp_path):
    prints("squeue", before=f"(/bin/sleep 2; echo x > {tmp_path}/alive) &\nwait")
    with pytest.raises(NoAnswer):
        run_command(["squeue"], answer_s=0.5)
    time.sleep(2.2)
    assert not (tmp_path / "alive").exists()


def test_child_that_stays_is_not_awaited(prints):
    prints("squeue", page=b"said\n", before="/bin/sleep 30 &")
    assert run_command(["squeue"], answer_s=20) == "said\n"


def test_endless_output_is_ended(prints, monkeypatch):
    monkeypatch.setattr(command_process, "MAX_BYTES", 1_000_000)
    prints("squeue", before="while :; do /bin/cat /dev/zero; done")
    with pytest.raises(UnreadableAnswer, match="is it Slurm's own"):
        run_command(["squeue"], answer_s=30)


@pytest.mark.parametrize("code", [126, 127])
def test_wrapper_without_command_is_missing(prints, code):
    prints("squeue", code=code)
    with pytest.raises(CommandMissing):
        run_command(["squeue"])


def test_facts_are_asked_once(prints, tmp_path):
    page = b"Configuration data as of 2026-06-01T12:00:00\nMaxArraySize = 1001\nSLURM_VERSION = 22.05.8\n"
    prints("scontrol", page=page, before="echo x >> $0.calls")
    with limited_time(commands.STATUS_S):
        assert [max_array_size(), max_array_size()] == [1001, 1001]
    assert (tmp_path / "bin" / "scontrol.calls").read_text() == "x\n"
    assert max_array_size() == 1001
    assert (tmp_path / "bin" / "scontrol.calls").read_text() == "x\nx\n"
