"""What a function's or a command's answer becomes; each trial is the process it really is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.objective.command import fill_in
from hpotune.objective.interface import Setting
from hpotune.objective.process import Stop, marked
from hpotune.objective.registry import open_objective
from hpotune.records.trial import TrialResult, TrialSpec

LOSS = [{"metric": "loss"}]


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates a command, or the body of a function of x, at some params."""

    def evaluated(
        command: str | None = None,
        function: str | None = None,
        params: dict | None = None,
        objective: list | None = None,
        stop: Stop | None = None,
        env: dict | None = None,
    ) -> TrialResult:
        score = {"objective": objective or LOSS}
        home, folder = tmp_path / "home", tmp_path / "trial"
        home.mkdir(exist_ok=True), folder.mkdir(exist_ok=True)
        own = {"command": command}
        if function:
            (home / "own.py").write_text(f"def f(x=0, **others):\n    {function}\n")
            own = {"python": f"{home}/own.py:f"}
        values = {"name": "s", "score": score, "budget": {"trials": 1}, "params": params or {}, **own}
        config = StudyConfig.model_validate({**values, "env": {"vars": env or {}}})
        spec = TrialSpec.model_validate(
            {
                **own, "study": "s", "number": 3, "kind": "trial", "seed": 0, "folder": str(folder),
                "home": str(home), "point": {"score": score, "params": params or {}},
            }
        )  # fmt: skip
        with open_objective(Setting(config=config, env=os.environ, stop=stop or Stop())) as run:
            return run([spec])[0]

    return evaluated


def test_a_functions_number_is_the_value(evaluate):
    assert evaluate(function="return x * 2", params={"x": 1.5}).values == [3.0]


def test_a_functions_dict_gives_several_metrics_with_their_errors(evaluate):
    objective = [{"metric": "loss"}, {"metric": "acc"}]
    result = evaluate(
        function="return {'loss': 1, 'acc': 0.5, 'acc_stderr': 0.1, 'other': 7}", objective=objective
    )
    assert (result.values, result.stderrs, result.metrics["other"]) == ([1.0, 0.5], [None, 0.1], 7)


def test_a_functions_file_may_define_dataclasses(evaluate, tmp_path):
    (tmp_path / "home").mkdir()
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: float\n"
    (tmp_path / "home" / "kinds.py").write_text(text)
    body = (
        "exec(open('kinds.py').read(), globals()); import pickle; return pickle.loads(pickle.dumps(A(x))).x"
    )
    assert evaluate(function=body, params={"x": 0.5}).values == [0.5]


def test_a_functions_numpy_number_is_a_number(evaluate):
    result = evaluate(function="import numpy; return {'loss': numpy.float32(0.5), 'n': numpy.int64(3)}")
    assert (result.values, result.metrics) == ([0.5], {"loss": 0.5, "n": 3})


@pytest.mark.parametrize(
    ("body", "cause", "message"),
    [
        ("return 'high'", "user", "gave no number for 'loss'"),
        ("return None", "user", "gave no number for 'loss'"),
        ("return True", "user", "gave no number for 'loss'"),
        ("return {'los': 1}", "user", "gave no number for 'loss'; it gave los"),
        ("return float('nan')", "nan", "loss is nan"),
        ("return float('inf')", "nan", "loss is inf"),
        ("raise KeyError('lr')", "user", "KeyError: 'lr'"),
        ("raise ValueError('two\\nlines')", "user", "ValueError: two lines"),
        ("raise MemoryError('full')", "oom", "ran out of memory (full)"),
        ("raise RuntimeError('CUDA out of memory. Tried')", "oom", "RuntimeError: CUDA out of memory. Tried"),
        ("raise SystemExit(3)", "user", "its process ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed", "its process was killed by SIGKILL"),
    ],
)
def test_a_function_that_gives_no_value_fails_with_its_reason(evaluate, body, cause, message):
    result = evaluate(function=body)
    assert (result.state, result.failure.cause) == ("failed", cause)
    assert result.failure.message.startswith(message)


