"""Scalars in TensorBoard's event files, read without TensorBoard.

Format: TFRecords (length, its checksum, an Event message, its checksum); the numbers of the protobuf fields are those
of tensorflow/core/util/event.proto, framework/summary.proto and framework/tensor.proto. A record that is cut, as the
last one of a running or killed program may be, ends the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<QI")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
_TENSOR_TYPES = {1: ("f", 4), 2: ("d", 8), 3: ("i", 4), 9: ("q", 8)}
"""DataType of a TensorProto -> struct's letter and its bytes: float, double, int32, int64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """One value of a scalar summary."""

    wall_time: float
    """Unix seconds at which it was written."""
    step: int
    tag: str
    value: float


def read_scalars(folder: Path) -> list[Scalar]:
    """All scalars of the event files in a folder and the folders below it, in the order in which they were written."""
    files = sorted(folder.rglob("*tfevents*")) if folder.is_dir() else [folder] if folder.is_file() else []
    found = [scalar for file in files for scalar in _scalars_of(file.read_bytes())]
    return sorted(found, key=lambda scalar: scalar.wall_time)


def _scalars_of(content: bytes) -> Iterator[Scalar]:
    start = 0
    while start + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, start)
        body = start + _HEADER.size
        if checksum != masked_crc32c(content[start : start + 8]) or body + length + 4 > len(content):
            return
        yield from _scalars_in_event(content[body : body + length])
        start = body + length + 4


def _scalars_in_event(event: bytes) -> Iterator[Scalar]:
    fields = list(_fields(event))
    wall_time = next((struct.unpack("<d", v)[0] for n, v in fields if n == 1 and isinstance(v, bytes)), 0.0)
    step = next((v for n, v in fields if n == 2 and isinstance(v, int)), 0)
    step = step - (1 << 64) if step >= 1 << 63 else step  # int64 as a varint
    for summary in (v for n, v in fields if n == 5 and isinstance(v, bytes)):
        for value in (v for n, v in _fields(summary) if n == 1 and isinstance(v, bytes)):
            parts = list(_fields(value))
            tag = next((v.decode(errors="replace") for n, v in parts if n == 1 and isinstance(v, bytes)), "")
            number = _number_of(parts)
            if number is not None:
                yield Scalar(wall_time=wall_time, step=step, tag=tag, value=number)


def _number_of(parts: list[tuple[int, int | bytes]]) -> float | None:
    """The number of a Summary.Value: its simple_value, or its tensor of one element; None where it has neither."""
    for field, value in parts:
        if field == 2 and isinstance(value, bytes) and len(value) == 4:
            return float(struct.unpack("<f", value)[0])
        if field == 8 and isinstance(value, bytes):
            return _number_of_tensor(list(_fields(value)))
    return None


def _number_of_tensor(parts: list[tuple[int, int | bytes]]) -> float | None:
    kind = next((v for n, v in parts if n == 1 and isinstance(v, int)), 0)
    if kind not in _TENSOR_TYPES:
        return None
    letter, width = _TENSOR_TYPES[kind]
    for field, value in parts:
        # 4: tensor_content; 5, 6: packed float_val and double_val, whose elements have the same bytes
        if field in (4, 5, 6) and isinstance(value, bytes) and len(value) == width:
            return float(struct.unpack(f"<{letter}", value)[0])
    return None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number, and its integer or bytes; ends where the message is damaged."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in _WIDTH:
            length = _WIDTH[kind]
        else:
            return
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = bits = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << bits
        at, bits = at + 1, bits + 7
        if byte < 0x80:
            break
    return value, at


def _table() -> list[int]:
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, reflected
        entries.append(byte)
    return entries


_CRC_TABLE = _table()


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated and shifted (tensorflow/tsl/lib/hash/crc32c.h)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
