"""Which files a program consists of."""

from __future__ import annotations

import pytest

from hpotune.workspace.dependencies import program_words, with_imports


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("python own.py > other.py", ["own.py"]),
        ("python own.py --out={x}/other.py", ["own.py"]),
        ("python $HERE/own.py", []),
        ("python gone.py", []),
        ("FILE=own.py python -c 'open(\"other.py\")'", ["own.py", "other.py"]),
        ("cat rows.jsonl", []),
        ("cd pack; python own.py", []),
    ],
)
def test_program_words_of_command(command, names, home):
    assert [file.name for _, _, file in program_words(command, home=home)] == names


def test_imports_are_followed(home):
    (home / "own.py").write_text(
        "def f():\n    import importlib\n    importlib.import_module('late')\n    import space.inner\n"
    )
    (home / "late.py").write_text("import own, numpy, os\nfrom pack import *\n")
    (home / "space").mkdir()
    (home / "space" / "inner.py").write_text("from . import sister\nfrom .sister import x\n")
    (home / "space" / "sister.py").write_text("this is no python\n")
    (home / "space" / "stranger.py").touch()
    names = {str(path.relative_to(home)) for path in with_imports([home / "own.py"], home=home)}
    assert names == {
        "own.py",
        "late.py",
        "pack/__init__.py",
        "pack/part.py",
        "space/inner.py",
        "space/sister.py",
    }


def test_study_folders_are_left_out(home):
    (home / "pack" / "study" / "code").mkdir(parents=True)
    (home / "pack" / "study" / "resolved.yaml").touch()
    (home / "pack" / "study" / "code" / "copy.py").touch()
    assert home / "pack" / "study" / "code" / "copy.py" not in set(with_imports([home / "own.py"], home=home))
