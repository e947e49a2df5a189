"""One hostile text in every field that a user's function can set, through every verb that prints and every format."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import hpotune.cli
from hpotune.checks.study_file import check
from hpotune.cli import app, main
from hpotune.config.text.outside_text import has_hidden
from hpotune.launch.prepare import prepare
from hpotune.records.trial import Failure, TrialResult, Worker
from hpotune.reporting.page.charts.figure_list import FIGURES
from hpotune.storage import Claim

TEXT = "=cmd()|'!A1\u202e\u200b;=1+1 [/b] :smile: <b onclick=x>y</b> `c` | _e_ {x}"
MESSAGE = f"{TEXT} \x1b]0;title\x07\x1b[2J\x9b31m"
"""A study file cannot hold ESC, but an exception can."""
SHOWN = "=cmd()|'!A1<U+202E><U+200B>;=1+1 [/b] :smile: <b onclick=x>y</b> `c` | _e_ {x}"
VERBS = [
    ["status"], ["trials"], ["best"], ["why", "0"], ["why", "1"], ["logs", "0"], ["logs", "--job", "local"],
    ["provenance"], ["plan"], ["retry"], ["cancel"], ["extend", "--trials", "+1"], ["plot"],
    ["export", "--as", "study", "OUT"],
]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with one failed and three scored trials; TEXT is a choice, a metric, a message, and in the logs."""
    home = tmp_path_factory.mktemp("hostile")
    values = {
        "name": "hostile", "python": "own.py:f", "store": "sqlite", "budget": {"trials": 4},
        "params": {"x": {"float": [-2, -1]}, "kind": {"choice": [TEXT, "-1", "b"]}},
        "score": {"objective": {"metric": "loss", "direction": "minimize"}},
        "search": {"algorithm": "random", "start_from": [{"params.kind": TEXT, "params.x": x} for x in (-1.2, -1.5)]},
    }  # fmt: skip
    (home / "own.py").write_text("def f(**point):\n    return 1\n")
    (home / "study.yaml").write_text(yaml.safe_dump(values))
    prepared = prepare(home / "study.yaml", chosen=None, data_root=None)
    for number in range(4):
        claim = prepared.store.claim(Worker(job="local", host=f"n\x1b[1m{TEXT}", pid=1))
        assert isinstance(claim, Claim)
        log = prepared.folder.trial(number) / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"Traceback (most recent call last):\n  File x\nValueError: {MESSAGE}\n")
        if number == 0:
            prepared.store.record_failure(claim.trial_id, Failure(cause="user", message=MESSAGE))
            continue
        metrics = {"loss": float(number), MESSAGE: -2.5}
        result = TrialResult(number=number, state="finished", values=[float(number)], metrics=metrics)
        prepared.store.complete(claim.trial_id, result)
    (prepared.folder.jobs / "local").mkdir(parents=True)
    (prepared.folder.jobs / "local" / "worker-0.log").write_text(f"\x1b[31mworker\x1b[0m {MESSAGE}\n")
    return home / "study.yaml"


def printed(*words: object) -> str:
    return CliRunner().invoke(app, list(map(str, words))).output


def written(study: Path, kind: str) -> str:
    file = study.with_name(f"report.{kind}")
    assert "wrote" in printed("report", study, "-o", file)
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", VERBS, ids=lambda words: " ".join(words))
def test_verbs_print_nothing_hidden(words: list[str], study: Path, tmp_path: Path) -> None:
    text = printed(words[0], study, *(tmp_path / "out" if word == "OUT" else word for word in words[1:]))
    assert text
    assert not has_hidden(text)
    if words[0] in ("trials", "best"):
        assert "<U+202E>" in text
    if words in (["why", "0"], ["logs", "0"], ["logs", "--job", "local"]):
        assert f"{SHOWN} <U+001B>]0;title" in text
    for file in tmp_path.rglob("*.yaml"):
        assert yaml.safe_load(file.read_text())["params"]["kind"] == TEXT
        assert not has_hidden(file.read_text())


