"""Mistakes in the templates of the section `data` that need no data."""

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
