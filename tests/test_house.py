"""The import table: which room may import which. Read from the source, nothing is imported."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "hpotune"
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "lm_eval", "safetensors", "gguf"}

# Room -> rooms of hpotune that it may import, besides itself and errors. The table of docs/design.md.
MAY_IMPORT = {
    "errors": set(),
    "study": set(),
    "filesystem": set(),
    "templates": set(),
    "journal": set(),
    "storage": {"filesystem", "journal"},
    "search": {"study"},
    "plan": {"study"},
    "objective": {"study"},
    "trial": {"study"},
    "store": {"study", "search", "storage", "plan"},
    "worker": {"study", "store", "plan", "objective"},
    "simulate": {"study", "plan"},
    "launch": {"study", "plan", "simulate", "search", "store", "storage", "filesystem"},
    "report": {"study", "plan", "store"},
    "cli": {
        "study",
        "plan",
        "search",
        "store",
        "storage",
        "launch",
        "report",
        "worker",
        "templates",
        "errors",
    },
    "__main__": {"cli"},
    "__init__": set(),
}


def room(path: Path) -> str:
    """The first part of a file's place in the house."""
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return parts[0]


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Dotted names that a file imports, in bodies too unless `top_only`; what only a type checker sees is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = {id(n) for node in ast.walk(tree) if _type_checking(node) for n in ast.walk(node)}
    nodes = [node for node in (tree.body if top_only else ast.walk(tree)) if id(node) not in checked]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {
        f"{n.module}.{a.name}" for n in nodes if isinstance(n, ast.ImportFrom) and n.module for a in n.names
    }


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


FILES = sorted(HOUSE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_file_imports_only_rooms_that_the_table_allows(path: Path) -> None:
    own = room(path)
    rooms = {
        name.split(".")[1] for name in imports(path) if name.startswith("hpotune.") and name.count(".") >= 1
    }
    assert rooms - {own, "errors", "__version__"} <= MAY_IMPORT[own]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_heavy_libraries_stand_only_in_the_trial_room(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)} & HEAVY
    assert not found or room(path) == "trial"


def test_nobody_imports_the_trial_room() -> None:
    assert [
        p for p in FILES if room(p) != "trial" and any(n.startswith("hpotune.trial") for n in imports(p))
    ] == []


def test_the_command_line_imports_nothing_of_hpotune_before_a_verb_is_called() -> None:
    named = {name for path in (HOUSE / "cli").glob("*.py") for name in imports(path, top_only=True)}
    assert [name for name in named if name.startswith("hpotune") and not name.startswith("hpotune.cli")] == []


def test_files_fit_in_the_head() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path): n for path, n in lengths.items() if n > 400} == {}


@pytest.mark.parametrize(
    "verb",
    [
        ["--help"],
        ["init"],
        ["check", "--help"],
        ["status", "--help"],
        ["submit", "--help"],
        ["doctor", "--help"],
    ],
    ids=" ".join,
)
def test_a_verb_on_a_login_node_loads_none_of_the_heavy_libraries(verb: list[str]) -> None:
    assert loaded_by(verb) & HEAVY == set()


def test_check_status_trials_and_best_load_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def f(x):\n    return x\n")
    (tmp_path / "s.yaml").write_text(
        "name: s\npython: f.py:f\nparams: {x: {float: [0, 1]}}\n"
        "score: {objective: {metric: value, direction: minimize}}\nbudget: {trials: 1}\n"
    )
    for verb in (["check"], ["run"], ["status"], ["trials"], ["best"]):
        assert loaded_by([*verb, str(tmp_path / "s.yaml")]) & HEAVY == set(), verb


def loaded_by(arguments: list[str]) -> set[str]:
    """Top-level modules in a fresh interpreter after it has run the command line with these arguments."""
    import subprocess

    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', *{m.split('.')[0] for m in sys.modules}))\n"
        f"sys.argv = ['hpotune', *{arguments!r}]\n"
        "from hpotune.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(next(line for line in done.stdout.splitlines() if line.startswith("LOADED")).split()[1:])
