"""Mistakes in the section `data` that need no data, and the sources of a mixture."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hpotune.config.schema.data_config import DataConfig


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (" {{ output }}", "{{ output }} has double braces; write {output} for the column"),
        (" {{output}}", "{{output}} has double braces; write {output} for the column"),
        (" output", "has no {column}, so that every row would have the same answer"),
        ('{"queue": "output"}', "has no {column}"),
        ("", "has no {column}"),
        (" {output", "{output opens a brace that nothing closes"),
    ],
)
def test_answer_needs_a_column(response, says):
    with pytest.raises(ValidationError) as error:
        DataConfig(path="x", prompt="{input}", response=response)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("{{input}}", "{{input}} has double braces; write {input}"),
        ("Q: {input}\nA: {output", "{output opens a brace"),
        ("alpacca", "is not a known prompt; did you mean 'alpaca'?"),
        ('{"a": 1}', "is not a known prompt"),
    ],
)
def test_prompt_mistakes_are_named(prompt, says):
    with pytest.raises(ValidationError) as error:
        DataConfig(path="x", prompt=prompt)
    assert says in str(error.value)


def test_json_templates_are_right():
    data = DataConfig(path="x", prompt='{"ask": "{a.b}"}', response='{"queue": {"name": "{Queue Name}"}}')
    assert data.response == '{"queue": {"name": "{Queue Name}"}}'


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({}, "path: is missing; give an id, a file or a folder, or mixture:"),
        ({"path": "x", "mixture": {"a": {"path": "y"}}}, "path: stands beside mixture:; write it under each"),
        ({"mixture": {"a": {"path": "y", "weight": 0}}}, "mixture: all weights are 0"),
        ({"mixture": {"a b": {"path": "y"}}}, "mixture: 'a b' is no name of a source"),
        (
            {"mixture": {"a": {"path": "y", "response": "{b}"}}},
            "mixture: a: response: needs a template as prompt",
        ),
        ({"mixture": {"a": {"path": "y", "weight": -1.0}}}, "greater than or equal to 0"),
    ],
)
def test_mixture_mistakes_are_named(section, says):
    with pytest.raises(ValidationError) as error:
        DataConfig(**section)
    assert says in str(error.value)


def test_source_takes_what_it_lacks():
    mixture = {"a": {"path": "x", "validation": 0, "prompt": "{q}"}, "b": {"path": "y", "rows": 9}}
    data = DataConfig(mixture=mixture, prompt="{input}", response="{output}", max_length=64)
    a, b = data.sources.values()
    assert (a.path, a.prompt, a.response, a.validation, a.max_length) == ("x", "{q}", None, 0, 64)
    assert (b.path, b.prompt, b.response, b.rows, b.mixture) == ("y", "{input}", "{output}", 9, {})
    assert data.holds_out
    assert DataConfig(path="x").sources == {"": DataConfig(path="x")}
