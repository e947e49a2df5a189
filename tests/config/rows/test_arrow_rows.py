"""Parquet values as JSON values, and class names from the schema."""

from __future__ import annotations

import datetime
import decimal
import json

import pytest

from hpotune.config.rows.arrow_rows import parquet_fields, parquet_table
from hpotune.config.rows.row_template import NotText, value_text
from hpotune.config.rows.text_encoding import DataFileError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install hpotune[trial]")
parquet = pytest.importorskip("pyarrow.parquet")

DAY = datetime.date(2024, 1, 31)
NOON = datetime.datetime(2024, 1, 31, 12)
VALUES = {
    "text": (pyarrow.string(), "007", "007"),
    "large text": (pyarrow.large_string(), "1.50", "1.50"),
    "whole": (pyarrow.int64(), 7, 7),
    "float": (pyarrow.float64(), 0.1, 0.1),
    "float32": (pyarrow.float32(), 0.1, 0.1),
    "float16": (pyarrow.float16(), 0.5, 0.5),
    "nan": (pyarrow.float64(), float("nan"), None),
    "bool": (pyarrow.bool_(), True, True),
    "decimal": (pyarrow.decimal128(10, 2), decimal.Decimal("1.50"), "1.50"),
    "date": (pyarrow.date32(), DAY, "2024-01-31"),
    "time": (pyarrow.time64("us"), datetime.time(12, 30), "12:30:00"),
    "stamp": (pyarrow.timestamp("us"), NOON, "2024-01-31T12:00:00"),
    "zone": (pyarrow.timestamp("ms", tz="UTC"), NOON, "2024-01-31T12:00:00+00:00"),
    "list": (pyarrow.list_(pyarrow.float32()), [0.1, None], [0.1, None]),
    "struct": (pyarrow.struct({"d": pyarrow.date32(), "t": pyarrow.string()}), {"d": DAY, "t": "x"},
               {"d": "2024-01-31", "t": "x"}),
    "plain struct": (pyarrow.struct({"a": pyarrow.list_(pyarrow.int32())}), {"a": [3]}, {"a": [3]}),
    "map": (pyarrow.map_(pyarrow.string(), pyarrow.float32()), [("k", 0.1)], {"k": 0.1}),
    "category": (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "x", "x"),
    "bytes": (pyarrow.binary(), b"x", b"x"),
    "missing": (pyarrow.list_(pyarrow.date32()), None, None),
    "json": (pyarrow.json_(), '{"a": [1, null]}', {"a": [1, None]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    arrays = {}
    for name, (kind, value, _) in VALUES.items():
        storage = kind.storage_type if name == "json" else kind
        array = pyarrow.array([value, None], type=storage)
        arrays[name] = pyarrow.ExtensionArray.from_storage(kind, array) if name == "json" else array
    parquet.write_table(pyarrow.table(arrays), path)
    return path


@pytest.mark.parametrize("name", VALUES)
def test_values_are_json(name, file):
    row, empty = parquet_table(file).take([0, 1])
    assert row[name] == VALUES[name][2]
    assert type(row[name]) is type(VALUES[name][2])
    assert empty[name] is None


def test_rows_are_taken_by_position(file):
    table = parquet_table(file)
    assert (table.count, table.columns) == (2, list(VALUES))
    assert [row["text"] for row in table.take([1, 0, 1])] == [None, "007", None]


def test_fields_are_known_from_the_schema(file):
    fields = parquet_fields(file)
    assert list(fields) == list(VALUES)
    assert (fields["struct"], fields["text"]) == ({"d": None, "t": None}, None)


def test_class_names_are_in_the_schema(tmp_path):
    feature = {"label": {"names": ["top", "low"], "_type": "ClassLabel"}, "x": [{"dtype": "string"}]}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    table = pyarrow.table({"label": [1]}).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert parquet_table(tmp_path / "rows.parquet").class_names == {"label": ["top", "low"]}


def test_other_files_are_refused(tmp_path):
    (tmp_path / "rows.parquet").write_text("a,b\n")
    for read in (parquet_table, parquet_fields):
        with pytest.raises(DataFileError, match=r"rows.parquet: is not Parquet \("):
            read(tmp_path / "rows.parquet")


def test_time_out_of_range_is_unreadable(tmp_path):
    """A column that no prompt reads refuses nothing; one that is read names what cannot be read."""
    late = pyarrow.array([0, 2**62], pyarrow.timestamp("us"))
    parquet.write_table(pyarrow.table({"x": ["a", "b"], "late": late}), tmp_path / "rows.parquet")
    first, second = parquet_table(tmp_path / "rows.parquet").take([0, 1])
    assert (first["x"], second["x"], first["late"]) == ("a", "b", "1970-01-01T00:00:00")
    with pytest.raises(
        NotText, match=r"holds a timestamp\[us\] value that cannot be read .*; store the column as text"
    ):
        value_text(second["late"])
