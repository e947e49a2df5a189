"""Tokenized rows in one file, from which each row is read when it is used (`data.streaming`).

    tokens (int32: ids, targets, classes of each row) | a RECORD for each row | orders (int64) | about (JSON) | FOOTER

The rows have the order in which they were read; an order lists the positions of the rows of a part, such as the
training rows, in the order in which they are trained. Rows are read with pread and not through a memory map: pages of a
map count as resident memory, by which Slurm and the rehearsal limit a process.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import struct
import weakref
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpotune.finetune.data.stored_sequence import Positions, StoredSequence
from hpotune.finetune.data.tokenization import FileRows, LeftOutRow, TokenizedRow, TokenizedRows
from hpotune.finetune.training.loss import Row
from hpotune.workspace.atomic_files import NEW_FILE

if TYPE_CHECKING:
    from typing_extensions import Self

MAGIC = b"hpotune1"
FOOTER = struct.Struct("<QQQ8s")
"""Bytes of the tokens, number of records, bytes of the JSON, MAGIC."""
FIELDS = {
    "start": "<i8", "number": "<i8", "value": "<f8", "ids": "<i4", "targets": "<i4", "classes": "<i4",
    "source": "<i4", "lost": "<i4", "reason": "<i4", "cut": "<i4",
}  # fmt: skip
"""First byte of its tokens, DataRow.number, the number of a regression (NaN: none), numbers of ids, targets and classes
(-1: it has one class at most), its source, as TokenizedRow, why it is left out (-1: it is not), as TokenizedRow."""
RECORD = struct.Struct("<" + "".join({"<i8": "q", "<f8": "d", "<i4": "i"}[kind] for kind in FIELDS.values()))
RECORDS = np.dtype(list(FIELDS.items()))
AT_ONCE = 2**16
"""Records that are read at once."""


class TokenFileWriter:
    """Writes rows one by one; the file gets its name when it is complete."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises: OSError."""
        self._path = path
        self._unfinished = [path.with_name(f".{path.name}.{secrets.token_hex(8)}.part") for _ in "tr"]
        self._tokens, self._records = (_new_file(one) for one in self._unfinished)
        self._bytes = 0
        self._sources: dict[str, int] = {}
        self._reasons: dict[str, int] = {}
        self.count = 0
        self.longest = 0
        self.largest_id = 0

    def add(self, row: TokenizedRow | LeftOutRow, *, number: int) -> int:
        """Write a row; its position. `number`: as DataRow.number. Raises: OSError."""
        source = self._sources.setdefault(row.source, len(self._sources))
        if isinstance(row, LeftOutRow):
            reason = self._reasons.setdefault(row.reason, len(self._reasons))
            record = RECORD.pack(self._bytes, number, np.nan, 0, 0, -1, source, 0, reason, 0)
        else:
            tokens, classes = row.tokens, row.tokens.classes
            content = array("i", [*tokens.ids, *tokens.targets, *(classes or ())]).tobytes()
            record = RECORD.pack(
                self._bytes,
                number,
                np.nan if tokens.number is None else tokens.number,
                len(tokens.ids),
                len(tokens.targets),
                -1 if classes is None else len(classes),
                source,
                row.lost_answers,
                -1,
                row.is_cut,
            )
            self._tokens.write(content)
            self._bytes += len(content)
            self.longest = max(self.longest, len(tokens.ids))
            self.largest_id = max(self.largest_id, max(tokens.ids, default=0))
        self._records.write(record)
        self.count += 1
        return self.count - 1

    def finish(self, about: Mapping[str, object], orders: Mapping[str, Positions]) -> TokenFile:
        """Put the parts together, and move the file to its name. Raises: OSError."""
        facts = {
            **about,
            "sources": list(self._sources),
            "reasons": list(self._reasons),
            "orders": {name: len(order) for name, order in orders.items()},
            "longest": self.longest,
            "largest_id": self.largest_id,
        }
        text = json.dumps(facts).encode()
        self._records.flush()
        with self._unfinished[1].open("rb") as records:
            shutil.copyfileobj(records, self._tokens, 2**20)
        for order in orders.values():
            self._tokens.write(order.astype("<i8").data)
        self._tokens.write(text + FOOTER.pack(self._bytes, self.count, len(text), MAGIC))
        self._tokens.flush()
        os.fsync(self._tokens.fileno())
        os.replace(self._unfinished[0], self._path)
        return TokenFile(self._path)

    def close(self) -> None:
        """Close the files, and remove what is not finished."""
        for stream, path in zip((self._tokens, self._records), self._unfinished, strict=True):
            with suppress(OSError):  # what a full disk did not take
                stream.close()
            path.unlink(missing_ok=True)


def _new_file(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, NEW_FILE, 0o666), "wb", buffering=2**20)