def test_a_function_imports_its_neighbours_and_runs_beside_the_study_file(evaluate, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "beside.py").write_text("import os\nVALUE = float(os.path.exists('own.py'))\n")
    assert evaluate(function="import beside; return beside.VALUE").values == [1.0]


def test_a_commands_last_json_line_is_its_value(evaluate):
    line = """echo '{{"loss": 9}}'; echo text; echo '{{"loss": 0.5, "loss_stderr": 0.1}}'; echo done"""
    result = evaluate(line)
    assert (result.values, result.stderrs) == ([0.5], [0.1])


def test_a_bare_number_on_the_last_line_is_a_value(evaluate):
    assert evaluate("echo 0.25").values == [0.25]


def test_a_json_line_without_the_metric_is_passed_over(evaluate):
    assert evaluate("""echo '{{"loss": 0.5}}'; echo true; echo '{{"step": 9}}'""").values == [0.5]


def test_a_bare_number_is_no_value_of_two_objectives(evaluate):
    objective = [{"metric": "loss"}, {"metric": "acc"}]
    assert evaluate("""echo '{{"loss": 1, "acc": 0.5}}'; echo 7""", objective=objective).values == [1.0, 0.5]


def test_the_result_file_wins_over_the_output(evaluate):
    assert evaluate("""echo '{{"loss": 2}}' > "$HPOTUNE_RESULT"; echo 7""").values == [2.0]


def test_a_command_sees_its_params_in_the_environment(evaluate):
    line = """python3 -c 'import os, json; print(json.loads(os.environ["HPOTUNE_PARAMS"])["lr"])'"""
    assert evaluate(line, params={"lr": 0.125}).values == [0.125]


def test_a_command_sees_env_vars_of_the_study(evaluate):
    assert evaluate("echo $GIVEN", env={"GIVEN": "4"}).values == [4.0]


@pytest.mark.parametrize(
    ("line", "cause", "message"),
    [
        ("echo nothing", "user", "printed no JSON line"),
        ("echo '[1]'", "user", "printed no JSON line"),
        ("echo '{{' > $HPOTUNE_RESULT", "user", "wrote a file that is not JSON"),
        ("echo NaN", "nan", "loss is nan"),
        ("echo 0.5; exit 4", "user", "its process ended with exit code 4: 0.5"),
        ("nosuchprogram", "user", "its process ended with exit code 127"),
        ("kill -9 $$", "killed", "its process was killed by SIGKILL"),
        ("python3 -c 'import os; os.abort()'; exit 137", "killed", "its process was killed by SIGKILL"),
        (
            "echo 'torch.OutOfMemoryError: CUDA out of memory.'; exit 1",
            "oom",
            "its process ended with exit code 1",
        ),
        ("echo 'slurmstepd: error: Detected 1 oom_kill event'; kill -9 $$", "oom", "its process was killed"),
        ("echo {momentum}", "user", "the command needs 'momentum', which this trial does not have"),
    ],
)
def test_a_command_that_gives_no_value_fails_with_its_reason(evaluate, line, cause, message):
    result = evaluate(line)
    assert (result.state, result.failure.cause) == ("failed", cause)
    assert result.failure.message.startswith(message)


def test_a_metric_that_is_not_finite_is_recorded_as_null(evaluate):
    assert evaluate("""echo '{{"loss": 1, "grad": Infinity}}'""").metrics == {"loss": 1, "grad": None}


NASTY = [
    "two words",
    "it's",
    '"',
    "$(touch hacked)",
    "`touch hacked`",
    "; touch hacked",
    "a\nb",
    "*",
    "-n",
    "{x}",
    "",
]


@pytest.mark.parametrize("text", NASTY)
def test_a_string_reaches_the_command_letter_by_letter(evaluate, text, tmp_path):
    line = """python3 -c 'import sys, json; print(json.dumps(dict(loss=0, got=sys.argv[1])))' {text}"""
    assert evaluate(line, params={"text": text}).metrics["got"] == text
    assert not (tmp_path / "home" / "hacked").exists()


def test_lists_and_flags_reach_the_command_as_json():
    assert fill_in("run {a} {b} {{}}", {"a": ["q", "v"], "b": True}) == """run '["q", "v"]' true {}"""


