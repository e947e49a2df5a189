"""Makes the studies of this folder by the verbs of the hpotune that is installed; README.md has the command.

Each study is really run, interrupted and recorded: its home as it is on disk, its store, and `expected.json`, what
the verbs said of it then. Paths become @HOME@, @BIN@ (of Python), @REPO@ and @STORE@ (PostgreSQL's URL); nothing else
is changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.postgres import Postgres

HERE = Path(__file__).parent
PAUSE_S = 0.25
WAIT_S = 120
MIDDLE = (11, 12, 13, 14, 20, 21, 22, 23)
"""Steps that lie well inside a turn, with rungs at 9, 18 and 27."""
TRANSIENT = ("forecast", "gpu_hours", "queue_age_s", "jobs", "outlook")
"""Of `status --json`: what depends on the moment, or on a cluster that is gone."""
FUNCTION = """
python: descent.py:descent
params:
  rate: {float: [0.01, 2.4], log: true, prior: 0.5}
  optimizer: {choice: [plain, momentum]}
  momentum: {float: [0.1, 0.9], when: {params.optimizer: momentum}}
"""
SCORE = "score: {objective: {metric: loss, direction: minimize}}\n"
DIVERGES = "{params.rate: 2.2, params.optimizer: plain}"
STUDIES = {
    "sqlite": f"""name: descent{FUNCTION}{SCORE}
search:
  algorithm: tpe
  seed: 1
  pruner: asha
  pruner_options: {{eta: 2}}
  rungs: [0.333, 0.667, 1]
  start_from: [{DIVERGES}]
budget: {{trials: 9, parallel: 2, max_failed: 20}}
store: sqlite
""",
    "journal": f"""name: descent
python: descent.py:descent
params:
  rate: {{float: [0.01, 2.4], log: true, prior: 0.5}}
  momentum: {{float: [0.0, 0.9]}}
{SCORE}
search:
  algorithm: pso
  seed: 1
  pruner: median
  pruner_options: {{n_startup_trials: 3}}
  rungs: {{unit: steps, at: [9, 18, 27]}}
  start_from: [{{params.rate: 2.2, params.momentum: 0.1}}, {{params.rate: 1.2, params.momentum: 0.1}}]
budget: {{trials: 10, parallel: 2, max_failed: 20}}
store: journal
""",
    "postgresql": f"""name: descent
command: "python3 descent.py --rate {{rate}} --budget {{budget}}"
params:
  rate: {{float: [0.01, 2.4], log: true, prior: 0.5}}
{SCORE}
search:
  algorithm: random
  seed: 3
  pruner: percentile
  pruner_options: {{percentile: 50, n_startup_trials: 3}}
  rungs: [0.333, 0.667, 1]
  start_from: [{{params.rate: 2.2}}, {{params.rate: 1.5}}]
budget: {{trials: 12, parallel: 2, max_failed: 20}}
store: "@STORE@"
""",
    "extended": f"""name: descent{FUNCTION}{SCORE}
search: {{algorithm: lhs, seed: 1, start_from: [{DIVERGES}, {{params.rate: 1.0, params.optimizer: plain}}]}}
budget: {{trials: 4, parallel: 1, max_failed: 20}}
""",
    "slurm": f"""name: descent{FUNCTION}{SCORE}
