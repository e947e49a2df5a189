"""docs/messages.md has the message of every error that the code raises, and those that real mistakes give."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpotune.config.load import load_study
from hpotune.config.schema.execution import Cause
from hpotune.errors import StudyFileError
from hpotune.records.stop_reason import StopKind
from hpotune.search.algorithms.registry import check_algorithm
from hpotune.search.sampler_setup import sampler_setup

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))
import source_messages  # noqa: E402

PAGE = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HANDED_ON = {
    "self.mistakes", "end.failure", "opened.failure", "*without_key", "*source.messages(mistakes)",
    "*study.source.messages(mistakes)", "_circle(waiting)", "r, error", "*bounded(reader.mistakes)", "lines[-1]",
    "mistake", "str(error)", "shared[0]", "entry, error", "*found.mistakes", "'\\n'.join(done.mistakes)",
    "*self.mistakes", "*without_key, *source.messages(mistakes)",
}  # fmt: skip
"""Arguments of errors that hand on texts which stand on the page from where they are made."""
GOOD = """\
name: s
python: f.py:f
params: {x: {float: [0, 1]}}
score: {objective: {metric: value, direction: minimize}}
budget: {trials: 3}
"""
WRONG = {
    "unknown key": ("budget:", "bugdet:"),
    "nothing": ("trials: 3", "trials: 0"),
    "log": ("{float: [0, 1]}", "{float: [0, 1], log: true}"),
    "ends": ("[0, 1]", "[2, 1]"),
    "twice": ("{float: [0, 1]}", "{choice: [1, 1]}"),
    "condition": ("{float: [0, 1]}", "{float: [0, 1], when: {params.y: 1}}"),
    "expression": ("{float: [0, 1]}", "{expr: '2 * params.z'}"),
    "kind": ("trials: 3", "trials: many"),
    "name": ("name: s", "name: 'a/b'"),
    "algorithm": ("budget:", "search: {algorithm: tpo}\nbudget:"),
    "option": ("budget:", "search: {algorithm: soo, options: {nothing: 1}}\nbudget:"),
    "prior": ("{float: [0, 1]}", "{float: [0, 1], prior: 3}"),
}
"""What is wrong -> the change of the good file."""


def documented() -> list[re.Pattern[str]]:
    """The messages of the page as patterns: a placeholder, an option and an alternative stand for any text."""
    texts = re.findall(r"^- `+ ?(.*?) ?`+$", PAGE, re.MULTILINE)
    assert len(texts) > 900
    found = []
    for text in texts:
        marked = re.sub(r"\{[^{}]*\}|\[[^\]]*\]|…|FILE:LINE|REASON|KEY=VALUE|\S*\|\S*", "\0", text)
        marked = re.sub(r" ?\0 ?", "\0", marked)
        found.append(re.compile(".*".join(map(re.escape, marked.split("\0"))), re.DOTALL))
    return found


def found_in(file: Path) -> Sequence[str]:
    """What is wrong in a study file, a line each."""
    try:
        study = load_study(file)
        check_algorithm(study, sampler_setup(study, study.config))
    except StudyFileError as error:
        return error.mistakes
    return ()


def test_no_error_is_without_text() -> None:
    found = source_messages.unresolved(source_messages.read_source())
    arguments = {re.sub(r"^[^ ]+ \w+\((.*)\)$", r"\1", line) for line in found}
    assert arguments <= HANDED_ON


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_real_messages_are_documented(change: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    (tmp_path / "f.py").write_text("def f(x):\n    return x\n")
    file.write_text(GOOD.replace(*change))
    mistakes = found_in(file)
    assert mistakes
    patterns = documented()
    for mistake in mistakes:
        assert [one.pattern for one in patterns if len(one.pattern) > 12 and one.search(mistake)], mistake


def test_causes_and_stops_are_explained() -> None:
    for cause in Cause.__args__:  # type: ignore[attr-defined]
        assert f"| `{cause}` |" in PAGE
        assert f"| `{cause}` |" in TROUBLES
    assert [kind for kind in StopKind.__args__ if f"| `{kind}` |" not in PAGE] == []  # type: ignore[attr-defined]
