"""What users wrote is printed as they wrote it: square brackets are no markup, words between colons no emoji."""

from __future__ import annotations

import ast
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

import hpotune
from hpotune.checks.finding import Finding
from hpotune.cli.common import show
from hpotune.reporting.console import plain_console
from hpotune.reporting.status_table import status_table
from hpotune.reporting.tables import findings_table
from tests.fixtures.report_rows import NOW, running, status_of

PACKAGE = Path(hpotune.__file__).parent
TEXT = "no end [/x], [value] and [bold]this[/bold] :smile: stay"
OWN = """\
import os, time
def fails(x, kind):
    until = time.monotonic() + 60
    while not os.path.exists("shown") and time.monotonic() < until:
        time.sleep(0.05)
    raise ValueError({text})
"""
STUDY = """\
name: brackets
python: own.py:fails
params:
  x: {float: [0, 1]}
  kind: {choice: ["[/x]", "[red]y"]}
score: {objective: {metric: value, direction: minimize}}
budget: {trials: 1, parallel: 1}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study whose one trial has failed with TEXT, and what `run` showed of it on a terminal.

    The trial fails once it was shown as running.
    """
    folder = tmp_path_factory.mktemp("brackets")
    (folder / "own.py").write_text(OWN.format(text=repr(TEXT)))
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml", on_terminal("run", folder / "study.yaml", shown=folder / "shown")


def on_terminal(*words: object, shown: Path | None = None) -> str:
    """What the command line writes to a terminal of 300 columns, without control sequences.

    `shown`: a file that is made when a parameter is seen there.
    """
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "hpotune", *map(str, words)]
    env = {**os.environ, "COLUMNS": "300", "LINES": "50", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env) as process:
        os.close(inner)
        written = b""
        try:
            while part := os.read(outer, 65536):
                written += part
                if shown is not None and b"kind=" in written:
                    shown.touch()
        except OSError:  # Linux's end of file of a terminal
            pass
        process.wait()
    os.close(outer)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())


def in_pipe(*words: object) -> str:
    command = [sys.executable, "-m", "hpotune", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("verb", [("trials",), ("why", "0"), ("logs", "0")], ids=lambda verb: verb[0])
def test_failure_text_is_shown_unchanged(verb: tuple[str, ...], study: tuple[Path, str]) -> None:
    words = (verb[0], study[0], *verb[1:])
    assert TEXT in in_pipe(*words)
    assert TEXT in on_terminal(*words)


def test_parameter_text_is_shown_unchanged(study: tuple[Path, str]) -> None:
    assert re.search(r"\[/x\]|\[red\]y", in_pipe("trials", study[0]))
    assert re.search(r"kind=(\[/x\]|\[red\]y)", study[1])  # the display of `run`


def test_status_shows_hosts_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    show(status_table(status_of([running(3, "[/5]", host="[/n7]")]), now=NOW))
    assert re.search(r"^3 .* \[/n7\] +\[/5\]", capsys.readouterr().out, re.MULTILINE)


def test_doctor_shows_extras_of_packages(capsys: pytest.CaptureFixture[str]) -> None:
    change = "trials need it: pip install 'hpotune[trial]'"
    show(findings_table([Finding(level="note", kind="library", text="no [/peft]", advice=change)]))
    shown = capsys.readouterr().out
    assert change in shown
    assert "no [/peft]" in shown


def test_plain_console_prints_text_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    plain_console(width=100).print(TEXT)
    plain_console(stderr=True, width=100).print(TEXT)
    assert tuple(capsys.readouterr()) == (f"{TEXT}\n", f"{TEXT}\n")


def test_hidden_characters_keep_the_styles(capsys: pytest.CaptureFixture[str]) -> None:
    text = Text.assemble("a\x1b[2J", ("b\u202ec", "bold"), "d\x1b")
    console = plain_console(width=100)
    (line,) = console.render_lines(text, pad=False)
    parts = [(segment.text, bool(segment.style and segment.style.bold)) for segment in line if segment.text]
    assert parts == [("a<U+001B>[2J", False), ("b<U+202E>c", True), ("d<U+001B>", False)]
    console.print(text)
    assert capsys.readouterr().out == "a<U+001B>[2Jb<U+202E>cd<U+001B>\n"


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_consoles_are_made_in_one_file(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    names = [ast.unparse(call.func).split(".")[-1] for call in calls]
    assert path.name == "console.py" or not {"Console", "from_markup", "render_str"} & set(names)
    for call, name in zip(calls, names, strict=True):
        if name == "TextColumn":
            assert "markup=False" in [ast.unparse(word) for word in call.keywords]