@pytest.mark.parametrize("verb", ["status", "trials", "best", "why", "provenance", "report"])
def test_json_is_ascii(verb: str, study: Path) -> None:
    text = printed(verb, study, *(["0"] if verb == "why" else []), "--json")
    assert text.isascii()
    assert not has_hidden(text)
    json.loads(text)


def test_markdown_report_has_no_markup(study: Path) -> None:
    text = written(study, "md")
    assert not has_hidden(text)
    assert "<b onclick" not in text.replace("\\<", "")
    cells = [re.sub(r"\\.", "", line).count("|") for line in text.splitlines() if line.startswith("| ")]
    head = [re.sub(r"\\.", "", line) for line in text.splitlines()]
    assert "\\<U+001B\\>" in text
    assert cells
    assert not [line for line in head if "`" in line or "<" in line]


def test_html_report_has_no_markup(study: Path) -> None:
    page = re.sub(r'<script type="module">.*?</script>', "", written(study, "html"), flags=re.DOTALL)
    assert not has_hidden(page)
    assert "<b onclick" not in page
    assert "&lt;U+001B&gt;]0;title" in page


def test_csv_report_computes_nothing(study: Path) -> None:
    text = written(study, "csv")
    rows = list(csv.reader(io.StringIO(text)))
    for separator in ",;":
        for row in csv.reader(io.StringIO(text), delimiter=separator):
            assert not [cell for cell in row if re.match(r"[\s']*[=+@]|[\s']*-(?![\d.]+(e-?\d+)?$)", cell)]
    assert not has_hidden(text)
    points = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert points[1]["params.x"] == "-1.5"
    assert points[2]["loss"] == "2.0"


def test_csv_points_read_back(study: Path) -> None:
    """By `search.start_from`, and by `hpotune import`."""
    rows = list(csv.DictReader(io.StringIO(written(study, "csv"))))
    names = ("params.x", "params.kind", "loss")
    home = study.parent / "again"
    home.mkdir()
    (home / "own.py").write_text("def f(**point):\n    return 1\n")
    with (home / "points.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*names[:2], "value"])
        table.writeheader()
        table.writerows(
            {"params.x": row["params.x"], "params.kind": row["params.kind"], "value": row["loss"]}
            for row in rows
            if row["state"] == "finished"
        )
    values = yaml.safe_load(study.read_text()) | {"name": "again"}
    values["search"]["start_from"] = "points.csv"
    (home / "study.yaml").write_text(yaml.safe_dump(values))
    points = [start.params for start in check(home / "study.yaml").starts]
    assert points[0]["params.kind"] == TEXT
    assert (points[0]["params.x"], len(points)) == (-1.5, 3)
    said = printed("import", home / "points.csv", "-o", home / "made.yaml", "--direction", "minimize")
    assert not has_hidden(said)
    assert TEXT in yaml.safe_load((home / "made.yaml").read_text())["params"]["kind"]["choice"]
    assert not has_hidden((home / "made.yaml").read_text() + (home / "made_trials.csv").read_text())


def test_figures_are_valid_xml(study: Path, tmp_path: Path) -> None:
    drawn = []
    for name in FIGURES:
        file = tmp_path / f"{name}.svg"
        if "wrote" in printed("plot", study, name, "-o", file):
            ET.parse(file)
            assert not has_hidden(file.read_text(encoding="utf-8"))
            drawn.append(name)
    assert "score-by-parameter" in drawn


def test_names_of_files_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ["check", f"{tmp_path}/a\x1b[2J\u202e.yaml"],
        ["status", f"{tmp_path}/\x9b\x07"],
        ["\x1b[2J"],
    ):
        monkeypatch.setattr(sys, "argv", ["hpotune", *words])
        with pytest.raises(SystemExit):
            main()
        text = capsys.readouterr().err
        assert "<U+" in text or "\\x1b" in text
        assert not has_hidden(text)


def test_verbs_print_by_one_function() -> None:
    """Only `say` prints text; the rest are documents in a format of their own."""
    calls = {
        path.name: path.read_text().count("typer.echo(")
        for path in Path(hpotune.cli.__file__).parent.glob("*.py")
    }
    assert {name: count for name, count in calls.items() if count} == {"common.py": 2, "report.py": 1}
