"""The package as users install it: a wheel in an environment of its own, and the README's commands with it.

The dependencies come from the environment that runs the tests; hpotune itself does not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VERBS = re.findall(r"`hpotune ([a-z-]+)`", README.partition("All verbs:")[2].partition("Exit codes:")[0])
CONSOLE = "\n\n".join(re.findall(r"^```console\n(.*?)\n```", README, re.DOTALL | re.MULTILINE))
SHOWN = dict(re.findall(r"^\$ (hpotune .*)\n((?:(?!\$ ).+\n?)*)", CONSOLE, re.MULTILINE))
"""A command of the README's console -> the output below it."""

HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "lm_eval", "safetensors", "gguf"}
ON_JOBS = {"worker", "follow-up", "rehearse"}
LOGIN = {
    "init": ("function", "-o", "lab.yaml"),
    "check": ("lab.yaml",),
    "fetch": ("lab.yaml",),
    "bundle": ("lab.yaml",),
    "env": ("create", "lab.yaml"),
    "preview": ("lab.yaml",),
    "sites": ("alvis",),
    "lab": ("prepare", "1"),
    "plan": ("lab.yaml",),
    "run": ("lab.yaml",),
    "submit": ("lab.yaml",),
    "status": ("lab.yaml",),
    "wait": ("lab.yaml",),
    "trials": ("lab.yaml",),
    "best": ("lab.yaml",),
    "test": ("lab.yaml",),
    "logs": ("lab.yaml", "0"),
    "report": ("lab.yaml",),
    "plot": ("lab.yaml", "score-over-trials"),
    "dashboard": ("lab.yaml", "--port", "-1"),
    "sync": ("lab.yaml", "--to", "none"),
    "why": ("lab.yaml", "0"),
    "provenance": ("lab.yaml", "0"),
    "rerun": ("lab.yaml", "0"),
    "cancel": ("lab.yaml",),
    "extend": ("lab.yaml", "--trials", "+1"),
    "resume": ("lab.yaml",),
    "retry": ("lab.yaml",),
    "export": ("lab.yaml", "exported"),
    "import": ("lab/store.db", "-o", "imported.yaml"),
    "doctor": (),
    "algorithms": ("tpe",),
    "ask-tell": (),
}
"""Each verb of a login node with arguments, in an order in which each finds what it needs."""


class Installed:
    """hpotune in an environment of its own, seen by commands that see no checkout and no Slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(
        self, *command: object, cwd: Path, code: int | None = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SLURM", "HPOTUNE"))}
        done = subprocess.run(
            [str(word) for word in command],
            env={**kept, "PATH": str(self.folder / "bin"), "OMP_NUM_THREADS": "1", **env},
            **{"cwd": cwd, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False},
        )
        assert code in (None, done.returncode), f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def hpotune(self, line: str, *, cwd: Path) -> str:
        """What a line as in the README, `hpotune VERB ...`, prints."""
        words = line.split()
        assert words[0] == "hpotune"
        return self.run(self.folder / "bin" / "hpotune", *words[1:], cwd=cwd).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: the checkout is left as it is."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(
        ROOT / "hpotune", source / "hpotune", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source)
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = Installed(tmp_path_factory.mktemp("environment"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.folder], check=True)
    pip("--python", made.python, "install", "--no-deps", "--no-index", wheel)
    # After its own packages come those of this environment. A .pth that stands there, such as an editable hpotune's,
    # is not read from here.
    paths = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    for shell in ("sh", "bash"):  # of the system's programs only these: there may be a Slurm
        (made.folder / "bin" / shell).symlink_to(str(shutil.which(shell)))
    own = made.run(
        made.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=made.folder
    )
    Path(own.stdout.strip(), "dependencies.pth").write_text("\n".join(paths) + "\n")
    return made


def pip(*words: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, words)]
    # With PYTHONPATH, pip would take the checkout's hpotune.egg-info for an installed hpotune.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def lab(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the README's lab exercise, run with the budget it says."""
    folder = tmp_path_factory.mktemp("lab")
    said = re.search(r"`(hpotune init function .*?)`, with `(name: lab)` and its budget set to (\d+)", README)
    assert said, "the README's sentence about the lab exercise has changed"
    init, name, trials = said.groups()
    assert "wrote lab.yaml" in installed.hpotune(init, cwd=folder)
    edit(folder / "lab.yaml", name, trials=trials)
    installed.hpotune("hpotune run lab.yaml", cwd=folder)
    return folder