search: {{algorithm: random, seed: 1, start_from: [{DIVERGES}]}}
budget: {{trials: 6, parallel: 2, max_failed: 20}}
execution: {{trials_per_job: 1}}
resources: {{partition: a100, cpus: 1, time: "00:10:00"}}
""",
}


def hpotune(*words: object, pause_s: float = 0.0) -> str:
    """What a verb prints; it must succeed."""
    env = os.environ | {"DESCENT_PAUSE_S": str(pause_s)}
    command = [sys.executable, "-m", "hpotune", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def told(*words: object) -> Any:
    return json.loads(hpotune(*words, "--json"))


def until(what: str, true: Callable[[], bool], *, run: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert run is None or run.poll() is None, f"the study ended before {what}"
        assert time.monotonic() < end, f"waited {WAIT_S} s for {what}"
        time.sleep(0.1)


def in_a_later_turn(folder: Path) -> bool:
    """Whether a trial is in the middle of a turn behind its first, and will be for a second."""
    for file in folder.glob("trials/*/checkpoint/state.json"):
        try:
            if json.loads(file.read_text())["step"] in MIDDLE:
                return True
        except (OSError, ValueError):  # it is just being replaced
            continue
    return False


def interrupted(
    folder: Path, *, ready: Callable[[dict[str, int]], bool], stop: Callable[[int], None]
) -> None:
    """Runs the study until it is `ready`, by its counts of trials, and stops it in the middle of a turn."""
    env = os.environ | {"DESCENT_PAUSE_S": str(PAUSE_S)}
    target = folder if folder.is_dir() else folder.parent / "study.yaml"
    run = subprocess.Popen([sys.executable, "-m", "hpotune", "run", str(target)], env=env)
    until("the first trial", lambda: any(folder.glob("trials/*/spec.json")), run=run)
    until("enough trials", lambda: ready(told("status", folder)["trials"]), run=run)
    until("a trial in a later turn", lambda: in_a_later_turn(folder), run=run)
    stop(run.pid)
    assert run.wait(timeout=60) == 130


def ctrl_c(pid: int) -> None:
    os.kill(pid, signal.SIGINT)


def sqlite(home: Path) -> None:
    """Run to its end, extended, and interrupted by Ctrl-C."""
    hpotune("run", home / "study.yaml")
    hpotune("extend", home / "study.yaml", "--trials", "+6")
    interrupted(home / "descent", ready=lambda count: count["resting"] >= 2, stop=ctrl_c)


def journal(home: Path) -> None:
    """Interrupted by Ctrl-C."""
    interrupted(home / "descent", ready=all_kinds, stop=ctrl_c)


def postgresql(home: Path) -> None:
    """Stopped by `hpotune cancel`."""
    interrupted(home / "descent", ready=all_kinds, stop=lambda _: print(hpotune("cancel", home / "descent")))


def all_kinds(count: dict[str, int]) -> bool:
    return count["finished"] >= 2 and count["failed"] >= 1 and count["stopped"] >= 1


def extended(home: Path) -> None:
    """Run, extended, its failed trial tried again, and run to its end."""
    hpotune("run", home / "study.yaml")
    hpotune("extend", home / "study.yaml", "--trials", "+2")
    hpotune("retry", home / "study.yaml", 0)
    hpotune("resume", home / "study.yaml")


def slurm(home: Path) -> None:
    """Submitted, and cancelled when some trials had finished and others were running."""
    hpotune("submit", home / "study.yaml", pause_s=PAUSE_S)
    until("trials on Slurm", lambda: told("status", home / "descent")["trials"]["finished"] >= 2)
    until("a trial in a later turn", lambda: in_a_later_turn(home / "descent"))
    hpotune("cancel", home / "descent")
    until(
        "the end of its jobs",
        lambda: not any(job["state"] == "RUNNING" for job in told("status", home / "descent")["jobs"]),
    )
    time.sleep(5)
    # what was stopped is settled by whoever comes next; a step after `cancel` submits nothing
    hpotune("step", home / "descent")


def expected(folder: Path) -> dict[str, Any]:
    """What the verbs say of the study as it is now."""
    status = {key: value for key, value in told("status", folder).items() if key not in TRANSIENT}
    trials = told("trials", folder)
    kinds = {row["state"]: row["number"] for row in reversed(trials)}
    why = {str(number): told("why", folder, number) for number in sorted(kinds.values())}
    return {"status": status, "trials": trials, "best": told("best", folder), "why": why}


def made(name: str, make: Callable[[Path], None], *, store: str = "") -> None:
    """One study, from its file to the data in this folder."""
    home = Path(tempfile.mkdtemp(prefix="hpotune-old-"))
    shutil.copy(HERE / "descent.py", home)
    (home / "study.yaml").write_text(STUDIES[name].replace("@STORE@", store))
    make(home)
    folder = home / "descent"
    found = expected(folder)
    counts = found["status"]["trials"]
    print(name, counts)
    if name != "extended":
        assert counts["paused"] >= 1, counts
        paused = [row["number"] for row in found["trials"] if row["state"] == "paused"]
        assert any((folder / "trials" / str(n) / "checkpoint" / "state.json").is_file() for n in paused)
    where = {str(home): "@HOME@", str(Path(sys.executable).parent): "@BIN@", str(HERE.parents[2]): "@REPO@"}
    where |= {store: "@STORE@"} if store else {}
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    _save(home, out / "home", where)
    (out / "expected.json").write_text(_hidden(json.dumps(found, indent=1), where) + "\n")
    if store:
        (out / "store.sql").write_text(_hidden(_dump(store), where))
    shutil.rmtree(home)


def _hidden(text: str, where: dict[str, str]) -> str:
    for path, name in where.items():
        text = text.replace(path, name)
    return text


def _save(home: Path, out: Path, where: dict[str, str]) -> None:
    """Every file of the home but locks and links."""
    for file in sorted(home.rglob("*")):
        if file.is_symlink() or not file.is_file() or file.name.endswith((".lock", ".pyc")):
            continue
        kept = out / file.relative_to(home)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".db":
            shutil.copy(file, kept)
            _hide_in_database(kept, where)
        else:
            kept.write_text(_hidden(file.read_text(), where))


def _hide_in_database(file: Path, where: dict[str, str]) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for table in ("study_user_attributes", "trial_user_attributes", "trial_system_attributes"):
            for path, name in where.items():
                connection.execute(f"UPDATE {table} SET value_json = replace(value_json, ?, ?)", (path, name))
        connection.commit()
        connection.execute("VACUUM")  # else the old pages keep the paths


def _dump(store: str) -> str:
    """The tables of the study's schema, as statements that any PostgreSQL takes."""
    url, _, schema = store.partition("?options=-csearch_path%3D")
    command = ["pg_dump", "--no-owner", "--no-privileges", "--inserts", f"--schema={schema}", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [
        line
        for line in text.splitlines()
        if line and not re.match(r"--|SET |\\|SELECT pg_catalog.set_config|CREATE SCHEMA", line)
    ]
    return "\n".join(lines).replace(f"{schema}.", "") + "\n"


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database; its password is in PGPASSWORD."""
    found = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    server = Postgres.make(found.parent)
    try:
        server.start()
        os.environ["PGPASSWORD"] = server.password
        yield server.database("old")
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = sys.argv[1:] or list(STUDIES)
    local = {"sqlite": sqlite, "journal": journal, "extended": extended, "slurm": slurm}
    for name in wanted:
        if name in local:
            made(name, local[name])
    if "postgresql" in wanted:
        with postgres() as url:
            made("postgresql", postgresql, store=url)


if __name__ == "__main__":
    main()
