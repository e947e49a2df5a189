"""Valid study files with random damage: each is refused or accepted in a line, and nothing is called a bug.

A file that takes more than a minute fails as a hang.
HPOTUNE_FUZZ=2000 checks so many files instead of 100 (about 4 minutes), HPOTUNE_FUZZ_SEED another set of them.
"""

from __future__ import annotations

import copy
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from hpotune.config.yaml_source import parse_source
from tests.fixtures.hostile_values import HOSTILE_TEXTS, HOSTILE_VALUES, RAW_LINES
from tests.fixtures.wrong_studies import COMMAND, FINETUNE, FUNCTION

ROOT = Path(__file__).parents[2]
FILES = int(os.environ.get("HPOTUNE_FUZZ", "100"))
SEED = int(os.environ.get("HPOTUNE_FUZZ_SEED", "0"))
GROUPS = 10
HANGS = 60
"""Seconds that no file takes; most take a hundredth of one."""
BASES = [
    FINETUNE,
    FUNCTION,
    COMMAND,
    *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "configs").glob("*.yaml"))),
    *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "hpotune" / "templates").glob("*.yaml"))),
]
SECTIONS = {
    "resources": {"account": "a", "extra": {"licenses": "x"}, "mem": "4G"},
    "env": {"modules": ["a"], "vars": {"A": "b"}, "setup": ["true"], "container": "docker://a/b"},
    "constraints": ["params.x < 3"],
    "execution": {"mode": "batch", "trials_per_job": 1},
    "retry": {"node": 1},
    "plan": {"trial_s": 10},
    "keep": {"best": 1},
    "store": "sqlite",
    "search": {
        "algorithm": "tpe",
        "options": {"a": 1},
        "start_from": [{"params.x": 1}],
        "pruner": "asha",
        "rungs": [0.5, 1],
    },
}


def paths(value, around=()):
    """The path of every value of a tree."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*around, key)
        if isinstance(item, (dict, list)):
            yield from paths(item, (*around, key))


def parent_of(values, where):
    for key in where[:-1]:
        values = values[key]
    return values


def damaged_tree(values, rng):
    """The values with one to three changes: values, keys, types, levels, sections."""
    for _ in range(rng.randint(1, 3)):
        where = rng.choice([*paths(values)])
        parent, key = parent_of(values, where), where[-1]
        kind = rng.randrange(9)
        if kind < 4:
            parent[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
        elif kind == 4 and isinstance(parent, dict):
            parent[rng.choice([*HOSTILE_TEXTS, "expr", "float", "choice", "when"])] = parent.pop(key)
        elif kind == 5:
            parent[key] = rng.choice(
                [[parent[key]], {"x": parent[key]}, {"choice": [parent[key], 1]}, str(parent[key])]
            )
        elif kind == 6 and isinstance(parent, dict):
            other = parent_of(values, rng.choice([*paths(values)]))
            parent[str(rng.random())] = copy.deepcopy(other) if len(str(other)) < 2000 else 1
        elif kind == 7:
            values.update(copy.deepcopy(dict(rng.sample([*SECTIONS.items()], 3))))
        else:
            parent[key] = {
                rng.choice(["float", "int", "normal", "choice", "expr"]): copy.deepcopy(
                    rng.choice(HOSTILE_VALUES)
                )
            }
        if not values:
            return {"name": "x"}
    return values


def damaged_text(text, rng):
    """The text with bytes, lines and signs changed."""
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw))
        kind = rng.randrange(5)
        if kind == 0:
            raw[at] = rng.randrange(256)
        elif kind == 1:
            del raw[at : at + rng.randint(1, 30)]
        elif kind == 2:
            raw[at:at] = rng.choice(
                [b"{", b"[", b"'", b'"', b"&a ", b"*a ", b"!x ", b": ", b"\n", b"\t", b"#", b"| ", b"%"]
            )
        elif kind == 3:
            raw[:at] = raw[rng.randrange(at + 1) : at]
        else:
            raw += b"\n" + rng.choice(RAW_LINES)
        if not raw:
            return b"name: x"
    return bytes(raw)


def generated_file(number):
    """The bytes of a damaged study file."""
    rng = random.Random(f"{SEED}:{number}")
    text = rng.choice(BASES)
    if rng.random() < 0.65:
        values = damaged_tree(parse_source(text, path=Path("s.yaml")).values, rng)
        text = yaml.safe_dump(values, allow_unicode=rng.random() < 0.5, sort_keys=False)
        if rng.random() < 0.8:
            return text.encode("utf-8", "surrogatepass")
    return damaged_text(text, rng)


@contextmanager
def no_hang(number: int) -> Iterator[None]:
    """Fails if a file takes more than HANGS seconds."""

    def stop(*_: object) -> None:
        pytest.fail(f"file {number} hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("group", range(GROUPS))
def test_generated_file_is_no_bug(group, folder, hpotune, monkeypatch):
    monkeypatch.chdir(folder)
    for number in range(group, FILES, GROUPS):
        (folder / "study.yaml").write_bytes(generated_file(number))
        with no_hang(number):
            code, lines = hpotune("check", "--static", folder / "study.yaml")
        said = "\n".join(lines)
        assert code in (0, 2, 4), (number, code, said)
        assert "bug in hpotune" not in said, (number, said)
        assert "Traceback" not in said, (number, said)
        assert all(line.startswith(("error: ", "warning: ", "note: ")) for line in lines), (number, said)
        assert all(len(line) < 2200 and line.isprintable() for line in lines), (number, said)
        assert len(lines) <= 101, (number, len(lines))
