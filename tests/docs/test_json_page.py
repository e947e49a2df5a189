"""docs/json.md has every verb with `--json` and the keys of real documents; the Python reference every public name."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

import hpotune
from hpotune.cli import app
from hpotune.planning.study_plan import make_plan
from hpotune.records.jobs import JobRow
from hpotune.reporting.json_output import as_json
from hpotune.reporting.views.best import best_result
from hpotune.reporting.views.plan_view import plan_view
from hpotune.reporting.views.why import why_result
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.report_rows import ASHA, FINETUNE, NOW, attempt, config, finished, running, status_of

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))
import result_page  # noqa: E402
from source_messages import called  # noqa: E402

PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
PYTHON = (ROOT / "docs" / "python_reference.md").read_text(encoding="utf-8")


def keys(name: str) -> set[str]:
    """The keys of an object of the page."""
    section = PAGE.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def objects(view: object) -> Iterator[tuple[str, Any]]:
    """Each dataclass inside a view with its document."""
    if dataclasses.is_dataclass(view):
        yield type(view).__name__, as_json(view)
        for field in dataclasses.fields(view):
            yield from objects(getattr(view, field.name))
    elif isinstance(view, Mapping):
        for one in view.values():
            yield from objects(one)
    elif isinstance(view, Sequence) and not isinstance(view, str):
        for one in view:
            yield from objects(one)


def commands(group: Any, start: str = "") -> Iterator[tuple[str, Any]]:
    """Verbs by name, those of a group such as `lab` after it."""
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from commands(verb, f"{start}{name} ")
        elif not verb.hidden:
            yield f"{start}{name}", verb


def options(verb: Any) -> set[str]:
    return {word for option in verb.params for word in option.opts}


def test_every_verb_with_json_is_there() -> None:
    verbs = {name for name, verb in commands(typer.main.get_command(app)) if "--json" in options(verb)}
    assert {name for name in verbs if f"\n## {name}\n" not in PAGE} == set()
    assert {*result_page.VIEWS, *result_page.OWN} <= verbs


def test_documents_have_the_documented_keys(tmp_path: Path) -> None:
    folder, found = StudyFolder(path=tmp_path), config(**FINETUNE)
    rows = [finished(0, 0.5, kind="baseline"), finished(1, 0.8), finished(2, 0.79)]
    views = [
        status_of([finished(0), running(1)], [JobRow(id="5_0", state="RUNNING")]),
        best_result(folder, found, rows),
        why_result(folder, config(**ASHA), [finished(0, attempts=(attempt("paused"), attempt()))], 0),
        plan_view(make_plan(StudyFolder(path=tmp_path / "s"), config(), [], now=NOW)),
    ]
    seen = [(name, document) for view in views for name, document in objects(view)]
    assert len({name for name, _ in seen}) > 12
    for name, document in seen:
        if isinstance(document, dict):
            assert document.keys() <= keys(name), name


def test_own_mappings_have_their_keys() -> None:
    """The mappings that verbs print themselves."""
    printed: set[str] = set()
    for path in (ROOT / "hpotune" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and called(node.func) == "print_json"
                and isinstance(node.args[0], ast.Dict)
            ):
                printed |= {str(ast.literal_eval(key)) for key in node.args[0].keys if key is not None}
    assert len(printed) > 15
    assert printed <= {key for own in result_page.OWN.values() for key in own}


def test_every_public_name_is_there() -> None:
    names = {*hpotune._MODULES} - {"errors", "search"}
    assert {name for name in names if f"\n### hpotune.{name}\n" not in PYTHON} == set()
    methods = {name for name in vars(hpotune.Study) if not name.startswith("_")}
    assert {name for name in methods if f"\n#### Study.{name}\n" not in PYTHON} == set()
    errors = {name for name in vars(hpotune.errors) if name.endswith(("Error", "Timeout", "Warning"))}
    assert {name for name in errors if f"\n### hpotune.errors.{name}\n" not in PYTHON} == set()
