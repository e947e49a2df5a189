"""The table of algorithms, and one of them with its options. Drawn from mappings; imports no algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.config.schema.study_config import Json

COLUMNS = {"name": "algorithm", "when": "use it for", "cost": "an ask costs", "parallel": "many workers"}


def table(told: Sequence[Mapping[str, Json]]) -> RenderableType:
    """One line an algorithm."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for title in (*COLUMNS.values(), "cannot take", "source"):
        found.add_column(title, overflow="fold")
    for one in told:
        found.add_row(
            *(str(one[key]) for key in COLUMNS), ", ".join(one["cannot"]) or "-", str(one["source"])
        )
    return found


def page(one: Mapping[str, Json]) -> RenderableType:
    """One algorithm with its options."""
    lines = [Text(str(one["name"]), style="bold")]
    lines += [Text(f"{title}: {one[key]}") for key, title in COLUMNS.items() if key != "name"]
    lines += [Text(f"cannot take: {', '.join(one['cannot']) or '-'}"), Text(f"source: {one['source']}")]
    options = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("search.options", "meaning"):
        options.add_column(title, overflow="fold")
    for name, meaning in one["options"].items():
        options.add_row(name, str(meaning))
    return Group(*lines, Text(""), options if one["options"] else Text("It takes no options."))
