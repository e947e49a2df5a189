"""Rows of a Parquet file or of an Arrow table as JSON values; pyarrow is imported in the functions.

A struct is an object, a map too; NaN is missing (None), as pandas writes it. Dates and times are ISO 8601 text,
decimals the text of their digits. Numbers of 16 and 32 bits have their own shortest digits: 0.1, not
0.10000000149011612. Bytes and durations stay what they are, a time out of
Python's range is an UnreadableValue: the prompt that reads them refuses them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hpotune.config.rows.row_table import RowTable
from hpotune.config.rows.row_template import UnreadableValue
from hpotune.config.rows.text_encoding import DataFileError
from hpotune.config.text_files import check_regular
from hpotune.config.yaml_source import Value

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

Conversion = Callable[[object], object]


def parquet_table(file: Path) -> RowTable:
    """The rows of a Parquet file.

    Raises: DataFileError for a file that is not Parquet, or without pyarrow.
    """
    return arrow_table(cast("pyarrow.Table", _read(file, "read_table")))


def opened_parquet(file: Path, *, buffer: int) -> parquet.ParquetFile:
    """An open Parquet file, of which `buffer` bytes are read at once.

    Raises: as `parquet_table`.
    """
    return cast("parquet.ParquetFile", _read(file, "ParquetFile", buffer_size=buffer, pre_buffer=False))


def parquet_fields(file: Path) -> dict[str, Value]:
    """A row without values that has the columns of a Parquet file, and the fields of its structs."""
    import pyarrow

    schema = cast("pyarrow.Schema", _read(file, "read_schema"))
    empty = pyarrow.types.is_struct
    return {field.name: _empty_value(field.type) if empty(field.type) else None for field in schema}


def arrow_table(
    table: pyarrow.Table, take: Callable[[Sequence[int]], pyarrow.Table] | None = None
) -> RowTable:
    """The rows of an Arrow table, converted when they are taken.

    `take`: returns some rows of a table whose rows have another order than they are stored in.
    """
    names = list(table.column_names)
    conversions = {field.name: _conversion(field.type) for field in table.schema}

    def rows(indices: Sequence[int]) -> list[dict[str, Value]]:
        part = table.take(list(indices)) if take is None else take(indices)
        columns = {name: _column_values(part[name], conversions[name]) for name in names}
        return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    return RowTable(columns=names, count=table.num_rows, take=rows, class_names=_class_names(table.schema))


def _read(file: Path, function: str, **options: object) -> object:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataFileError(f"{file}: needs pyarrow; pip install pyarrow") from error
    try:
        check_regular(file)
        return getattr(parquet, function)(file, **options)
    except (OSError, ValueError, ArrowException) as error:
        raise DataFileError(f"{file}: is not Parquet ({str(error).splitlines()[0]})") from error


def _empty_value(kind: pyarrow.DataType) -> Value:
    import pyarrow

    fields = [kind.field(index) for index in range(kind.num_fields)]
    struct = pyarrow.types.is_struct
    return {field.name: _empty_value(field.type) if struct(field.type) else None for field in fields}


def _class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """The names of the columns that `datasets` stored as ClassLabel, in the order of their numbers."""
    stored = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(stored).get("info", {}).get("features", {}) if stored else {}
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _column_values(column: pyarrow.ChunkedArray, conversion: Conversion | None) -> list[object]:
    """The values of a column; an UnreadableValue for each that Python cannot hold."""
    try:
        return _converted(column.to_pylist(), conversion)
    except (ValueError, ArithmeticError):
        return [_scalar_value(scalar, conversion) for scalar in column]


def _scalar_value(scalar: pyarrow.Scalar, conversion: Conversion | None) -> object:
    try:
        return _converted([scalar.as_py()], conversion)[0]
    except (ValueError, ArithmeticError) as error:
        return UnreadableValue(
            f"a {scalar.type} value that cannot be read ({error}); store the column as text"
        )


def _converted(values: list[object], conversion: Conversion | None) -> list[object]:
    if conversion is None:
        return values
    return [None if value is None else conversion(value) for value in values]


def _conversion(kind: pyarrow.DataType) -> Conversion | None:
    """What makes a JSON value of pyarrow's Python value of a type; None if it is one."""
    from pyarrow import BaseExtensionType, types

    if isinstance(kind, BaseExtensionType):
        json_text = kind.extension_name == "arrow.json"
        return cast(Conversion, json.loads) if json_text else _conversion(kind.storage_type)
    if types.is_floating(kind):
        return _float64 if kind.bit_width == 64 else _short_float(kind)
    if types.is_decimal(kind):
        return lambda value: f"{value:f}"
    if types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind):
        return lambda value: value.isoformat()  # type: ignore[attr-defined]
    if types.is_dictionary(kind):
        return _conversion(kind.value_type)
    if types.is_map(kind):
        return _map_conversion(kind)
    if types.is_struct(kind):
        return _struct_conversion(kind)
    inner = _conversion(kind.value_type) if _is_list(kind) else None
    return (lambda items: _converted(cast("list[object]", items), inner)) if inner else None


def _is_list(kind: pyarrow.DataType) -> bool:
    return hasattr(kind, "value_type") and kind.num_fields == 1


def _float64(value: object) -> object:
    return None if math.isnan(cast(float, value)) else value


def _short_float(kind: pyarrow.DataType) -> Conversion:
    import numpy

    number = numpy.float32 if kind.bit_width == 32 else numpy.float16
    return lambda value: _float64(float(str(number(cast(float, value)))))


def _map_conversion(kind: pyarrow.DataType) -> Conversion:
    inner = _conversion(kind.item_type)

    def convert(pairs: object) -> object:
        items = cast("list[tuple[object, object]]", pairs)
        return {str(key): _converted([value], inner)[0] for key, value in items}

    return convert


def _struct_conversion(kind: pyarrow.DataType) -> Conversion | None:
    fields = [kind.field(index) for index in range(kind.num_fields)]
    inner = {field.name: _conversion(field.type) for field in fields}
    if not any(inner.values()):
        return None

    def convert(struct: object) -> object:
        values = cast("dict[str, object]", struct)
        return {name: _converted([value], inner[name])[0] for name, value in values.items()}

    return convert
