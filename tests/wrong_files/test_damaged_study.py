"""Every file of a study's folder, damaged in every way, under every verb: one line or none, and nothing is overwritten.

By default a small sample with a fixed seed. HPOTUNE_FUZZ=all runs every case (6,000 a study, 0.1 s of CPU each),
a number that many; HPOTUNE_FUZZ_SEED draws others. A file that a verb does not open when all is well is damaged in the
ways of UNOPENED only. HPOTUNE_FUZZ=every runs all damages of all files: three times as many.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from hpotune.storage.backends import filesystem_probe
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.damaged_study import (
    DAMAGES,
    READING,
    VERBS,
    Outcome,
    call,
    contents,
    copy_study,
    files_of,
    make_study,
    warm_up,
)

SAMPLE = 8
"""Cases of each study in the default run."""
UNOPENED = ("missing", "a folder", "garbage", "unreadable")
KINDS = ("function", "finetune", "journal")


class Case(NamedTuple):
    """A damaged file, and a verb."""

    file: str
    damage: str
    verb: str


class Damaged:
    """A healthy study and how its verbs end; a damaged copy for each case."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.scratch = root, root / "scratch"
        (self.scratch / "bin").mkdir(parents=True)
        for program in ("bash", "sh", "git"):  # Slurm is not there
            (self.scratch / "bin" / program).symlink_to(str(shutil.which(program)))
        store = "journal" if kind == "journal" else "sqlite"
        self.study = make_study(root / "base", "function" if kind == "journal" else kind, store=store)
        self.files = files_of(self.study)
        self._healthy: dict[str, int | None] = {}

    def cases(self, *, every: bool = False) -> list[Case]:
        cases = []
        for verb in VERBS:
            opened = set(self.files) if every else self.opened(verb)
            cases += [
                Case(file, damage, verb)
                for file in self.files
                for damage in DAMAGES
                if file in opened or damage in UNOPENED
            ]
        return cases

    def opened(self, verb: str) -> set[str]:
        """The files that a verb opens where nothing is damaged."""
        record, folder = self.root / "opened", self.copy()
        record.unlink(missing_ok=True)
        self._healthy[verb] = self.run(folder, verb, opened=record).code
        paths = {os.path.abspath(folder.path / line) for line in record.read_text().splitlines()}
        return {file for file in self.files if str(folder.path / file) in paths}

    def run(self, folder: StudyFolder, verb: str, *, opened: Path | None = None) -> Outcome:
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        newest = folder.path / "code" / "newest"
        code = next((path.name for path in newest.parent.glob("*") if path.is_dir()), "none")
        names = {"folder": folder.path, "file": folder.path.parent / "study.yaml", "out": out, "code": code}
        return call([word.format(**names) for word in VERBS[verb]], scratch=self.scratch, opened=opened)

    def copy(self) -> StudyFolder:
        shutil.rmtree(self.root / "copy", ignore_errors=True)
        return copy_study(self.study, self.root / "copy")

    def healthy(self, verb: str) -> int | None:
        if verb not in self._healthy:
            self._healthy[verb] = self.run(self.copy(), verb).code
        return self._healthy[verb]

    def problems(self, case: Case) -> list[str]:
        """What is wrong with how the verb ended; empty if nothing is."""
        folder, file = self.copy(), case.file
        DAMAGES[case.damage](folder.path / file)
        before = contents(folder.path)
        done = self.run(folder, case.verb)
        after = contents(folder.path)
        found = []
        if done.code is None:
            found.append("hangs")
        if "bug in hpotune" in done.err or "Traceback" in done.err:
            found.append(done.err[-300:])
        elif done.code not in (None, 0, 2, 4, self.healthy(case.verb)):
            found.append(f"exit code {done.code}: {done.err[-300:]}")
        elif done.code in (2, 4) and done.code != self.healthy(case.verb):
            lines = [*done.out.splitlines(), *done.errors] if case.verb == "doctor" else done.errors
            named = [line for line in lines if Path(file).name in line]
            if not named or (named != lines and case.verb != "doctor"):
                found.append(f"does not name the file: {done.err[-300:]}")
        if case.verb in READING and before != after:
            found.append(f"changes {_changes(before, after)}")
        elif done.code in (2, 4) and before.get(file) != after.get(file):
            found.append("overwrites the file")
        return [f"{case}: {text}" for text in found]


def _changes(before, after) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)][:5]


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """In all of these tests verbs are forks of one process; what it imports and patches stays here."""
    before = typer.main.get_command, filesystem_probe.PROCESSES, filesystem_probe.WRITES
    warm_up()
    yield
    typer.main.get_command, filesystem_probe.PROCESSES, filesystem_probe.WRITES = before


@pytest.fixture(scope="module", params=KINDS)
def damaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Damaged]:
    root = tmp_path_factory.mktemp("damaged")
    yield Damaged(root, request.param)
    shutil.rmtree(root, ignore_errors=True)


def test_damaged_file_is_one_line(damaged):
    asked = os.environ.get("HPOTUNE_FUZZ", "")
    cases = damaged.cases(every=asked == "every")
    random.Random(int(os.environ.get("HPOTUNE_FUZZ_SEED", "0"))).shuffle(cases)
    count = len(cases) if asked in ("all", "every") else int(asked or SAMPLE)
    found = []
    for case in cases[:count]:
        problems = damaged.problems(case)
        for text in problems:
            print(text, flush=True)
        found += problems
    assert found == []


MENDED = [
    ("jobs/17/job.json", "empty", "status"),
    ("jobs/17/job.json", "a list", "follow-up"),
    ("jobs/.queue.json", "a pipe", "status"),
    ("jobs/.queue.json", "deep nesting", "status"),
    ("jobs/17/life-0.json", "values of other types", "submit"),
    ("provenance.json", "a list", "status"),
    ("provenance.json", "keys of another version", "run"),
    ("extension.json", "deep nesting", "worker"),
    ("code/newest", "not UTF-8", "worker"),
    ("plan.json", "a pipe", "plan"),
    ("trials/4/result.json", "a pipe", "run"),
    ("jobs/.queue.lock", "a folder", "status"),
    ("plan.json", "keys of another version", "plan"),
    ("jobs/cancelled", "a pipe", "status"),
    ("jobs/17/17_submission.sh", "a pipe", "run"),
    ("resolved.yaml", "a pipe", "run of the file"),
    ("code/newest", "a folder", "run"),
    ("store.db", "another user's", "doctor"),
    ("store.db", "garbage", "status"),
    ("store.db", "empty", "run"),
    ("store.db", "missing", "run"),
    ("store.journal", "garbage", "trials"),
    ("store.journal", "a pipe", "why of a finished trial"),
    ("store.journal", "text", "extend"),
    ("store.journal", "null", "extend"),
]


@pytest.mark.parametrize("kind", ["function", "journal"])
def test_mended_damage_stays_mended(kind, tmp_path):
    study = Damaged(tmp_path, kind)
    found = [text for case in MENDED if case[0] in study.files for text in study.problems(Case(*case))]
    assert found == []
