"""Rows that are read from their file whenever they are taken: those of the whole file, in any order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpotune.config.rows import streamed_table
from hpotune.config.rows.data_files import file_table
from hpotune.config.rows.row_table import concatenated
from hpotune.config.rows.streamed_table import streamed_file, streamed_rows
from hpotune.config.rows.text_encoding import DataFileError

COUNT = 60
ROWS = [
    {"a": f"t{n}", "b": {"x": n} if n % 3 else None, "c": 0.5 * n if n % 5 else float("nan")}
    for n in range(COUNT)
]
TAKEN = [list(range(COUNT)), [3, 1, 1, 59], [40, 2, 17], list(range(5, 50, 7))]


def written(file: Path) -> Path:
    """A file of the rows, in the format of its ending."""
    if file.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=17)
    elif file.suffix == ".csv":
        file.write_text("a,b\n" + "".join(f'{n},"x ""y"""\n' for n in range(COUNT)))
    elif file.suffix == ".json":
        file.write_text(json.dumps(ROWS))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "csv"])
def test_rows_are_those_in_memory(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_table, "ROWS_READ", 4)
    file = written(tmp_path / f"rows.{ending}")
    whole, read = file_table(file), streamed_file(file)
    assert (read.columns, read.count) == (whole.columns, whole.count)
    for indices in TAKEN:
        assert read.take(indices) == whole.take(indices)
    both, other = concatenated([read, read]), concatenated([whole, whole])
    assert both.take([70, 5, 119]) == other.take([70, 5, 119])


def test_ascending_positions_read_once() -> None:
    opened: list[int] = []

    def read():
        opened.append(0)
        for n in range(COUNT):
            opened[-1] = n + 1
            yield {"n": n}

    table = streamed_rows(read, name="rows")
    for first in range(0, 40, 10):
        assert table.take([first, first + 3]) == [{"n": first}, {"n": first + 3}]
    assert opened == [COUNT, 34]  # counted once, then read as far as row 33
    table.take([33])
    assert opened == [COUNT, 34, 34]


def test_file_that_shrinks_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl")
    table = streamed_file(file)
    file.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(DataFileError, match=r"rows\.jsonl: has fewer rows than when it was opened"):
        table.take([0, 5])
