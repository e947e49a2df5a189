"""The layout: imports, sizes and names of files, and tests that mirror the rooms. Read from the source only."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hpotune"
# The one module of another room that imports transformers; it is loaded when hpotune.TrainerCallback is used.
USES_TRANSFORMERS = "api/in_trial/trainer_callback.py"
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "lm_eval", "safetensors", "gguf"}

# Room -> rooms of hpotune that it may import, besides itself and errors. A room imports only rooms above it in this
# list, so there are no circles between rooms. docs/design.md has the same table with what each room holds.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "config": set(),
    "records": {"config"},
    "workspace": {"config", "records"},
    "schedule": {"config", "records"},
    "statistics": set(),
    "search": {"config", "records"},
    "finetune": {"config", "records", "workspace", "statistics"},
    "storage": {"config", "records", "workspace", "schedule", "search"},
    "worker": {"config", "records", "workspace", "schedule", "storage"},
    "slurm": {"config", "records", "workspace", "schedule"},
    "warm_start": {"config", "workspace", "schedule", "search", "storage"},
    "checks": {"config", "records", "workspace", "schedule", "search", "storage", "slurm", "warm_start"},
    "launch": {
        "config",
        "records",
        "workspace",
        "schedule",
        "search",
        "storage",
        "slurm",
        "warm_start",
        "checks",
    },
    "planning": {"config", "records", "workspace", "schedule", "storage", "slurm", "checks", "launch"},
    "reporting": {"config", "records", "workspace", "schedule", "storage", "statistics", "planning"},
    "exchange": {"config", "records", "workspace", "schedule", "storage", "reporting"},
    "api": {
        "config",
        "records",
        "workspace",
        "schedule",
        "search",
        "storage",
        "slurm",
        "checks",
        "launch",
        "planning",
        "reporting",
        "exchange",
    },
    # it loads no package at its start: scripts/slurm-cluster runs parts of it under any Python
    "lab": {"config", "records", "workspace", "schedule", "storage", "reporting"},
    "cli": {
        "config",
        "records",
        "workspace",
        "schedule",
        "search",
        "storage",
        "worker",
        "slurm",
        "checks",
        "launch",
        "planning",
        "reporting",
        "exchange",
        "api",
        "lab",
    },
    "__main__": {"cli"},
}


def room(path: Path) -> str:
    """The first part of a file's path in the package: its room."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
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


FILES = sorted(f for f in PACKAGE.rglob("*.py") if "templates" not in f.relative_to(PACKAGE).parts[:1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    own = room(path)
    rooms = {
        name.split(".")[1] for name in imports(path) if name.startswith("hpotune.") and name.count(".") >= 1
    }
    assert rooms - {own, "errors", "__version__"} <= MAY_IMPORT[own]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_finetune_imports_heavy_libraries(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)} & HEAVY
    allowed = {"transformers"} if str(path.relative_to(PACKAGE)) == USES_TRANSFORMERS else set()
    assert not found - allowed or room(path) == "finetune"


def test_finetune_is_never_imported() -> None:
    assert [
        p
        for p in FILES
        if room(p) != "finetune" and any(n.startswith("hpotune.finetune") for n in imports(p))
    ] == []


def test_cli_imports_inside_functions_only() -> None:
    named = {name for path in (PACKAGE / "cli").glob("*.py") for name in imports(path, top_only=True)}
    assert [name for name in named if name.startswith("hpotune") and not name.startswith("hpotune.cli")] == []


def test_rooms_import_only_rooms_above() -> None:
    order = list(MAY_IMPORT)
    upward = {
        (r, other)
        for r, others in MAY_IMPORT.items()
        for other in others
        if order.index(other) > order.index(r)
    }
    assert upward == set()


def test_files_import_without_circles() -> None:
    names = {
        ".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): f
        for f in FILES
    }
    arrows = {
        name: {n if n in names else n.rpartition(".")[0] for n in imports(f) if n.startswith("hpotune")}
        & names.keys()
        for name, f in names.items()
    }
    left = {name: others - {name} for name, others in arrows.items()}
    while ground := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in ground}
    assert left == {}


def test_files_have_at_most_400_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path): n for path, n in lengths.items() if n > 400} == {}


# Files that may be short: one file a plug (an algorithm, an objective), and the starts of a package or program.
PLUGS = ("search/algorithms/", "worker/objective/")
SHORT = {
    "reporting/page/page_markdown.py",  # one format of the report a file
}


