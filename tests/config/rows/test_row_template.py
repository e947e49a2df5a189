"""Placeholders of templates, the fields that they name, and values as text."""

from __future__ import annotations

import datetime

import pytest

from hpotune.config.rows.row_template import (
    NoSuchField,
    NotText,
    field_names,
    field_value,
    has_field,
    placeholders,
    template_mistake,
    template_parts,
    value_text,
)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (" {output}", ["output"]),
        ("{Queue Name}: {a.b} {output-clean} {0} {ü}", ["Queue Name", "a.b", "output-clean", "0", "ü"]),
        ("{output:.2f} {output!r} { output }", ["output:.2f", "output!r", " output "]),
        ('{"queue": "{output}", "a": {}, "b": {"c": [1]}, "d": { }}', ["output"]),
        ("{'queue': '{output}'}", ["output"]),
        ('{\n  "queue": {output}}', ["output"]),
        ('{ "queue": 1 }', []),
        ("{\n  return x;\n}", []),
        ("no braces", []),
        ('{"queue": "', []),
        ("{'{'}literal{'}'} {\"{\"}", []),
    ],
)
def test_placeholders_are_any_braces_but_json(template, names):
    assert placeholders(template) == names
    assert template_mistake(template) is None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{'{'}{x}{'}'}", "{X}"),
        (r"\boxed{'{'}{x}{'}'}", r"\boxed{X}"),
        ('{"{"}x{"}"}', "{x}"),
        ('{"a": {x}}', '{"a": X}'),
        ("{ {x} }", "{ X }"),
        ("[{x}, {'{'}]", "[X, {]"),
    ],
)
def test_escaped_braces_are_literal(template, text):
    assert (
        "".join(part.text.upper() if part.is_column else part.text for part in template_parts(template))
        == text
    )
    assert template_mistake(template) is None


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (" {{ output }}", "{{ output }} has double braces; write {output} for the column"),
        (" {{output}}", "{{output}} has double braces; write {output}"),
        (r"\boxed{{answer}}", "with braces around its value: {'{'}{answer}{'}'}"),
        ("{{{output}}}", "has double braces"),
        (" {output", "{output opens a brace that nothing closes; write } behind the name of the column"),
        ("{input} -> {output", "{output opens a brace"),
        ("{input text {output}", "{input text {output} opens a brace that nothing closes"),
        (" {{output}", "{{output} opens a brace that nothing closes"),
        (" {output}}", "{output}} closes a brace that nothing opens; write { before the name"),
        ("{input} output} text", "{input} output} closes a brace that nothing opens"),
    ],
)
def test_mistakes_need_no_columns(template, says):
    assert says in str(template_mistake(template))


ROW = {
    "a": {"b": 1, "c.d": {"e": None}},
    "a.b": "own",
    "x.y": {"z": 2},
    "text": "t",
    "list": [1],
    "none": None,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [("a.b", "own"), ("a.c.d.e", None), ("x.y.z", 2), ("none", None), ("list", [1]), ("a", ROW["a"])],
)
def test_fields_are_found(name, value):
    assert has_field(ROW, name)
    assert field_value(ROW, name) == value


@pytest.mark.parametrize("name", ["b", "a.x", "none.x", "A", " text ", ""])
def test_absent_fields_are_missing(name):
    assert not has_field(ROW, name)
    assert field_value(ROW, name) is None


@pytest.mark.parametrize(("name", "kind"), [("text.b", "text"), ("list.0", "a list")])
def test_only_objects_have_fields(name, kind):
    assert not has_field(ROW, name)
    with pytest.raises(NoSuchField, match=f"is {kind}, which has no field"):
        field_value(ROW, name)


def test_names_of_fields():
    assert field_names([{"a": {"b": {"c": 1}}}, {"d": None}]) == ["a", "a.b", "a.b.c", "d"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("007", "007"),
        ("None", "None"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (3.0, "3.0"),
        (1.5, "1.5"),
        (1e17, "1e+17"),
        (1e-5, "1e-05"),
        (0.1, "0.1"),
        (10**30, "1" + "0" * 30),
        (["red", "blue"], '["red", "blue"]'),
        ({"queue": "grün", "urgent": True, "note": None}, '{"queue": "grün", "urgent": true, "note": null}'),
        ({"text": ["green"], "answer_start": [3]}, '{"text": ["green"], "answer_start": [3]}'),
    ],
)
def test_values_are_text_or_json(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"x", "holds bytes, which is neither text nor JSON"),
        ({"a": [b"x"]}, "holds bytes"),
        (datetime.timedelta(1), "holds timedelta"),
        (float("inf"), "holds an infinite number"),
        ([float("-inf")], "holds an infinite number"),
    ],
)
def test_other_values_are_named(value, says):
    with pytest.raises(NotText, match=says):
        value_text(value)