class TokenFile:
    """An open file; it stays readable when its name is gone."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises: OSError; ValueError for a file that is not complete."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size < FOOTER.size:
            raise ValueError(f"{path}: is too short")
        self._records_at, self.count, length, magic = FOOTER.unpack(
            self._read(FOOTER.size, size - FOOTER.size)
        )
        if magic != MAGIC:
            raise ValueError(f"{path}: has no end")
        self.about: dict[str, Any] = json.loads(self._read(length, size - FOOTER.size - length))
        self._orders_at = self._records_at + self.count * RECORD.size
        if self._orders_at + 8 * sum(self.about["orders"].values()) + length + FOOTER.size != size:
            raise ValueError(f"{path}: is {size} bytes long, which is not what its end says")

    @property
    def stamp(self) -> str:
        """Changes when the content of the open file does."""
        found = os.fstat(self._file)
        return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """The numbers of ids of all rows."""
        return self.column("ids")

    @cached_property
    def sources(self) -> NDArray[np.int32]:
        """The sources of all rows, by their numbers in about["sources"]."""
        return self.column("source")

    def order(self, name: str) -> Positions:
        """The positions of the rows of a part."""
        start = self._orders_at
        for other, count in self.about["orders"].items():
            if other == name:
                return np.frombuffer(self._read(8 * count, start), dtype="<i8").astype(np.int64)
            start += 8 * count
        raise KeyError(name)

    def rows(self, name: str) -> TokenizedRows:
        """A part of the file: train or validation."""
        return TokenizedRows(
            used=StoredRows(self, self.order(name)),
            left_out=StoredLeftOut(self, self.order(f"{name} left out")),
        )

    def record(self, position: int) -> tuple[Any, ...]:
        """The values of FIELDS of a row."""
        return RECORD.unpack(self._read(RECORD.size, self._records_at + position * RECORD.size))

    def tokens(self, record: Sequence[Any]) -> Row:
        """The tokens of a row by its record."""
        start, _, value, ids, targets, classes = record[:6]
        found = array("i", self._read(4 * (ids + targets + max(0, classes)), start)).tolist()
        return Row(
            ids=found[:ids],
            targets=found[ids : ids + targets],
            classes=None if classes < 0 else tuple(found[ids + targets :]),
            number=None if value != value else value,
        )

    def column(self, name: str) -> NDArray[np.int32]:
        """A field of all rows, of those with 32 bits."""
        found = np.empty(self.count, dtype=np.int32)
        for first in range(0, self.count, AT_ONCE):
            some = min(AT_ONCE, self.count - first)
            content = self._read(some * RECORD.size, self._records_at + first * RECORD.size)
            found[first : first + some] = np.frombuffer(content, dtype=RECORDS)[name]
        return found

    def _read(self, length: int, start: int) -> bytes:
        """Bytes of the file. Raises: OSError, also for a file that was cut off."""
        found = os.pread(self._file, length, start)
        while len(found) < length:
            more = os.pread(self._file, length - len(found), start + len(found))
            if not more:
                raise OSError(f"a file of tokens ends at byte {start + len(found)}; something has cut it off")
            found += more
        return found


class StoredRows(FileRows):
    """Rows of a file; their texts are not kept."""

    def __init__(self, file: TokenFile, positions: Positions) -> None:
        super().__init__(positions)
        self.file = file

    def _at(self, positions: Positions) -> Self:
        return type(self)(self.file, positions)

    def _item(self, position: int) -> TokenizedRow:
        record = self.file.record(position)
        return TokenizedRow(
            number=record[1],
            pieces=[],
            tokens=self.file.tokens(record),
            is_cut=bool(record[9]),
            lost_answers=record[7],
            source=self.file.about["sources"][record[6]],
        )

    @property
    def tokens(self) -> StoredTokens:
        """Their tokens."""
        return StoredTokens(self.file, self.positions)

    @property
    def cut_numbers(self) -> list[int]:
        """The numbers of those that were cut to max_length."""
        cut = self.positions[self.file.column("cut")[self.positions] > 0]
        return [self.file.record(int(position))[1] for position in cut]

    def of_source(self, name: str) -> Positions:
        """The indices of the rows of a source."""
        sources = self.file.about["sources"]
        if name not in sources:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.file.sources[self.positions] == sources.index(name))


class StoredTokens(StoredSequence[Row]):
    """The tokens of rows of a file."""

    def __init__(self, file: TokenFile, positions: Positions) -> None:
        super().__init__(positions)
        self.file = file

    def _at(self, positions: Positions) -> Self:
        return type(self)(self.file, positions)

    def _item(self, position: int) -> Row:
        return self.file.tokens(self.file.record(position))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """The numbers of their ids, without reading them."""
        return self.file.lengths[self.positions]


class StoredLeftOut(StoredSequence[LeftOutRow]):
    """Rows of a file that are left out."""

    def __init__(self, file: TokenFile, positions: Positions) -> None:
        super().__init__(positions)
        self.file = file

    def _at(self, positions: Positions) -> Self:
        return type(self)(self.file, positions)

    def _item(self, position: int) -> LeftOutRow:
        record, about = self.file.record(position), self.file.about
        return LeftOutRow(
            number=record[1], reason=about["reasons"][record[8]], source=about["sources"][record[6]]
        )
