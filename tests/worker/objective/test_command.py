"""The command objective: where its value is read, how parameters are quoted, its failures."""

from __future__ import annotations

import pytest

from hpotune.worker.objective.command import fill_in
from hpotune.worker.objective.process import StopRequest


def test_last_json_line_is_value(evaluate):
    line = """echo '{{"loss": 9}}'; echo text; echo '{{"loss": 0.5, "loss_stderr": 0.1}}'; echo done"""
    result = evaluate(line)
    assert (result.values, result.stderrs) == ([0.5], [0.1])


def test_bare_number_is_value(evaluate):
    assert evaluate("echo 0.25").values == [0.25]


def test_line_without_metric_is_skipped(evaluate):
    assert evaluate("""echo '{{"loss": 0.5}}'; echo true; echo '{{"step": 9}}'""").values == [0.5]


def test_two_objectives_need_names(evaluate):
    objective = [{"metric": "loss"}, {"metric": "acc"}]
    assert evaluate("""echo '{{"loss": 1, "acc": 0.5}}'; echo 7""", objective=objective).values == [1.0, 0.5]


def test_result_file_wins_over_output(evaluate):
    assert evaluate("""echo '{{"loss": 2}}' > "$HPOTUNE_RESULT"; echo 7""").values == [2.0]


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
def test_failure_has_cause_and_message(evaluate, line, cause, message):
    result = evaluate(line)
    assert (result.state, result.failure.cause) == ("failed", cause)
    assert result.failure.message.startswith(message)


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
def test_string_param_is_quoted(evaluate, text, tmp_path):
    line = """python3 -c 'import sys; open("got", "w").write(sys.argv[1]); print(0)' {text}"""
    evaluate(line, params={"text": text})
    assert (tmp_path / "home" / "got").read_text() == text
    assert not (tmp_path / "home" / "hacked").exists()


def test_lists_and_flags_become_json():
    assert fill_in("run {a} {b} {{}}", {"a": ["q", "v"], "b": True}) == """run '["q", "v"]' true {}"""


DOTTED = [{"optimizer.lr": 0.25}, {"optimizer": {"lr": 0.25, "name": "sgd"}}]


@pytest.mark.parametrize("params", DOTTED)
def test_dotted_name_arrives(evaluate, params):
    line = """echo "{{\\"loss\\": $HPOTUNE_PARAM_OPTIMIZER_LR, \\"got\\": {optimizer.lr}}}" """
    assert evaluate(line, params=params).metrics == {"loss": 0.25, "got": 0.25}


@pytest.mark.parametrize("name", ["learning rate", "learning-rate", "größe", "a[0]", "a/b"])
def test_any_name_is_filled_in(name):
    assert fill_in(f"run {{{name}}}", {name: 3}) == "run 3"


def test_mapping_is_filled_in_as_json():
    params = {"a": {"b": [1, {"c": None}]}}
    assert fill_in("run {a} {a.b.0} {a.b.1.c}", params) == """run '{"b": [1, {"c": null}]}' 1 null"""


def test_earlier_result_file_is_ignored(evaluate, tmp_path):
    evaluate("""echo '{{"loss": 2}}' > "$HPOTUNE_RESULT" """)
    assert evaluate("true").state == "failed"


def test_earlier_output_is_ignored(evaluate):
    evaluate("echo 2")
    assert evaluate("true").state == "failed"


def test_intermediate_line_is_no_value(evaluate, tmp_path, request_stop):
    stop = StopRequest()
    speaker = request_stop(stop, tmp_path / "home" / "ready")
    result = evaluate("trap 'exit 0' TERM; echo 9; touch ready; sleep 60 & wait", stop=stop)
    speaker.join()
    assert result.state == "paused"


CHAINED = """\
def read():
    try:
        open("rows.jsonl").read() and {}["row 8"]
    except OSError as error:
        raise ValueError("no rows") from error
try:
    read()
except ValueError as error:
    raise RuntimeError("cannot train") from error
"""


def test_hidden_reason_is_in_the_message(evaluate, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "train.py").write_text(CHAINED)
    failure = evaluate("python3 train.py").failure
    assert failure.cause == "user"
    assert failure.message == (
        "its process ended with exit code 1: RuntimeError: cannot train "
        "(FileNotFoundError: [Errno 2] No such file or directory: 'rows.jsonl')"
    )