def test_a_value_of_an_earlier_attempt_is_not_taken_for_this_ones(evaluate, tmp_path):
    evaluate("""echo '{{"loss": 2}}' > "$HPOTUNE_RESULT" """)
    assert evaluate("true").state == "failed"


def test_a_line_of_an_earlier_attempt_is_not_taken_for_this_ones(evaluate):
    evaluate("echo 2")
    assert evaluate("true").state == "failed"


def test_a_memory_shortage_of_an_earlier_attempt_is_not_this_ones(evaluate):
    evaluate("echo out of memory; exit 1")
    assert evaluate("exit 1").failure.cause == "user"


def until(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wish(stop: Stop, ready: Path, number: int = signal.SIGTERM) -> threading.Thread:
    """Utters the wish to end as soon as the trial has written a file."""

    def speak() -> None:
        assert until(ready.exists)
        stop._asked(number, None)

    thread = threading.Thread(target=speak)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_trial_that_is_asked_to_end_is_paused(evaluate, tmp_path, number):
    stop = Stop()
    speaker = wish(stop, tmp_path / "ready", number)
    result = evaluate(f"touch {tmp_path}/ready; sleep 60; echo 1", stop=stop)
    speaker.join()
    assert result.state == "paused"


def test_a_program_behind_a_shell_has_time_to_checkpoint(evaluate, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    time.sleep(1); pathlib.Path('saved').touch(); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, save); pathlib.Path('ready').touch(); time.sleep(60)\n"
    )
    stop = Stop()
    speaker = wish(stop, tmp_path / "home" / "ready")
    evaluate(f"true; {sys.executable} {tmp_path}/slow.py; true", stop=stop)
    speaker.join()
    assert (tmp_path / "home" / "saved").exists()


def test_a_trial_that_finishes_in_spite_of_the_wish_keeps_its_value(evaluate, tmp_path):
    stop = Stop()
    speaker = wish(stop, tmp_path / "home" / "ready")
    result = evaluate("trap '' TERM; touch ready; sleep 1; echo 4 > $HPOTUNE_RESULT", stop=stop)
    speaker.join()
    assert (result.state, result.values) == ("finished", [4.0])


def test_a_line_from_half_way_is_no_value_of_a_trial_that_was_asked_to_end(evaluate, tmp_path):
    stop = Stop()
    speaker = wish(stop, tmp_path / "home" / "ready")
    result = evaluate("trap 'exit 0' TERM; echo 9; touch ready; sleep 60 & wait", stop=stop)
    speaker.join()
    assert result.state == "paused"


def test_a_wish_that_came_before_the_process_reaches_it(evaluate):
    stop = Stop(signal=signal.SIGTERM)
    begun = time.monotonic()
    assert evaluate("sleep 60; echo 1", stop=stop).state == "paused"
    assert time.monotonic() - begun < 20


def test_what_a_command_leaves_in_the_background_ends_with_it(evaluate, tmp_path):
    evaluate("setsid sleep 300 & echo $! > pid; echo 1")
    pid = int((tmp_path / "home" / "pid").read_text())
    assert until(lambda: ended(pid))


def test_a_worker_killed_with_9_leaves_no_process(tmp_path):
    (tmp_path / "folder").mkdir()
    code = (
        "import os, sys; from pathlib import Path; from hpotune.objective.process import Stop, run; "
        "run(['bash', '-c', 'setsid sleep 301 & sleep 302'], folder=Path('folder'), env=os.environ, "
        "cwd=None, stop=Stop())"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "OF_THIS": str(tmp_path)}
    )
    ours = f"OF_THIS={tmp_path}"
    assert until(lambda: len(marked(ours)) >= 4)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert until(lambda: not marked(ours), 25)


def test_the_log_holds_what_the_command_wrote(evaluate, tmp_path):
    evaluate("echo out; echo err >&2; echo 1")
    assert (tmp_path / "trial" / "log.txt").read_text().splitlines() == ["out", "err", "1"]


def test_the_spec_lies_in_the_trials_folder(evaluate, tmp_path):
    evaluate("echo 1", params={"x": 2})
    assert json.loads((tmp_path / "trial" / "spec.json").read_text())["point"]["params"] == {"x": 2}
