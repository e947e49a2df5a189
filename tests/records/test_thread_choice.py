"""The choice of threads is read as it was written, by the search and by what follows it."""

from __future__ import annotations

from pathlib import Path

from hpotune.planning.thread_probe import write_choice
from hpotune.records.thread_choice import THREADS_FILE, Arrangement, ThreadChoice, read_choice

CHOICE = ThreadChoice(
    trials=2,
    threads=1,
    measured=(
        Arrangement(trials=1, threads=2, tokens_per_s=240.4),
        Arrangement(trials=2, threads=1, tokens_per_s=310.0),
    ),
)


def test_choice_is_read_back(tmp_path: Path) -> None:
    assert read_choice(tmp_path) is None
    write_choice(tmp_path, CHOICE)
    assert read_choice(tmp_path) == CHOICE
    for inner in ("repeats", "test/1"):
        assert read_choice(tmp_path / inner) == CHOICE
    (tmp_path / THREADS_FILE).write_text('{"trials": 2}')
    assert read_choice(tmp_path) is None


def test_choice_is_said() -> None:
    assert CHOICE.text == (
        "2 trials side by side, 1 thread each (measured: 1 x 2 threads: 240 tokens/s, 2 x 1 thread: 310 tokens/s)"
    )
