"""A trial's process: stop requests, what is ended with it, its log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpotune.worker.objective.process import StopRequest, marked_processes, run_process


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_stopped_trial_is_paused(evaluate, tmp_path, number, request_stop):
    stop = StopRequest()
    speaker = request_stop(stop, tmp_path / "ready", number)
    result = evaluate(f"touch {tmp_path}/ready; sleep 60; echo 1", stop=stop)
    speaker.join()
    assert result.state == "paused"


def test_program_of_shell_may_checkpoint(evaluate, tmp_path, request_stop):
    (tmp_path / "slow.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    time.sleep(1); pathlib.Path('saved').touch(); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, save); pathlib.Path('ready').touch(); time.sleep(60)\n"
    )
    stop = StopRequest()
    speaker = request_stop(stop, tmp_path / "home" / "ready")
    evaluate(f"true; {sys.executable} {tmp_path}/slow.py; true", stop=stop)
    speaker.join()
    assert (tmp_path / "home" / "saved").exists()


def test_finished_trial_keeps_its_value(evaluate, tmp_path, request_stop):
    stop = StopRequest()
    speaker = request_stop(stop, tmp_path / "home" / "ready")
    result = evaluate("trap '' TERM; touch ready; sleep 1; echo 4 > $HPOTUNE_RESULT", stop=stop)
    speaker.join()
    assert (result.state, result.values) == ("finished", [4.0])


def test_earlier_stop_request_is_forwarded(evaluate):
    stop = StopRequest(signal=signal.SIGTERM)
    started = time.monotonic()
    assert evaluate("sleep 60; echo 1", stop=stop).state == "paused"
    assert time.monotonic() - started < 20


def test_background_process_is_ended(evaluate, tmp_path, until):
    evaluate("setsid sleep 300 & echo $! > pid; echo 1")
    pid = int((tmp_path / "home" / "pid").read_text())
    assert until(lambda: has_ended(pid))


def test_killed_worker_leaves_no_process(tmp_path, until):
    (tmp_path / "folder").mkdir()
    code = (
        "import os, sys; from pathlib import Path; "
        "from hpotune.worker.objective.process import StopRequest, run_process; "
        "run_process(['bash', '-c', 'setsid sleep 301 & sleep 302'], folder=Path('folder'), env=os.environ, "
        "cwd=None, stop=StopRequest())"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "OF_THIS": str(tmp_path)}
    )
    ours = f"OF_THIS={tmp_path}"
    assert until(lambda: len(marked_processes(ours)) >= 4)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert until(lambda: not marked_processes(ours), 25)


def test_log_holds_output(evaluate, tmp_path):
    evaluate("echo out; echo err >&2; echo 1")
    assert (tmp_path / "trial" / "log.txt").read_text().splitlines() == ["out", "err", "1"]


KILLED = """
import os, signal
from pathlib import Path
from hpotune.finetune.model.hub import prepare_environment

prepare_environment(offline=True)
Path(os.environ["HF_DATASETS_CACHE"], "used").write_text("")
Path("made").write_text(os.environ["HF_DATASETS_CACHE"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_process_leaves_no_cache(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "hpotune-datasets-another-1").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    env.pop("SLURM_TMPDIR", None)
    exit_ = run_process(
        [sys.executable, "-c", KILLED], folder=tmp_path, env=env, cwd=tmp_path, stop=StopRequest()
    )
    assert exit_.code == -signal.SIGKILL
    assert Path((tmp_path / "made").read_text()).parent == tmp_path / "tmp"
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["hpotune-datasets-another-1"]
