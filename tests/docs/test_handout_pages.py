"""The sheets of docs/lab: printed on two pages, a solution for each question, the same text in a student's folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.chromium import BROWSERS
from tests.fixtures.handout_sheets import LAB, SHEETS, commands, outputs, promised, whole_script

ROOT = Path(__file__).parents[2]
FILES = ROOT / "hpotune" / "templates" / "handouts"
IDS = [sheet.stem for sheet in SHEETS]


def make_handouts(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "make-handouts"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_a_sheet_each() -> None:
    assert [sheet.name[0] for sheet in SHEETS] == list("123456")
    assert {folder.name for folder in FILES.iterdir()} == set("123456")


@pytest.mark.parametrize("sheet", SHEETS, ids=IDS)
def test_each_question_has_an_answer(sheet: Path) -> None:
    numbered = re.compile(r"^(\d+)\. ", re.MULTILINE)
    text = sheet.read_text(encoding="utf-8")
    asked = numbered.findall(text.partition("## To think")[2])
    answered = numbered.findall((LAB / "solutions" / sheet.name).read_text(encoding="utf-8"))
    assert asked == answered == [str(n) for n in range(1, len(asked) + 1)]
    assert len(asked) >= 5


@pytest.mark.parametrize("sheet", SHEETS, ids=IDS)
def test_sheet_says_time_and_files(sheet: Path) -> None:
    text = sheet.read_text(encoding="utf-8")
    assert re.search(r"^\*The commands take about \d+ minutes? on two cores", text, re.MULTILINE)
    assert f"hpotune lab prepare {sheet.name[0]} && cd handout-{sheet.name[0]}" in commands(text)[0].script
    files = {path.name for path in (FILES / sheet.name[0]).iterdir()}
    named = set(re.findall(r"`([\w]+\.(?:yaml|py|sh|csv))`", text.partition("## To think")[0]))
    written = set(re.findall(r"> (\w+\.\w+)", text))
    assert named <= files | written


def test_copies_for_students_are_equal() -> None:
    for sheet in SHEETS:
        copy = FILES / sheet.name[0] / "README.md"
        assert copy.read_bytes() == sheet.read_bytes(), "scripts/make-handouts --copy"
    assert len({(FILES / number / "char_model.py").read_bytes() for number in "124"}) == 1


def test_pages_need_no_other_file(tmp_path: Path) -> None:
    made = make_handouts("--no-pdf", "--out", str(tmp_path)).split()
    assert len(made) == 2 * len(SHEETS)
    for name in made:
        assert not re.search(r"""(?:src|href)=|url\(|@import""", Path(name).read_text(encoding="utf-8"))


def test_sheets_are_printed_on_two_pages(tmp_path: Path) -> None:
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium here; run `apt-get install chromium`, or scripts/test")
    counted = re.findall(r"(\S+)\.pdf: (\d+) pages", make_handouts("--out", str(tmp_path)))
    pages = {Path(name).name: int(count) for name, count in counted}
    assert {name: pages.pop(name) for name in IDS} == dict.fromkeys(IDS, 2)
    assert pages == {f"{name}-solution": 1 for name in IDS}


def test_expected_output_is_compared() -> None:
    sheet = "```bash\necho a\n```\n```text\na\n```\nand\n\n```bash\necho b; exit 3\n```\nno output\n\n```text\nz\n```\n"
    blocks = commands(sheet)
    assert [block.expected for block in blocks] == ["a\n", None]
    done = subprocess.run(["bash", "-c", whole_script(blocks)], capture_output=True, text=True, check=False)
    assert (done.returncode, outputs(done.stdout)) == (3, ["a\n\n", "b\n"])
    assert promised("x 1\n...\nbest ... ± 0...\n", "x   1\nmore\n\nbest 3 ± 0.5\n")
    assert not promised("x 1\n", "x 2\n")
    assert not promised("a\n...\n", "b\na\n")