def modules() -> list[Path]:
    """The files of the package, relative to it, without `__init__` and `__main__`."""
    return [f.relative_to(PACKAGE) for f in FILES if f.stem not in ("__init__", "__main__")]


def test_package_has_at_most_19_rooms() -> None:
    rooms = {path.parts[0] for path in modules() if len(path.parts) > 1}
    assert len(rooms) <= 19, sorted(rooms)
    assert rooms == {name for name in MAY_IMPORT if (PACKAGE / name).is_dir()}


def test_folders_have_at_most_20_modules() -> None:
    counts = Counter(str(path.parent) for path in modules())
    assert {folder: count for folder, count in counts.items() if count > 20} == {}


def test_module_names_are_unique() -> None:
    names: dict[str, list[str]] = {}
    for path in modules():
        names.setdefault(path.stem, []).append(str(path))
    assert {name: paths for name, paths in names.items() if len(paths) > 1} == {}


def test_no_file_is_too_short() -> None:
    lines = {str(path): len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) for path in modules()}
    short = {path for path, count in lines.items() if count < 40 and not path.startswith(PLUGS)}
    assert short <= SHORT


TESTS = sorted((PACKAGE.parent / "tests").rglob("test_*.py"))
# Folders of tests that mirror no room: what crosses rooms, files beside the package, and data.
CROSSING = {"cluster", "configs", "data", "docs", "fixtures", "scripts", "wrong_files"}
# Tests in a room's folder that belong to several of its modules -> what they are about.
SEVERAL = {
    "finetune/test_untrained_trials.py": "trials of a study that trains nothing",
    "cli/test_help.py": "the help of every verb",
    "cli/test_json.py": "the JSON of every verb",
    "cli/test_outside_text.py": "what every verb prints of text from outside",
    "finetune/distributed/test_two_ranks.py": "a whole trial on two ranks",
    "finetune/training/test_lineage.py": "a trial that continues from its parent's checkpoint",
    "finetune/training/test_rungs.py": "a trial that continues from its last rung",
    "finetune/training/test_trainer_oracle.py": "training beside transformers' Trainer",
    "search/algorithms/test_designs.py": "grid, lhs, qmc and random",
    "search/algorithms/test_populations.py": "aco, cmaes, de, nsga and pso",
    "search/test_everything_at_once.py": "every capability in one study",
}


def is_mirror(path: Path) -> bool:
    """Whether hpotune/a/b.py or folder hpotune/a/b exists for tests/a/test_b.py or tests/a/test_b_subject.py."""
    words = path.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    folder = PACKAGE / path.parent
    return any(
        (folder / name).is_dir() or (folder / f"{name}.py").is_file() or (folder / f"__{name}__.py").is_file()
        for name in names
    )


def test_tests_mirror_the_rooms() -> None:
    paths = [path.relative_to(PACKAGE.parent / "tests") for path in TESTS]
    in_rooms = [path for path in paths if len(path.parts) > 1 and path.parts[0] not in CROSSING]
    assert [str(path) for path in in_rooms if str(path) not in SEVERAL and not is_mirror(path)] == []
    assert set(SEVERAL) <= {str(path) for path in in_rooms}


def test_names_of_tests_are_short() -> None:
    defined = [
        (path.relative_to(PACKAGE.parent), node.name)
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert [f"{path}: {name}" for path, name in defined if len(name.split("_")) > 7] == []


def test_no_test_imports_a_test() -> None:
    found = [
        (str(path.relative_to(PACKAGE.parent)), name)
        for path in sorted((PACKAGE.parent / "tests").rglob("*.py"))
        for name in imports(path)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split(".")[1:])
    ]
    assert found == []


def test_registered_marks_are_used() -> None:
    settings = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    registered = settings.partition("markers = [")[2].partition("]")[0]
    marks = set(re.findall(r'"(\w+):', registered))
    assert marks
    text = "\n".join(path.read_text(encoding="utf-8") for path in TESTS if path.name != Path(__file__).name)
    assert {mark for mark in marks if f"pytest.mark.{mark}" not in text} == set()


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
def test_login_verbs_load_no_heavy_libraries(verb: list[str]) -> None:
    assert loaded_by(verb) & HEAVY == set()


def test_study_verbs_load_no_heavy_libraries(tmp_path: Path) -> None:
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