def edit(file: Path, name: str, *, trials: str) -> None:
    text, names = re.subn(r"^name: \S+", name, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text, budgets = re.subn(r"^(budget: \{trials: )\d+", rf"\g<1>{trials}", text, flags=re.MULTILINE)
    assert (names, budgets) == (1, 1)
    file.write_text(text, encoding="utf-8")


def test_hpotune_comes_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    code = "import hpotune, importlib.metadata as m; print(hpotune.__file__, m.distribution('hpotune').locate_file(''))"
    for path in installed.run(installed.python, "-c", code, cwd=tmp_path).stdout.split():
        assert Path(path).resolve().is_relative_to(installed.folder.resolve())


def test_wheel_holds_every_file(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hpotune/")}
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "hpotune").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == files
    assert {Path(name).name for name in packed} >= {
        "recorded_fields.json",
        "function.yaml",
        "objective.py",
        "page.html.jinja",
    }


def test_every_verb_answers_help(installed: Installed, tmp_path: Path) -> None:
    assert set(VERBS) == set(LOGIN) | ON_JOBS
    for verb in VERBS:
        assert f"Usage: hpotune {verb}" in installed.hpotune(f"hpotune {verb} --help", cwd=tmp_path)


def test_readme_shows_real_output(installed: Installed, lab: Path) -> None:
    compared = [line for line in SHOWN if line.split()[1] in ("check", "best")]
    assert len(compared) == 2
    for line in compared:
        expected = SHOWN[line].strip().replace("/project/me", str(lab.resolve()))
        assert installed.hpotune(line, cwd=lab).strip() == expected


def test_installed_verbs_read_a_study(installed: Installed, lab: Path, tmp_path: Path) -> None:
    def result(line: str) -> dict:
        return json.loads(installed.hpotune(f"{line} --json", cwd=lab))

    assert result("hpotune check lab.yaml")["ok"] is True
    assert result("hpotune plan lab.yaml")["trials"] == 8
    status = result("hpotune status lab.yaml")
    assert (status["state"], status["trials"]["finished"]) == ("done", 8)
    assert [row["state"] for row in result("hpotune trials lab.yaml")] == ["finished"] * 8
    assert result("hpotune why lab.yaml 3")["state"] == "finished"
    best = result("hpotune best lab.yaml")["best"]
    installed.hpotune("hpotune logs lab.yaml 3", cwd=lab)
    installed.hpotune(f"hpotune export lab.yaml {tmp_path / 'out'}", cwd=lab)
    setting = (tmp_path / "out" / "setting.yaml").read_text(encoding="utf-8")
    assert f"lr: {best['params']['params.lr']}" in setting


def test_every_template_is_written_and_checked(installed: Installed, tmp_path: Path) -> None:
    names = [line.split()[0] for line in installed.hpotune("hpotune init", cwd=tmp_path).splitlines()]
    assert names == sorted(path.stem for path in (ROOT / "hpotune" / "templates").glob("*.yaml"))
    for name in names:
        assert f"wrote {name}.yaml" in installed.hpotune(f"hpotune init {name}", cwd=tmp_path)
        # The template's model is not on this machine, so its trials are not rehearsed.
        installed.hpotune(f"hpotune check --static {name}.yaml", cwd=tmp_path)


def test_the_template_of_a_command_runs(installed: Installed, tmp_path: Path) -> None:
    installed.hpotune("hpotune init command", cwd=tmp_path)
    edit(tmp_path / "command.yaml", "name: other", trials="2")
    installed.hpotune("hpotune check command.yaml", cwd=tmp_path)
    result = json.loads(installed.hpotune("hpotune run command.yaml --json", cwd=tmp_path))
    assert result["finished"] == 2
    assert 0 < result["best"]["values"]["accuracy"] <= 1


def test_login_verbs_load_no_torch(installed: Installed, tmp_path: Path) -> None:
    program = installed.folder / "bin" / "hpotune"
    for verb, words in LOGIN.items():
        # There is no Slurm here, a function has no rows and no sealed test, no dashboard is to be served, the study
        # asks for no packages, and what doctor finds depends on the machine.
        code = {
            "submit": 3,
            "preview": 1,
            "test": 2,
            "dashboard": 2,
            "sync": 2,
            "env": 2,
            "doctor": None,
        }.get(verb, 0)
        done = installed.run(program, verb, *words, cwd=tmp_path, code=code, PYTHONPROFILEIMPORTTIME="1")
        if verb == "init":
            edit(tmp_path / "lab.yaml", "name: lab", trials="1")
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
        assert "hpotune" in loaded
        assert loaded & HEAVY == set(), verb
