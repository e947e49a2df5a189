"""Reads the tables that Slurm's commands print: a header, then a line a row, with columns divided by `|`.

The header is asked for and looked for, so that an empty answer differs from none, and lines that a site's wrapper
prints before and after the table are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpotune.slurm.commands import TIMEOUT_S, UnreadableAnswer, run_command

Row = tuple[str, ...]
JOB_ID = re.compile(r"[0-9]{1,12}(_([0-9]{1,9}|\[[0-9,:%-]+\])|\+[0-9]{1,4})?")
"""A job, an array's element, elements that wait (`7_[2-4%2]`), or a component of a heterogeneous job."""
STATE = re.compile(r"[A-Z][A-Z_]{2,30}\+?( by \S+)?")
"""A job's state as all commands write it: `RUNNING`, `CANCELLED by 1000`."""
_FIELD = re.compile(r"(?:^|\s)(\w+)=(\S*)")
_MARKUP = re.compile(r"[<>{}\ufffd]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The rows of a table."""

    rows: tuple[Row, ...]
    damaged: int = 0
    """Lines that belong to it and cannot be read: a row that is missing may be one of them."""


def query_table(
    command: Sequence[str],
    header: Row,
    *,
    is_row: Callable[[Row], bool] = lambda row: True,
    answer_s: float = TIMEOUT_S,
) -> Table:
    """The table that a command prints. `header`: its column names; `is_row`: whether the cells of a line are a row.

    Raises: UnreadableAnswer where it printed no such table; ClusterError as `run_command`.
    """
    table = read_table(run_command(command, answer_s=answer_s), header, is_row=is_row)
    if table is None:
        raise UnreadableAnswer(f"{command[0]} printed no table of {', '.join(header)}; is it Slurm's own?")
    return table


def read_table(text: str, header: Row, *, is_row: Callable[[Row], bool] = lambda row: True) -> Table | None:
    """The rows below the header; None where the text holds no such table.

    Without a header the lines count that have its columns, at least two, and are rows.
    """
    lines = [line.strip() for line in text.split("\n")]
    columns = len(header)
    at = next((index for index, line in enumerate(lines) if _is_header(_cells(line, columns), header)), None)
    if at is None and columns == 1:
        return None
    rows, damaged = [], 0
    for line in lines[at + 1 if at is not None else 0 :]:
        if at is not None and line == lines[at]:
            continue  # a table for each of several clusters
        cells = _cells(line, columns)
        if cells is not None and not _MARKUP.search(cells[0]) and is_row(cells):
            rows.append(cells)
        elif "|" in line or JOB_ID.fullmatch(line):
            damaged += 1
    if at is None and not rows:
        return None
    return Table(rows=tuple(rows), damaged=damaged)


def _is_header(cells: Row | None, header: Row) -> bool:
    """By the first name: sacctmgr shortens others, `MaxJobsPerUser` to `MaxJobsPU`."""
    return cells is not None and cells[0].lower() == header[0].lower()


def _cells(line: str, columns: int) -> Row | None:
    """The cells of a line; None where their number is another one. One column: the line's only word."""
    if columns == 1:
        words = line.split()
        return (words[0],) if len(words) == 1 else None
    cells = tuple(cell.strip() for cell in line.split("|"))
    return cells if len(cells) == columns else None


def query_squeue(
    jobs: Sequence[str],
    columns: Mapping[str, str],
    *,
    is_row: Callable[[Row], bool],
    answer_s: float = TIMEOUT_S,
) -> Table:
    """squeue's table of these jobs, ended ones included. `columns`: format -> name; the others as `query_table`.

    squeue fails for a single unknown job but not for one among several, so the last one is named twice.
    """
    query = ["squeue", "-r", "-t", "all", "-j", ",".join([*jobs, jobs[-1]]), "-o", "|".join(columns)]
    return query_table(query, tuple(columns.values()), is_row=is_row, answer_s=answer_s)


def scontrol_fields(line: str) -> dict[str, str]:
    """The fields of a line of `scontrol show job -o`, without the job's name, and up to the first blank of each value.

    A job's name and comment may hold anything: ids stand before them, and of another field the first value counts.
    """
    head, _, tail = line.partition(" JobName=")
    return {
        **dict(reversed(_FIELD.findall(tail.partition(" UserId=")[2] or line))),
        **dict(_FIELD.findall(head)),
    }


def number_of(text: str) -> int | None:
    """A whole number that Slurm printed; None for `UNLIMITED`, for nothing and for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) else None
