"""The table of presets: every range has its reason and source, and the pages that print it say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.config.space.presets import PRESETS, PresetRange, flow

ROOT = Path(__file__).parents[3]
EVERY = [(name, one) for name, preset in PRESETS.items() for one in preset.ranges]


@pytest.mark.parametrize(("name", "one"), EVERY, ids=lambda value: getattr(value, "key", value))
def test_page_has_range_and_sources(name: str, one: PresetRange) -> None:
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8").split(f"\n## {name}\n")[1]
    row = next(line for line in page.splitlines() if line.startswith(f"| `{one.key}` |"))
    assert f"`{one.text}`" in row
    assert one.basis in row
    assert one.reason in row
    assert all(source in row for source in one.sources)


def test_template_comments_every_range() -> None:
    text = (ROOT / "hpotune" / "templates" / "lora-default.yaml").read_text(encoding="utf-8")
    for one in PRESETS["lora-default"].ranges:
        assert f"{one.key.split('.')[1]}: {one.text}" in text, one.key


def test_only_what_is_fixed_lacks_sources() -> None:
    assert [one.key for _, one in EVERY if not one.sources] == ["train.method"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0e-4, "2.0e-4"),
        (0.05, "0.05"),
        ({"int": [4, 8], "log": True}, "{int: [4, 8], log: true}"),
        ("2 * a", '"2 * a"'),
    ],
)  # fmt: skip
def test_values_are_written_as_yaml(value: object, text: str) -> None:
    assert flow(value) == text  # type: ignore[arg-type]
